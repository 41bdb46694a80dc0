"""Takes a root and a state directory for this daemon alone, with modes no looser than they should be.

Vocabulary: a *claim* is an flock on ``pydock.lock`` in each of the two, held until the process ends, however it ends; the file holds
the owner's pid for the message a second daemon prints. Invariant: nothing below the directories is changed before both are claimed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from pydock.base import errors

ROOT_MODE = 0o700
STATE_MODE = 0o711
LOCK = "pydock.lock"


class Claimed(errors.FailedPrecondition):
    """Another daemon has the directory."""

    def __str__(self) -> str:
        return self.detail


class Unusable(errors.FailedPrecondition):
    """A directory cannot be made or locked."""

    def __str__(self) -> str:
        return self.detail


def claim(root: Path, state: Path) -> list[int]:
    """Make both directories, lock them and tighten their modes; return the descriptors to keep open.

    Raises Claimed where another daemon holds one of them, Unusable where one is no directory of ours or cannot be made.
    """
    held: list[int] = []
    try:
        for path in dict.fromkeys((root, state)):
            _make(path)
            held.append(_lock(path))
        _tighten(state, STATE_MODE)
        _tighten(root, ROOT_MODE)
    except OSError as error:
        release(held)
        raise Unusable(f"{error.filename or root}: {error.strerror}") from error
    except errors.PydockError:
        release(held)
        raise
    return held


def release(held: list[int]) -> None:
    """Give the claim back."""
    for fd in held:
        os.close(fd)


def _make(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise Unusable(f"{path} belongs to user {found.st_uid}, who could change what is in it")


def _lock(path: Path) -> int:
    fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        raise Claimed(f"another pydockd (pid {holder or 'unknown'}) holds {path}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _tighten(path: Path, mode: int) -> None:
    """Take away every permission that ``mode`` does not give, and give those it does."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)
