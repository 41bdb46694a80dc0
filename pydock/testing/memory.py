"""Stand-ins that keep everything in memory: a snapshotter without files and an exchange that only remembers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from pydock.base import clock, errors
from pydock.core import containers, events, snapshots
from pydock.core.mounts import Mount


class MemorySnapshotter:
    """A `core.snapshots.Snapshotter` whose mounts lead nowhere; ``fail`` is raised by the next call that makes or removes."""

    def __init__(self) -> None:
        self.infos: dict[str, snapshots.Info] = {}
        self.fail: errors.PydockError | None = None

    async def stat(self, key: str) -> snapshots.Info:
        """Return one."""
        if key not in self.infos:
            raise errors.NotFound(f"snapshot {key}")
        return self.infos[key]

    async def update(self, info: snapshots.Info, paths: Sequence[str] = ()) -> snapshots.Info:
        """Replace the labels, whatever ``paths`` say."""
        self.infos[info.name] = dataclasses.replace(await self.stat(info.name), labels=info.labels)
        return self.infos[info.name]

    async def usage(self, key: str) -> snapshots.Usage:
        """Return a page and a file."""
        await self.stat(key)
        return snapshots.Usage(4096, 1)

    async def mounts(self, key: str) -> Sequence[Mount]:
        """Return a bind of nothing."""
        if (await self.stat(key)).kind is snapshots.Kind.COMMITTED:
            raise errors.FailedPrecondition(f"snapshot {key} is not active")
        return [Mount("bind", f"/nowhere/{key}")]

    async def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make an active one."""
        return await self._make(key, parent, labels, snapshots.Kind.ACTIVE)

    async def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make a view."""
        return await self._make(key, parent, labels, snapshots.Kind.VIEW)

    async def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        """Turn ``key`` into ``name``."""
        self._maybe_fail()
        info = await self.stat(key)
        if info.kind is not snapshots.Kind.ACTIVE:
            raise errors.FailedPrecondition(f"snapshot {key} is not active")
        del self.infos[key]
        self.infos[name] = dataclasses.replace(info, name=name, kind=snapshots.Kind.COMMITTED, labels=dict(labels))

    async def remove(self, key: str) -> None:
        """Remove one that is nobody's parent."""
        self._maybe_fail()
        await self.stat(key)
        if any(info.parent == key for info in self.infos.values()):
            raise errors.FailedPrecondition(f"snapshot {key} has children")
        del self.infos[key]

    async def walk(self, filters: Iterable[str] = ()) -> AsyncIterator[snapshots.Info]:
        """Yield all."""
        for info in tuple(self.infos.values()):
            yield info

    async def cleanup(self) -> None:
        """Do nothing."""

    async def _make(self, key: str, parent: str, labels: Mapping[str, str], kind: snapshots.Kind) -> Sequence[Mount]:
        self._maybe_fail()
        if key in self.infos:
            raise errors.AlreadyExists(f"snapshot {key}")
        if parent:
            await self.stat(parent)
        self.infos[key] = snapshots.Info(key, kind, parent, dict(labels), clock.now(), clock.now())
        return await self.mounts(key)

    def _maybe_fail(self) -> None:
        error, self.fail = self.fail, None
        if error is not None:
            raise error


class Recorder:
    """A `core.events.Exchange` without subscribers: ``seen`` holds (namespace, event) in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, events.Event]] = []

    def publish(self, ns: str, event: events.Event) -> None:
        """Remember the event."""
        self.seen.append((ns, event))

    def publish_packed(self, ns: str, topic: str, event: containers.Any) -> None:
        """Refuse: nothing here packs."""
        raise errors.Unimplemented(topic)

    def forward(self, envelope: events.Envelope) -> None:
        """Refuse: nothing here packs."""
        raise errors.Unimplemented(envelope.topic)

    @contextlib.asynccontextmanager
    async def subscribe(self, filters: Iterable[str] = ()) -> AsyncIterator[AsyncIterator[events.Envelope]]:
        """Refuse: look at ``seen``."""
        raise errors.Unimplemented("subscribe")
        yield
