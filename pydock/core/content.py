"""Content: immutable blobs named by digest, and the ingests that become blobs.

Vocabulary: a *blob* is bytes under their digest; an *ingest* is a blob being written, named by a client's *ref*; a *writer* holds the
exclusive lock of one ingest.  `Blobs` is the mechanism (bytes on a disk, no namespaces); `Store` is what clients see: blobs and ingests of
one namespace, with labels.  Bytes are shared between namespaces; labels and visibility are not.

Invariants: a ref has at most one writer (a second one is Unavailable); a commit checks size and digest, a wrong one is
FailedPrecondition and keeps the ingest; committing what exists is AlreadyExists and frees the ref; when a commit returns, the blob
survives a power cut.
Source: containerd api/services/content/v1 and its content test suite's invariants.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Info:
    """A blob: size in bytes, times in ns since the epoch."""

    digest: str
    size: int
    created_at: int = 0
    updated_at: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """An ingest: bytes there (``offset``), bytes expected (``total``, 0 when unknown), the digest expected ("" when unknown)."""

    ref: str
    offset: int
    total: int
    expected: str
    started_at: int
    updated_at: int


class Reader(Protocol):
    """An open blob.  ``fd`` is a read-only regular file, for sendfile, preads in threads and helpers."""

    @property
    def size(self) -> int: ...
    @property
    def fd(self) -> int: ...
    async def read_at(self, offset: int, length: int) -> bytes: ...
    async def close(self) -> None: ...


class Writer(Protocol):
    """The exclusive holder of an ingest; closing it without commit keeps the ingest for a later resume."""

    def status(self) -> Status: ...
    async def write(self, data: bytes | memoryview) -> int:
        """Append; returns the new offset.  ResourceExhausted when the disk is full (the ingest stays at its last good offset)."""

    async def truncate(self, size: int) -> None:
        """Cut the ingest to ``size`` bytes (only 0 needs to be supported by every backend)."""

    async def digest(self) -> str:
        """The sha256 digest of what is written so far."""

    async def commit(self, size: int, expected: str, labels: Mapping[str, str]) -> str:
        """Turn the ingest into a blob; size 0 and expected "" mean unchecked.  Returns the digest."""

    async def close(self) -> None: ...


class Blobs(Protocol):
    """The bytes, without namespaces or labels.  Refs here are opaque strings of any length."""

    async def info(self, digest: str) -> Info: ...
    async def open(self, digest: str) -> Reader: ...
    def walk(self) -> AsyncIterator[Info]: ...
    async def delete(self, digest: str) -> None: ...
    async def writer(self, ref: str, total: int = 0, expected: str = "") -> Writer:
        """Open or resume the ingest ``ref``.  Unavailable while another writer holds it; AlreadyExists if ``expected`` is there."""

    async def status(self, ref: str) -> Status: ...
    async def statuses(self) -> Sequence[Status]: ...
    async def abort(self, ref: str) -> None: ...


class Store(Protocol):
    """What a client of namespace ``ns`` sees.  NotFound carries ``content <digest>``."""

    async def info(self, ns: str, digest: str) -> Info: ...
    async def update(self, ns: str, info: Info, paths: Sequence[str] = ()) -> Info:
        """Replace labels; ``paths`` is a field mask: "labels", "labels.KEY"; empty means all labels."""

    def walk(self, ns: str, filters: Iterable[str] = ()) -> AsyncIterator[Info]: ...
    async def delete(self, ns: str, digest: str) -> None: ...
    async def open(self, ns: str, digest: str) -> Reader: ...
    async def writer(self, ns: str, ref: str, total: int = 0, expected: str = "", lease: str = "") -> Writer:
        """As `Blobs.writer`; the committed blob is added to ``lease`` when one is named."""

    async def status(self, ns: str, ref: str) -> Status: ...
    async def statuses(self, ns: str, filters: Iterable[str] = ()) -> Sequence[Status]: ...
    async def abort(self, ns: str, ref: str) -> None: ...
