"""A content store in another process, as `core.content.Blobs`.

A blob that is opened is copied to a file without a name in a directory of ours, since readers want a file.  Blobs are committed with the
label ``containerd.io/gc.root``: the other side may be a whole containerd with a collector of its own, and only our records know what is
in use; a mere mechanism ignores it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from google.protobuf import empty_pb2, field_mask_pb2

from pydock._proto.containerd.services.content.v1 import content_pb2 as pb
from pydock.base import clock, errors, offload
from pydock.core import content
from pydock.services import codec, remote

SERVICE = "/containerd.services.content.v1.Content/"
CHUNK = 1 << 20  # bytes of one write; every server takes 4 MiB in a message
END_SECONDS = 10.0  # for the other side to let go of an ingest
_LOCKED = re.compile(r"^ref \S+ locked")  # the other side may call it otherwise, with a namespace in front
GC_ROOT = {"containerd.io/gc.root": "pydock"}


class Copy:
    """A `core.content.Reader` over a private copy."""

    def __init__(self, fd: int) -> None:
        self._fd, self._size = fd, os.fstat(fd).st_size

    @property
    def size(self) -> int:
        """Return the blob's bytes."""
        return self._size

    @property
    def fd(self) -> int:
        """Return the file."""
        return self._fd

    async def read_at(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes."""
        return await offload.run(os.pread, self._fd, length, offset)

    async def close(self) -> None:
        """Let the copy go; it may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class ProxyBlobs:
    """Asks the content service at the other end; ``place`` holds the copies of what is open."""

    def __init__(self, far: remote.Remote, place: Path) -> None:
        self._far, self._place = far, place

    async def info(self, digest: str) -> content.Info:
        """Return size and times."""
        with _content(digest, errors.NotFound):
            answer = await self._far.unary(f"{SERVICE}Info", pb.InfoRequest(digest=digest), pb.InfoResponse)
        return _info(answer.info)

    async def open(self, digest: str) -> Copy:
        """Copy the blob here and open the copy. Raises DataLoss where not all of it came."""
        size = (await self.info(digest)).size
        fd = os.open(self._place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            async for part in self._far.read(f"{SERVICE}Read", pb.ReadContentRequest(digest=digest), pb.ReadContentResponse):
                await offload.run(_write_at, fd, part.data, part.offset)
            if os.fstat(fd).st_size != size:
                raise errors.DataLoss(f"content {digest}: {os.fstat(fd).st_size} of {size} bytes came")
            return Copy(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            os.close(fd)

    async def walk(self) -> AsyncIterator[content.Info]:
        """Yield every blob."""
        async for block in self._far.read(f"{SERVICE}List", pb.ListContentRequest(), pb.ListContentResponse):
            for info in block.info:
                yield _info(info)

    async def delete(self, digest: str) -> None:
        """Remove the blob."""
        with _content(digest, errors.NotFound):
            await self._far.unary(f"{SERVICE}Delete", pb.DeleteContentRequest(digest=digest), empty_pb2.Empty)

    async def writer(self, ref: str, total: int = 0, expected: str = "") -> ProxyWriter:
        """Open or resume an ingest; the other side locks it while the writer is open."""
        talk = self._far.converse(f"{SERVICE}Write", pb.WriteContentResponse)
        try:
            with _content(expected, errors.AlreadyExists):
                answer = await talk.ask(pb.WriteContentRequest(action=pb.STAT, ref=ref, total=total, expected=expected))
        except errors.AlreadyExists:
            talk.cancel()
            await self.keep(expected)
            raise
        except errors.Unavailable as error:
            talk.cancel()
            raise errors.Unavailable(_LOCKED.sub(f"ref {ref} locked", error.detail)) from None
        except BaseException:
            talk.cancel()
            raise
        started, updated = codec.time_of(answer.started_at), codec.time_of(answer.updated_at)
        return ProxyWriter(self, talk, content.Status(ref, answer.offset, total, expected, started, updated), answer.digest)

    async def status(self, ref: str) -> content.Status:
        """Return how far an ingest is."""
        return _status((await self._far.unary(f"{SERVICE}Status", pb.StatusRequest(ref=ref), pb.StatusResponse)).status)

    async def statuses(self) -> Sequence[content.Status]:
        """Return all ingests."""
        answer = await self._far.unary(f"{SERVICE}ListStatuses", pb.ListStatusesRequest(), pb.ListStatusesResponse)
        return [_status(item) for item in answer.statuses]

    async def abort(self, ref: str) -> None:
        """Throw an ingest away."""
        await self._far.unary(f"{SERVICE}Abort", pb.AbortRequest(ref=ref), empty_pb2.Empty)

    async def keep(self, digest: str) -> None:
        """Protect from the other side's collector a blob that it had from somebody else; a mechanism without labels has none."""
        mask = field_mask_pb2.FieldMask(paths=[f"labels.{key}" for key in GC_ROOT])
        request = pb.UpdateRequest(info=pb.Info(digest=digest, labels=GC_ROOT), update_mask=mask)
        with contextlib.suppress(errors.Unimplemented, errors.FailedPrecondition):
            await self._far.unary(f"{SERVICE}Update", request, pb.UpdateResponse)


class ProxyWriter:
    """One Write call, for as long as it is open."""

    def __init__(self, blobs: ProxyBlobs, talk: remote.Talk, status: content.Status, digest: str) -> None:
        self._blobs, self._talk, self._status, self._digest = blobs, talk, status, digest
        self._closed = False

    def status(self) -> content.Status:
        """Return what has been written."""
        return self._status

    async def write(self, data: bytes | memoryview) -> int:
        """Append; returns the new offset."""
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            part = bytes(view[start : start + CHUNK])
            await self._say(pb.WriteContentRequest(action=pb.WRITE, offset=self._status.offset, data=part))
        return self._status.offset

    async def truncate(self, size: int) -> None:
        """Begin anew. Raises Unimplemented for any size but 0."""
        if size:
            raise errors.Unimplemented(f"cutting an ingest of a proxy to {size} bytes")
        if self._status.offset:  # a write without an offset means this, on the wire
            await self._say(pb.WriteContentRequest(action=pb.WRITE))

    async def digest(self) -> str:
        """Return the digest of what has been written."""
        return self._digest

    async def commit(self, size: int, expected: str, labels: Mapping[str, str]) -> str:
        """Make it a blob. Raises as `core.content.Writer.commit`, in the words of the other side."""
        labels, offset = {**GC_ROOT, **labels}, self._status.offset
        if size and size != offset:
            await self.close()
            raise errors.FailedPrecondition(f"unexpected commit size {offset}, expected {size}")
        request = pb.WriteContentRequest(action=pb.COMMIT, total=size, expected=expected, offset=offset, labels=labels)
        try:
            with _content(expected or self._digest, errors.AlreadyExists):
                await self._say(request)
        except errors.AlreadyExists:
            await self._blobs.keep(expected or self._digest)
            raise
        await self.close()
        return self._digest

    async def close(self) -> None:
        """End the call; the other side has let go of the ingest when this returns."""
        self._closed = True
        try:
            with contextlib.suppress(errors.PydockError, TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self._talk.end()
        finally:
            self._talk.cancel()

    async def _say(self, request: pb.WriteContentRequest) -> None:
        if self._closed:
            raise errors.FailedPrecondition(f"the writer of {self._status.ref} is closed")
        answer = await self._talk.ask(request)
        self._digest = answer.digest or self._digest
        self._status = dataclasses.replace(self._status, offset=answer.offset, updated_at=clock.now())


def _content(digest: str, *kinds: type[errors.PydockError]) -> contextlib.AbstractContextManager[None]:
    return remote.worded(f"content {digest}", *kinds)


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def _info(item: pb.Info) -> content.Info:
    return codec.decode(content.Info, item)


def _status(item: pb.Status) -> content.Status:
    return codec.decode(content.Status, item)
