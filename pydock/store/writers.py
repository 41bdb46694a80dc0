"""The writer of an ingest as a client of a namespace holds it.

Vocabulary: *inner* is the backend's writer; a writer without one is *sharing*: the expected bytes are there, it has them all from the start
and commits without writing. Writing to it after all, or truncating it, makes it an ordinary one.
Invariant: a writer is used by one task at a time, is closed once it is committed, and closing twice is fine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydock.base import clock, errors
from pydock.core import content, leases

COPY_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """What a writer was opened for."""

    ns: str
    ref: str
    total: int = 0
    expected: str = ""
    lease: str = ""

    @property
    def backend_ref(self) -> str:
        """Return the ref in the backend, unique over all namespaces."""
        return f"{self.ns}/{self.ref}"

    @property
    def resource(self) -> leases.Resource:
        """Return what a lease holds while the ingest is not committed."""
        return leases.Resource(self.ref, "ingests")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a commit asks for: 0 and "" are not checked."""

    size: int = 0
    expected: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Home(Protocol):
    """The store a writer commits to."""

    async def commit(self, target: Target, inner: content.Writer | None, wanted: Wanted) -> str: ...
    def share(self, target: Target) -> None: ...
    def unshare(self, target: Target) -> None: ...


class Writer:
    """See `core.content.Writer`; made by `Content.writer`."""

    def __init__(self, home: Home, blobs: content.Blobs, target: Target, inner: content.Writer | None) -> None:
        self._home, self._blobs, self._target, self._inner = home, blobs, target, inner
        self._sharing = inner is None
        self._closed = False
        self._size, self._opened_at = 0, clock.now()
        if self._sharing:
            home.share(target)

    @property
    def fd(self) -> int:
        """Return the backend's descriptor of the growing file, -1 where it has none or all bytes are there already."""
        return int(getattr(self._inner, "fd", -1))

    @property
    def offset(self) -> int:
        """Return how many bytes are there."""
        return self._size if self._inner is None else int(getattr(self._inner, "offset", self._inner.status().offset))

    async def learn(self) -> None:
        """Ask the size of the shared bytes, if they are. Raises FailedPrecondition when it is not the total."""
        if self._inner is not None:
            return
        info = await self._blobs.info(self._target.expected)
        if self._target.total and self._target.total != info.size:
            raise errors.FailedPrecondition(f"{self._target.ref!r} failed size validation: {info.size} != {self._target.total}")
        self._size = info.size

    def status(self) -> content.Status:
        """Return ref, offset, total, expected digest and times."""
        target = self._target
        if self._inner is None:
            return content.Status(target.ref, self._size, target.total, target.expected, self._opened_at, self._opened_at)
        found = self._inner.status()
        return content.Status(target.ref, found.offset, found.total, found.expected, found.started_at, found.updated_at)

    async def write(self, data: bytes | memoryview) -> int:
        """Append; returns the new offset. Raises ResourceExhausted on a full disk."""
        inner = self._inner or await self._own_copy(self._size)
        return await inner.write(data)

    async def truncate(self, size: int) -> None:
        """Cut to ``size`` bytes. Raises InvalidArgument beyond the offset."""
        if self._inner is None:
            await self._own_copy(min(size, self._size))
        if self._inner is not None and self.offset != size:
            await self._inner.truncate(size)

    async def digest(self) -> str:
        """Return the digest of the bytes so far."""
        return self._target.expected if self._inner is None else await self._inner.digest()

    async def commit(self, size: int, expected: str, labels: Mapping[str, str]) -> str:
        """Make the namespace see the blob, durably, and return its digest; the writer is closed whatever the outcome.

        Raises FailedPrecondition (size or digest; the ingest stays), AlreadyExists (the ingest goes), InvalidArgument (labels).
        """
        if self._closed:
            raise errors.FailedPrecondition(f"writer of {self._target.ref} is closed")
        try:
            return await self._home.commit(self._target, self._inner, Wanted(size, expected, labels))
        finally:
            await self.close()

    async def close(self) -> None:
        """Unlock the ref; the ingest stays to be resumed."""
        self._closed = True
        self._stop_sharing()
        if self._inner is not None:
            await self._inner.close()

    def _stop_sharing(self) -> None:
        if self._sharing:
            self._sharing = False
            self._home.unshare(self._target)

    async def _own_copy(self, size: int) -> content.Writer:
        """Become an ordinary writer with the first ``size`` bytes; the shared ones stay pinned until they are copied."""
        if self._closed:
            raise errors.FailedPrecondition(f"writer of {self._target.ref} is closed")
        inner = await self._blobs.writer(self._target.backend_ref, self._target.total)
        try:
            await inner.truncate(0)
            if size:
                await self._copy(inner, size)
        except BaseException:
            await inner.close()
            raise
        self._inner = inner
        self._stop_sharing()
        return inner

    async def _copy(self, inner: content.Writer, size: int) -> None:
        reader = await self._blobs.open(self._target.expected)
        try:
            offset = 0
            while offset < size:
                data = await reader.read_at(offset, min(COPY_CHUNK, size - offset))
                if not data:
                    raise errors.DataLoss(f"content {self._target.expected} ends at {offset} of {size} bytes")
                offset = await inner.write(data)
        finally:
            await reader.close()
