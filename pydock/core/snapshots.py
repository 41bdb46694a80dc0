"""Snapshots: the file trees containers run on, in layers.

Vocabulary: an *active* snapshot can be written and belongs to a *key*; committing turns it into a *committed* one with a *name*, which can
be a parent; a *view* is a read-only active one.  `Snapshotter` is a mechanism, its keys opaque; `Service` is the same per namespace.
Kinds are numbered as on the wire (containerd.services.snapshots.v1.Kind).
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from pydock.core.mounts import Mount

# Present on an active snapshot that unpack prepares: the name (chain id) it is to be committed under.
REF_LABEL = "containerd.io/snapshot.ref"

# Given "true" to prepare (without a parent): the snapshot is to be committed on a parent later, by `Rebaser.rebase`.
REBASE_LABEL = "io.pydock.snapshot/rebase"


class Kind(enum.IntEnum):
    UNKNOWN = 0
    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


@dataclass(frozen=True, slots=True)
class Info:
    """A snapshot; times in ns since the epoch."""

    name: str
    kind: Kind
    parent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0
    updated_at: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Disk use of one snapshot alone, without its parents: bytes allocated and inodes."""

    size: int
    inodes: int


class Snapshotter(Protocol):
    """A mechanism.  NotFound / AlreadyExists carry ``snapshot <key>``; removing a parent of others is FailedPrecondition."""

    async def stat(self, key: str) -> Info: ...
    async def update(self, info: Info, paths: Sequence[str] = ()) -> Info: ...
    async def usage(self, key: str) -> Usage: ...
    async def mounts(self, key: str) -> Sequence[Mount]: ...
    async def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]: ...
    async def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]: ...
    async def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        """Durable when it returns: the files are synced before the record."""

    async def remove(self, key: str) -> None: ...
    def walk(self, filters: Iterable[str] = ()) -> AsyncIterator[Info]: ...
    async def cleanup(self) -> None:
        """Remove directories that no record names."""


@runtime_checkable
class Rebaser(Protocol):
    """What a `Snapshotter` may offer besides, so that the layers of an image are unpacked in parallel and flushed together.

    Prepare each layer with `REBASE_LABEL` and no parent, unpack into its mounts, `rebase` in layer order, then `settle` once.  The mounts
    of such a snapshot are an overlay on an empty directory, so whiteouts are written as whiteouts although there is nothing below yet.
    """

    async def rebase(self, name: str, key: str, parent: str, labels: Mapping[str, str]) -> None:
        """Commit ``key`` as ``name`` on ``parent``, usable at once and settled soon by itself.

        A power cut before that undoes it, wholly, with all that stands on it.  Works for plainly prepared snapshots too, as a commit that
        leaves the sync to `settle`.
        Raises as commit, and InvalidArgument where the snapshot has another parent already or ``parent`` is not committed.
        """

    async def settle(self) -> None:
        """Make all rebased snapshots survive a power cut: one sync of the file system and one record."""


class Service(Protocol):
    """All snapshotters as the clients of a namespace see them; ``snapshotter`` "" means the default one."""

    def names(self) -> Sequence[str]:
        """Return the snapshotters there are, the default one first."""

    def rebases(self, snapshotter: str) -> bool:
        """Tell whether the snapshotter is a `Rebaser`."""

    async def stat(self, ns: str, snapshotter: str, key: str) -> Info: ...
    async def update(self, ns: str, snapshotter: str, info: Info, paths: Sequence[str] = ()) -> Info: ...
    async def usage(self, ns: str, snapshotter: str, key: str) -> Usage: ...
    async def mounts(self, ns: str, snapshotter: str, key: str) -> Sequence[Mount]: ...
    async def prepare(self, ns: str, snapshotter: str, request: Preparation) -> Sequence[Mount]: ...
    async def view(self, ns: str, snapshotter: str, request: Preparation) -> Sequence[Mount]: ...
    async def commit(self, ns: str, snapshotter: str, request: Commitment) -> None: ...
    async def rebase(self, ns: str, snapshotter: str, request: Commitment, parent: str) -> None:
        """See `Rebaser.rebase`; Unimplemented where the snapshotter is none."""

    async def settle(self, ns: str, snapshotter: str) -> None:
        """See `Rebaser.settle`."""

    async def remove(self, ns: str, snapshotter: str, key: str) -> None: ...
    def walk(self, ns: str, snapshotter: str, filters: Iterable[str] = ()) -> AsyncIterator[Info]: ...
    async def cleanup(self, ns: str, snapshotter: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Preparation:
    """A new active or view snapshot; it is added to ``lease`` when one is named."""

    key: str
    parent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    lease: str = ""


@dataclass(frozen=True, slots=True)
class Commitment:
    """The active snapshot ``key`` becomes the committed ``name``."""

    name: str
    key: str
    labels: Mapping[str, str] = field(default_factory=dict)
    lease: str = ""
