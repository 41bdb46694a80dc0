"""Copy one entry, or a directory's metadata, from a layer below into an overlay upper directory.

Invariants: data before owner, owner before attributes and mode, time last; ``trusted.*`` attributes stay where they are, since they are
overlayfs's own; the source is only ever read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from pydock.base import safefs

_CHUNK: Final = 1 << 20


def directory(source: int, dirfd: int, name: bytes) -> os.stat_result:
    """Give directory ``name`` the metadata of directory ``source``, all but its times; returns the status of ``source``."""
    status = os.fstat(source)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=dirfd, follow_symlinks=False)
    for key in safefs.list_xattrs(source, b"."):
        if not key.startswith(b"trusted.") and (value := safefs.get_xattr(source, b".", key)) is not None:
            safefs.set_xattr(dirfd, name, key, value)
    safefs.chmod(dirfd, name, stat.S_IMODE(status.st_mode))
    return status


def entry(source: int, reopen: Callable[[int], int], dirfd: int, name: bytes) -> None:
    """Make ``name`` a copy of the entry ``source`` (O_PATH), which ``reopen(flags)`` opens for reading; EPERM for a directory."""
    status = os.fstat(source)
    if stat.S_ISREG(status.st_mode):
        with safefs.opened(reopen(os.O_RDONLY | os.O_NONBLOCK)) as data:
            _regular(data, status, dirfd, name)
        return
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EPERM, "hard link to a directory", name)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(b"", dir_fd=source), name, dir_fd=dirfd)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=dirfd)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=dirfd, follow_symlinks=False)
    safefs.chmod(dirfd, name, stat.S_IMODE(status.st_mode))
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=dirfd, follow_symlinks=False)


def _regular(source: int, status: os.stat_result, dirfd: int, name: bytes) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with safefs.opened(os.open(name, flags, 0o600, dir_fd=dirfd)) as fd:
        left = status.st_size
        while left and (sent := os.sendfile(fd, source, None, min(left, _CHUNK))):
            left -= sent
        os.fchown(fd, status.st_uid, status.st_gid)
        for key in os.listxattr(source):
            if not key.startswith("trusted."):
                os.setxattr(fd, key, os.getxattr(source, key))
        os.fchmod(fd, stat.S_IMODE(status.st_mode))
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
