"""The system calls on blob and ingest files; all block, none knows of locks or clients.

An ingest's description (ref, total, expected digest, start) is JSON in the extended attribute `ATTRIBUTE` of its file: one file to make
and to remove instead of two, which is what small blobs cost.  Where that is refused (no such attributes here, ref too long), it lies
in a sidecar file beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydock.base import digest, errors
from pydock.base.failpoint import failpoint
from pydock.core import content

ATTRIBUTE = "user.pydock.ingest"
SIDECAR = ".json"
CHUNK = 1 << 20

_NO_ATTRIBUTE = (errno.ENOTSUP, errno.E2BIG, errno.ENOSPC, errno.ERANGE, errno.EPERM)
_SYNC_FILE_RANGE_WRITE = 2


@dataclass(slots=True)
class Ingest:
    """One ingest; ``state`` is the hash of its first ``offset`` bytes, None when they must be read again to know it.

    ``locked_at`` is 0 while nobody writes; ``gone`` means its file is removed or has become a blob.
    """

    ref: str
    path: Path
    total: int
    expected: str
    started_at: int
    updated_at: int
    offset: int = 0
    state: digest.Hasher | None = None
    algorithm: str = digest.DEFAULT
    locked_at: int = 0
    gone: bool = False

    def status(self) -> content.Status:
        """Return it as clients see it."""
        return content.Status(self.ref, self.offset, self.total, self.expected, self.started_at, self.updated_at)


def create(ingest: Ingest) -> int:
    """Create the ingest's file with its description and return it open for reading and writing; on failure nothing is left."""
    fields = {"ref": ingest.ref, "total": ingest.total, "expected": ingest.expected, "started_at": ingest.started_at}
    text = json.dumps(fields, separators=(",", ":")).encode()
    fd = os.open(ingest.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            os.setxattr(fd, ATTRIBUTE, text)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTE:
                raise
            _sidecar(ingest.path).write_bytes(text)
    except OSError:
        os.close(fd)
        drop(ingest.path)
        raise
    return fd


def reopen(ingest: Ingest) -> int:
    """Open the ingest's file again, cut to its good offset."""
    fd = os.open(ingest.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    size = os.fstat(fd).st_size
    if size > ingest.offset:  # a write that failed half way and could not be cut back
        os.ftruncate(fd, ingest.offset)
    elif size < ingest.offset:
        ingest.offset, ingest.state = size, None
    return fd


def load(path: Path) -> Ingest | None:
    """Return the ingest at ``path``; None when nothing tells what it was."""
    try:
        try:
            text = os.getxattr(path, ATTRIBUTE)
        except OSError:
            text = _sidecar(path).read_bytes()
        fields = json.loads(text)
        expected = str(fields["expected"])
        algorithm = digest.parse(expected)[0] if expected else digest.DEFAULT
        status = path.stat()
        ingest = Ingest(str(fields["ref"]), path, int(fields["total"]), expected, int(fields["started_at"]), status.st_mtime_ns)
        ingest.offset, ingest.algorithm = status.st_size, algorithm
    except (OSError, ValueError, KeyError, TypeError, errors.InvalidArgument):
        return None
    return ingest


def seal(source: Path, fd: int, target: Path) -> None:
    """Sync ``fd``, open on ``source``, and give it its final name; on failure it is gone, since its pages may be lost."""
    try:
        os.fchmod(fd, 0o444)
        try:
            os.removexattr(fd, ATTRIBUTE)
        except OSError:  # it has a sidecar instead
            _sidecar(source).unlink(missing_ok=True)
        os.fdatasync(fd)
        failpoint("content.synced")
        source.rename(target)
    except OSError:
        drop(source)
        raise


def drop(path: Path) -> None:
    """Remove an ingest; one that is not there is fine."""
    path.unlink(missing_ok=True)
    _sidecar(path).unlink(missing_ok=True)


def blobs(directory: Path) -> list[content.Info]:
    """Return the blobs in ``directory``, which is named like their algorithm, by digest."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            name = f"{directory.name}:{entry.name}"
            if digest.is_valid(name):
                with contextlib.suppress(FileNotFoundError):
                    found.append(info(name, entry.stat(follow_symlinks=False)))
    return sorted(found, key=lambda each: each.digest)


def info(name: str, status: os.stat_result) -> content.Info:
    """Return a blob as clients see it."""
    return content.Info(name, status.st_size, status.st_mtime_ns, status.st_mtime_ns)


def hash_of(fd: int, size: int, algorithm: str) -> digest.Hasher:
    """Return the hash of the first ``size`` bytes of ``fd``. Raises OSError (EIO) when there are fewer."""
    state, offset, buffer = digest.hasher(algorithm), 0, bytearray(CHUNK)
    view = memoryview(buffer)
    while offset < size:
        count = os.preadv(fd, [view[: min(CHUNK, size - offset)]], offset)
        if not count:
            raise OSError(errno.EIO, "ingest is shorter than it was")
        state.update(view[:count])
        offset += count
    return state


def write_fully(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``. Raises OSError, with any part of it written."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, offset)
        rest, offset = rest[count:], offset + count


def read_fully(fd: int, offset: int, length: int) -> bytes:
    """Return ``length`` bytes at ``offset``, fewer only at the end of the file."""
    parts = []
    while length:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing, without waiting; a hint, so its failure means nothing."""
    _libc().sync_file_range(ctypes.c_int(fd), ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE))


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + SIDECAR)
