"""Blobs in a directory, for `content.Blobs`.

On disk, below the root (all directories 0700)::

    blobs/<algorithm>/<hex>      a blob, 0444; it is there wholly or not at all
    ingest/<sha256 of the ref>   the bytes of an ingest so far; its ref, total, expected digest and start are JSON in an extended attribute
    ingest/<sha256>.json         the same JSON, where the file system keeps no such attribute or the ref is too long for one

Vocabulary: an *ingest* has a *good offset*, up to which its bytes are written and hashed; a failed write cuts the file back to it.
Invariants: the ingests in memory are those on disk; one writer per ref; a blob's bytes are synced before it gets its name and the
directory is synced before commit returns; what could not be synced is dropped, never synced again (a second fsync would lie).
A blob being written may be read while it grows: `LocalWriter.fd` and `LocalWriter.offset` say from where and how far.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

from pydock.base import clock, digest, durable, errors, groupsync, offload
from pydock.base.failpoint import failpoint
from pydock.core import content, plugin
from pydock_plugins.content import files

# A write this small costs less than the hop to a thread and back; larger ones would hold up the event loop.
INLINE = 32 << 10
# Data is handed to the disk while it comes in, so that the sync of a commit finds little left to do.
WRITEBACK = 8 << 20

Hash = digest.Hasher

_FULL = (errno.ENOSPC, errno.EDQUOT)


class LocalReader:
    """An open blob; what the page cache holds is read at once, the rest in a thread."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._size = fd, size

    @property
    def size(self) -> int:
        """Return the blob's size in bytes."""
        return self._size

    @property
    def fd(self) -> int:
        """Return the read-only descriptor, valid until `close`."""
        return self._fd

    async def read_at(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes at ``offset``; fewer only at the end."""
        length = max(0, min(length, self._size - offset))
        if not length or self._fd < 0:
            return b""
        buffer = bytearray(length)
        try:
            if length <= files.CHUNK and os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT) == length:
                return bytes(buffer)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
                raise
        return await offload.run(files.read_fully, self._fd, offset, length)

    async def close(self) -> None:
        """Give the descriptor back; twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LocalWriter:
    """The holder of one ingest. Not for concurrent use; every call fails with FailedPrecondition once closed or committed.

    ``fd`` is open for reading too and ``offset`` is the good offset, which only grows but for `truncate`: a pipeline may pread
    ``[0, offset)`` from another thread while more is written, and keeps the bytes by a dup of ``fd`` even after close.
    """

    def __init__(self, blobs: LocalBlobs, ingest: files.Ingest, fd: int) -> None:
        self._blobs, self._ingest, self._fd = blobs, ingest, fd
        self._flushed = ingest.offset

    @property
    def fd(self) -> int:
        """Return the descriptor, valid until `close` or `commit`."""
        return self._fd

    @property
    def offset(self) -> int:
        """Return the good offset."""
        return self._ingest.offset

    def status(self) -> content.Status:
        """Return ref, offset, total, expected digest and times."""
        return self._ingest.status()

    async def write(self, data: bytes | memoryview) -> int:
        """Append ``data``; returns the new offset. Raises ResourceExhausted on a full disk, NotFound after an abort."""
        if len(data) <= INLINE:
            return self.append(data)
        return await offload.run(self.append, data)

    def append(self, data: bytes | memoryview) -> int:
        """`write` for threads: blocks, and releases the GIL for all but small data."""
        state = self._check()
        ingest = self._ingest
        try:
            files.write_fully(self._fd, data, ingest.offset)
        except OSError as error:
            os.ftruncate(self._fd, ingest.offset)
            raise _typed(error, f"write of {ingest.ref}") from error
        state.update(data)
        ingest.offset += len(data)
        ingest.updated_at = clock.now()
        if ingest.offset - self._flushed >= WRITEBACK:
            files.start_writeback(self._fd, self._flushed, ingest.offset - self._flushed)
            self._flushed = ingest.offset
        return ingest.offset

    async def truncate(self, size: int) -> None:
        """Cut to ``size`` bytes. Raises InvalidArgument beyond the offset."""
        self._check()
        ingest = self._ingest
        if not 0 <= size <= ingest.offset:
            raise errors.InvalidArgument(f"cannot truncate {ingest.ref} to {size} bytes, it has {ingest.offset}")
        os.ftruncate(self._fd, size)
        ingest.offset, ingest.updated_at = size, clock.now()
        self._flushed = min(self._flushed, size)
        ingest.state = await offload.run(files.hash_of, self._fd, size, ingest.algorithm) if size else digest.hasher(ingest.algorithm)

    async def digest(self) -> str:
        """Return the digest of the bytes so far; sha256 unless the ingest expects another algorithm."""
        return f"{self._ingest.algorithm}:{self._check().hexdigest()}"

    async def commit(self, size: int, expected: str, labels: Mapping[str, str]) -> str:
        """Make it a blob and return its digest; whatever the outcome, the writer is closed and the ref unlocked.

        Labels are the business of `content.Store`. Raises FailedPrecondition (size or digest; the ingest stays), AlreadyExists (it goes).
        """
        try:
            self._check()
            actual = await self._verified(size, expected)
            await self._blobs.publish(self._ingest, self._fd, actual)
        finally:
            await self.close()
        return actual

    async def close(self) -> None:
        """Unlock the ref; the ingest stays to be resumed. Twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            self._blobs.unlock(self._ingest)

    def _check(self) -> Hash:
        if self._fd < 0:
            raise errors.FailedPrecondition(f"writer of {self._ingest.ref} is closed")
        if self._ingest.gone or self._ingest.state is None:
            raise errors.NotFound(f'ingest ref "{self._ingest.ref}"')
        return self._ingest.state

    async def _verified(self, size: int, expected: str) -> str:
        ingest = self._ingest
        if size and size != ingest.offset:
            raise errors.FailedPrecondition(f"unexpected commit size {ingest.offset}, expected {size}")
        algorithm = digest.parse(expected)[0] if expected else ingest.algorithm
        state = self._check() if algorithm == ingest.algorithm else await offload.run(files.hash_of, self._fd, ingest.offset, algorithm)
        actual = f"{algorithm}:{state.hexdigest()}"
        if expected and actual != expected:
            raise errors.FailedPrecondition(f"unexpected commit digest {actual}, expected {expected}")
        return actual


class LocalBlobs:
    """The blobs and ingests below ``root``; make it with `open_blobs`."""

    def __init__(self, root: Path) -> None:
        self._blobs, self._ingest = root / "blobs", root / "ingest"
        self._ingests: dict[str, files.Ingest] = {}
        self._syncs = {name: groupsync.Shared(functools.partial(durable.sync_dir, self._blobs / name)) for name in digest.SIZES}

    def load(self) -> None:
        """Make the directories and learn the ingests of earlier runs, blocking."""
        for directory in (self._blobs, self._ingest, *(self._blobs / name for name in digest.SIZES)):
            directory.mkdir(mode=0o700, exist_ok=True)
        for path in self._ingest.iterdir():
            if path.suffix == files.SIDECAR:
                continue
            ingest = files.load(path)
            if ingest is None:
                files.drop(path)
            else:
                self._ingests[ingest.ref] = ingest
        for path in self._ingest.glob(f"*{files.SIDECAR}"):
            if not path.with_suffix("").exists():
                path.unlink()

    async def info(self, digest: str) -> content.Info:
        """Return size and times. Raises NotFound, InvalidArgument."""
        with _missing(digest):
            return files.info(digest, self._path(digest).stat())

    async def open(self, digest: str) -> LocalReader:
        """Open for reading. Raises NotFound, InvalidArgument."""
        with _missing(digest):
            fd = os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC)
        return LocalReader(fd, os.fstat(fd).st_size)

    async def walk(self) -> AsyncIterator[content.Info]:
        """Yield every blob by digest; those that come or go meanwhile may be left out."""
        for name in digest.SIZES:
            for info in await offload.run(files.blobs, self._blobs / name):
                yield info

    async def delete(self, digest: str) -> None:
        """Remove the blob; open readers keep its bytes. Raises NotFound, InvalidArgument."""
        with _missing(digest):
            await offload.run(self._path(digest).unlink)

    async def writer(self, ref: str, total: int = 0, expected: str = "") -> LocalWriter:
        """Open or resume ``ref``. Raises Unavailable (locked), AlreadyExists (``expected`` is a blob), InvalidArgument."""
        if not ref:
            raise errors.InvalidArgument("ref must not be empty")
        if expected and self._path(expected).exists():
            raise errors.AlreadyExists(f"content {expected}")
        ingest = self._ingests.get(ref)
        if ingest is None or not (ingest.locked_at or ingest.path.exists()):
            return self._begin(ref, total, expected)
        return await self._resume(ingest, total, expected)

    async def status(self, ref: str) -> content.Status:
        """Return the state of one ingest. Raises NotFound."""
        return self._find(ref).status()

    async def statuses(self) -> Sequence[content.Status]:
        """Return the state of all ingests by ref."""
        return [self._ingests[ref].status() for ref in sorted(self._ingests)]

    async def abort(self, ref: str) -> None:
        """Forget the ingest and its bytes; its writer, if any, fails from now on. Raises NotFound."""
        ingest = self._find(ref)
        ingest.gone = True
        await offload.run(files.drop, ingest.path)
        if not ingest.locked_at:
            self._ingests.pop(ref, None)

    def unlock(self, ingest: files.Ingest) -> None:
        """Let another writer have the ref."""
        ingest.locked_at = 0
        if ingest.gone and self._ingests.get(ingest.ref) is ingest:
            del self._ingests[ingest.ref]

    async def publish(self, ingest: files.Ingest, fd: int, name: str) -> None:
        """Turn the locked ``ingest`` open as ``fd`` into the blob ``name``, durably. Raises AlreadyExists; the ingest is then gone."""
        path = self._path(name)
        ingest.gone = True
        if path.exists():
            await offload.run(files.drop, ingest.path)
            raise errors.AlreadyExists(f"content {name}")
        try:
            await offload.run(files.seal, ingest.path, fd, path)
            await self._syncs[path.parent.name].run()
            failpoint("content.renamed")
        except OSError as error:
            path.unlink(missing_ok=True)  # its name is not known to be on disk
            raise _typed(error, f"commit of {name}") from error

    def _begin(self, ref: str, total: int, expected: str) -> LocalWriter:
        now = clock.now()
        algorithm = digest.parse(expected)[0] if expected else digest.DEFAULT
        path = self._ingest / hashlib.sha256(ref.encode("utf-8", "surrogateescape")).hexdigest()
        ingest = files.Ingest(ref, path, total, expected, now, now, state=digest.hasher(algorithm), algorithm=algorithm, locked_at=now)
        try:
            fd = files.create(ingest)
        except OSError as error:
            raise _typed(error, f"ingest of {ref}") from error
        self._ingests[ref] = ingest
        return LocalWriter(self, ingest, fd)

    async def _resume(self, ingest: files.Ingest, total: int, expected: str) -> LocalWriter:
        if ingest.locked_at:
            raise errors.Unavailable(_locked(ingest.ref, ingest.locked_at))
        if total and ingest.total and total != ingest.total:
            raise errors.InvalidArgument(f"provided total differs from status: {total} != {ingest.total}")
        ingest.total, ingest.expected = total or ingest.total, expected or ingest.expected
        algorithm = digest.parse(ingest.expected)[0] if ingest.expected else ingest.algorithm
        if algorithm != ingest.algorithm:
            ingest.algorithm, ingest.state = algorithm, None
        ingest.locked_at = clock.now()
        writer = None
        try:
            writer = LocalWriter(self, ingest, files.reopen(ingest))
            if ingest.state is None:
                ingest.state = await offload.run(files.hash_of, writer.fd, ingest.offset, algorithm)
        except BaseException:
            if writer is not None:
                await writer.close()
            self.unlock(ingest)
            raise
        return writer

    def _find(self, ref: str) -> files.Ingest:
        ingest = self._ingests.get(ref)
        if ingest is None or ingest.gone:
            raise errors.NotFound(f'ingest ref "{ref}"')
        return ingest

    def _path(self, name: str) -> Path:
        algorithm, encoded = digest.parse(name)
        return self._blobs / algorithm / encoded


def open_blobs(root: Path) -> LocalBlobs:
    """Return the blobs below ``root``, which is made where missing; blocking."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    blobs = LocalBlobs(root)
    blobs.load()
    return blobs


def _typed(error: OSError, what: str) -> errors.PydockError:
    text = f"{what}: {os.strerror(error.errno).lower()}" if error.errno else f"{what}: {error}"
    return errors.ResourceExhausted(text) if error.errno in _FULL else errors.Internal(text)


def _locked(ref: str, since: int) -> str:
    seconds = f"{(clock.now() - since) / clock.SECOND:.9f}".rstrip("0").rstrip(".")
    return f"ref {ref} locked for {seconds}s (since {clock.format_rfc3339(since)})"


@contextlib.contextmanager
def _missing(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise errors.NotFound(f"content {name}") from None


@plugin.plugin("io.containerd.content.v1", "content")
async def local(root: plugin.PluginRoot) -> AsyncIterator[content.Blobs]:
    """Blobs in a directory of this daemon."""
    yield await offload.run(open_blobs, root)
