"""Small files that survive a power cut: write a temporary, fsync it, rename it over, fsync the directory.

Invariants: a reader sees the old bytes or the new, never a mixture; an error leaves the old bytes and no temporary.
A failed fsync is never retried: after it the kernel has marked the pages clean, so a second one would lie
(Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
All functions block: call them through ``offload.run`` from the event loop.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

TEMPORARY = ".tmp-"


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the file at ``path`` by ``data`` with exactly ``mode``, durably.

    Raises OSError, in which case the file is what it was.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}")
    try:
        write_new(temporary, data, mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Create ``path`` with ``data`` and fsync it, but not its directory. Raises FileExistsError where it is."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(fd, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def rename(source: Path, target: Path) -> None:
    """Move ``source`` (already synced) over ``target`` and make the move durable in both directories."""
    source.replace(target)
    sync_dir(target.parent)
    if source.parent != target.parent:
        sync_dir(source.parent)


def sync_dir(path: Path) -> None:
    """Make the entries of the directory at ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read(path: Path, limit: int) -> bytes:
    """Return the whole file at ``path``. Raises ValueError beyond ``limit`` bytes, so that a damaged state cannot exhaust memory."""
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is larger than {limit} bytes")
    return data
