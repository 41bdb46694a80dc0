"""A faithful copy of a file tree: contents (shared blocks where the file system can), links, devices, owners, modes, times, attributes.

Vocabulary: *linked* maps an inode with several names to the first name its copy got, so that hard links stay links.
Invariants: no symbolic link is followed (all work is relative to directory descriptors); holes stay holes; the source is not written.
The source must not change meanwhile (it is a committed snapshot). Source of the order: chown clears setuid bits and capabilities, so mode
and attributes come after it; times come last, those of a directory after its entries (chown(2), utimensat(2)).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pydock.base import safefs

FICLONE = 0x40049409
CHUNK = 1 << 30

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EBADF, errno.EPERM)
_NODES = (stat.S_ISCHR, stat.S_ISBLK, stat.S_ISFIFO, stat.S_ISSOCK)


@dataclass
class _Copy:
    """One copy under way, below the directory ``top``."""

    top: int
    linked: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def directory(self, source: int, target: int, path: bytes) -> None:
        """Copy all entries of ``source``, then what is to be said of the directory itself."""
        for name in safefs.names(source, b"."):
            self.entry(source, target, name, path + name)
        _describe(source, target, os.fstat(source))

    def entry(self, source: int, target: int, name: bytes, path: bytes) -> None:
        """Copy the entry ``name`` of one directory into another; ``path`` is its place below ``top``."""
        status = safefs.lstat(source, name)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            with safefs.opened(os.open(name, _DIRECTORY, dir_fd=source)) as inner:
                with safefs.opened(os.open(name, _DIRECTORY, dir_fd=target)) as copy:
                    self.directory(inner, copy, path + b"/")
            return
        if status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            if inode in self.linked:
                os.link(self.linked[inode], name, src_dir_fd=self.top, dst_dir_fd=target, follow_symlinks=False)
                return
            self.linked[inode] = path
        if stat.S_ISREG(status.st_mode):
            _file(source, target, name, status)
        else:
            _special(source, target, name, status)


def copy_tree(source: Path, target: Path) -> None:
    """Copy what is in ``source`` into the existing directory ``target``, and its own mode, owner, times and attributes; blocks.

    Raises OSError, with part of it copied.
    """
    with safefs.opened(os.open(source, _DIRECTORY)) as from_fd, safefs.opened(os.open(target, _DIRECTORY)) as to_fd:
        _Copy(to_fd).directory(from_fd, to_fd, b"")


def _file(source: int, target: int, name: bytes, status: os.stat_result) -> None:
    with safefs.opened(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)) as old:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with safefs.opened(os.open(name, flags, 0o600, dir_fd=target)) as new:
            _contents(old, new, status.st_size)
            _describe(old, new, status)


def _contents(old: int, new: int, size: int) -> None:
    if not size:
        return
    try:
        fcntl.ioctl(new, FICLONE, old)
        return
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
    os.ftruncate(new, size)
    for start, end in _data(old, size):
        _range(old, new, start, end)


def _data(fd: int, size: int) -> list[tuple[int, int]]:
    """Return the parts of a file that are not holes (lseek(2), SEEK_DATA)."""
    parts, end = [], 0
    with contextlib.suppress(OSError):  # ENXIO: only a hole is left
        while end < size:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
            parts.append((start, end))
    return parts


def _range(old: int, new: int, start: int, end: int) -> None:
    while start < end:
        count = os.copy_file_range(old, new, min(end - start, CHUNK), start, start)
        if not count:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start += count


def _special(source: int, target: int, name: bytes, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif any(test(status.st_mode) for test in _NODES):
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    else:
        raise OSError(errno.EINVAL, f"unknown kind of file {stat.filemode(status.st_mode)}", name)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        safefs.chmod(target, name, stat.S_IMODE(status.st_mode))
    for key in safefs.list_xattrs(source, name):
        value = safefs.get_xattr(source, name, key)
        if value is not None:
            safefs.set_xattr(target, name, key, value)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _describe(old: int, new: int, status: os.stat_result) -> None:
    """Give the open ``new`` what ``old`` has besides contents."""
    os.fchown(new, status.st_uid, status.st_gid)
    os.fchmod(new, stat.S_IMODE(status.st_mode))
    for key in _attributes(old):
        os.setxattr(new, key, os.getxattr(old, key))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))


def _attributes(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
