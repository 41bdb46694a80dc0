"""Tables of the metadata database, drawn once, and how older files become newer ones.

Every table has the columns of `base.db.Table`: (ns, key, value JSON, sum). What is under which key:

============ =========================== ===============================================================================
table        key                         value
============ =========================== ===============================================================================
namespaces   its name (ns is "")         `core.namespaces.Namespace`
images       its name                    `core.images.Image`
containers   its id                      `core.containers.Container`
leases       its id                      `Lease`: the lease and what it holds
blobs        its digest                  `core.content.Info`: that the namespace sees the blob, and its labels
snapshots    snapshotter + "/" + key     `Snapshot`: the key in the snapshotter, parent, labels
sandboxes    its id                      `core.sandboxes.Sandbox`
============ =========================== ===============================================================================

Invariant: a migration is never edited once released; a new one is appended to `MIGRATIONS`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydock.base import db, names
from pydock.core import containers, content, images, leases, namespaces, sandboxes, snapshots


@dataclass(frozen=True, slots=True)
class Lease:
    """``resources`` maps "<type> <id>" to a resource."""

    lease: leases.Lease
    resources: Mapping[str, leases.Resource] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``backend`` is the snapshotter's own key; ``parent`` is a name of the same namespace and snapshotter."""

    backend: str
    kind: snapshots.Kind
    parent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0
    updated_at: int = 0


NAMESPACES = db.Table("namespaces", namespaces.Namespace)
IMAGES = db.Table("images", images.Image)
CONTAINERS = db.Table("containers", containers.Container)
LEASES = db.Table("leases", Lease)
BLOBS = db.Table("blobs", content.Info)
SNAPSHOTS = db.Table("snapshots", Snapshot)
SANDBOXES = db.Table("sandboxes", sandboxes.Sandbox)

TABLES = (NAMESPACES, IMAGES, CONTAINERS, LEASES, BLOBS, SNAPSHOTS, SANDBOXES)

_COLUMNS = "(ns TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (ns, key)) WITHOUT ROWID"
_FIRST = ("namespaces", "images", "containers", "leases", "blobs", "snapshots")

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    tuple(f"CREATE TABLE {name} {_COLUMNS}" for name in _FIRST),
    (f"CREATE TABLE sandboxes {_COLUMNS}",),
)

SCHEMA = db.Schema("metadata", TABLES, MIGRATIONS)


def snapshot_key(snapshotter: str, key: str) -> str:
    """Return the key of a row in `SNAPSHOTS`; a snapshotter's name holds no slash."""
    return f"{snapshotter}/{key}"


def touch(tx: db.Transaction, ns: str) -> None:
    """Make the namespace of a write that is its first. Raises InvalidArgument, FailedPrecondition for a bad name."""
    if tx.get(NAMESPACES, "", ns) is None:
        tx.put(NAMESPACES, "", ns, namespaces.Namespace(names.namespace(ns)))


@contextlib.asynccontextmanager
async def open_metadata(path: Path) -> AsyncIterator[db.Database]:
    """Open the metadata database at ``path``; see `base.db.open` for what it raises."""
    async with db.open(path, SCHEMA) as database:
        yield database
