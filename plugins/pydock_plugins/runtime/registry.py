"""All task records of the daemon by (namespace, id), and what every part of the runtime is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydock.base import errors
from pydock_plugins.runtime import bundle as bundles
from pydock_plugins.runtime.launcher import Launcher
from pydock_plugins.runtime.records import Record


class Registry:
    """The records; at most one per (namespace, id)."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Record] = {}

    def get(self, ns: str, id: str) -> Record | None:
        """Return the record, seen by clients or not."""
        return self._records.get((ns, id))

    def find(self, ns: str, id: str) -> Record:
        """Return a record clients may see.  Raises NotFound ``task <id> not found``, from which Go clients cut the class text."""
        record = self._records.get((ns, id))
        if record is None or not record.visible:
            raise errors.NotFound(f"task {id} not found")
        return record

    def of(self, ns: str) -> Sequence[Record]:
        """Return the visible records of a namespace in order of creation."""
        return [record for record in self._records.values() if record.ns == ns and record.visible]

    def all(self) -> Sequence[Record]:
        """Return every record."""
        return list(self._records.values())

    def add(self, record: Record) -> None:
        """Take the id.  Raises AlreadyExists ``task <id>``."""
        if (record.ns, record.id) in self._records:
            raise errors.AlreadyExists(f"task {record.id}")
        self._records[record.ns, record.id] = record

    def remove(self, record: Record) -> None:
        """Free the id, if it still is this record's, and let go on who waits for that."""
        record.left.set()
        if self._records.get((record.ns, record.id)) is record:
            del self._records[record.ns, record.id]


@dataclass(frozen=True)
class Parts:
    """What the verbs of the runtime share."""

    bundles: bundles.Bundles
    launcher: Launcher
    sockets: Path
    events_address: str
    runtime: str = "auto"
    runtime_root: str = ""
    debug: bool = False
    records: Registry = field(default_factory=Registry)
