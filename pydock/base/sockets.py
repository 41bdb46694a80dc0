"""Unix sockets in the file system with exact owner and mode, at no time looser.

Vocabulary: a *private place* is a fresh 0700 directory beside the socket's path in which it is bound, given its owner and mode, and
from which it is renamed: the rename also replaces a stale socket atomically, so a client never finds none.
Invariants: a socket is refused in a directory that others may write to, since they could replace it; only a socket is ever replaced;
one that something still listens on is not. Whoever replaces sockets below a state directory holds that directory's lock.
Sources: unix(7) (``sun_path`` holds 108 bytes), rename(2).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from pydock.base import errors

LONGEST_PATH = 107
BACKLOG = 512


@dataclasses.dataclass(frozen=True)
class Access:
    """Who may connect: file mode and owner of the socket; -1 leaves the owner as the process makes it."""

    mode: int = 0o600
    uid: int = -1
    gid: int = -1


def bind(path: Path, access: Access = Access()) -> socket.socket:
    """Return a non-blocking stream socket listening at ``path``. Raises what ``private_place`` raises."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with private_place(path, access) as temporary:
            listener.bind(str(temporary))
            listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def private_place(path: Path, access: Access) -> Iterator[Path]:
    """Yield a path to bind at; when the body is done, the socket there gets ``access`` and moves to ``path``.

    Raises InvalidArgument for a path too long, FailedPrecondition where the directory is open to others or something else is there.
    """
    check(path)
    place = path.parent / f".{secrets.token_hex(3)}"
    place.mkdir(mode=0o700)
    temporary = place / "s"
    try:
        yield temporary
        os.chown(temporary, access.uid, access.gid)
        temporary.chmod(access.mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        place.rmdir()


def check(path: Path) -> None:
    """Raise unless a socket may be made at, or replace the one at, ``path``; a missing directory is made with mode 0711."""
    if not path.is_absolute():
        raise errors.InvalidArgument(f"socket path {str(path)!r} is not absolute")
    if len(os.fsencode(path.parent / ".123456/s")) > LONGEST_PATH or len(os.fsencode(path)) > LONGEST_PATH:
        raise errors.InvalidArgument(f"socket path {path} is too long: a unix socket's path has at most {LONGEST_PATH} bytes")
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    folder = path.parent.stat()
    if stat.S_IMODE(folder.st_mode) & 0o022 or folder.st_uid not in (0, os.geteuid()):
        raise errors.FailedPrecondition(f"{path.parent} may be written by others, who could replace the socket {path.name} in it")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise errors.FailedPrecondition(f"{path} is there and is not a socket")
        if is_served(path):
            raise errors.FailedPrecondition(f"something else listens on {path}")


def is_served(path: Path) -> bool:
    """Tell whether anybody listens at ``path``; a socket file whose owner is gone refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its backlog is full: very much served
            return True
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def remove(path: Path) -> None:
    """Remove the socket file at ``path`` if there is one."""
    path.unlink(missing_ok=True)
