"""Every access to a path that somebody untrusted wrote: by directory descriptor, one resolution rule named per call.

Vocabulary: a *root* is a descriptor of the directory a path is meant in; *in root* means the image's own view (an absolute or climbing link
lands inside the root, like chroot); *beneath* means that leaving the root is an error; a *name* is one path component as bytes.
Invariants: magic links (/proc/*/fd) are never followed; functions taking a name act on the directory entry itself, never on what a symbolic
link there points to; all paths are bytes, whatever their encoding. Sources: openat2(2), path_resolution(7), xattr(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from pydock.base import errors, syscalls

PATH_MAX: Final = 4096
NAME_MAX: Final = 255
DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_IN_ROOT: Final = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_BENEATH: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS
_NO_LINKS: Final = _BENEATH | syscalls.RESOLVE_NO_SYMLINKS


class XattrDoor:
    """How attributes of a name are reached: ``at`` calls (Linux 6.13), else /proc/self/fd, else the working directory.

    ``by_cwd`` may be switched on only by a process that owns its working directory and has no /proc (the unpack helper).
    """

    at_calls = True
    by_cwd = False


def clean(path: bytes) -> tuple[bytes, ...]:
    """The components of ``path`` with ``.``, ``..`` and doubled slashes taken out by their letters; climbing stops at the root."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part and part != b".":
            parts.append(part)
    return tuple(parts)


def open_root(path: str | bytes | os.PathLike[str]) -> int:
    """A descriptor of the trusted directory ``path`` to be used as a root."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def open_in_root(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open ``path`` as a process with ``root`` as its / would; OSError as open(2)."""
    return syscalls.openat2(root, path or b".", flags, mode, resolve=_IN_ROOT)


def open_beneath(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open ``path`` under ``root``; InvalidArgument when it is absolute, climbs out or follows a link out."""
    try:
        return syscalls.openat2(root, path or b".", flags, mode, resolve=_BENEATH)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise errors.InvalidArgument(f"path {show(path)} leaves its root") from error
        raise


def open_no_links(root: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open ``path`` under ``root`` with no symbolic link anywhere on the way (ELOOP) and no climbing out (EXDEV)."""
    return syscalls.openat2(root, path or b".", flags, mode, resolve=_NO_LINKS)


def lstat(dirfd: int, name: bytes) -> os.stat_result:
    """The status of the entry ``name`` itself."""
    return os.stat(name, dir_fd=dirfd, follow_symlinks=False)


def chmod(dirfd: int, name: bytes, mode: int) -> None:
    """Set the mode of ``name``; nothing happens when it is a symbolic link (links have no mode)."""
    try:
        syscalls.fchmodat2(dirfd, name, mode)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return
        if error.errno != errno.ENOSYS:
            raise
        if not stat.S_ISLNK(lstat(dirfd, name).st_mode):
            # Before Linux 6.6 the check and the change are two steps; the callers own the tree, and the unpack helper is shut in it.
            os.chmod(name, mode, dir_fd=dirfd)


def _fallback(dirfd: int, name: bytes) -> bytes:
    if XattrDoor.by_cwd:
        os.fchdir(dirfd)
        return name
    return b"/proc/self/fd/%d/%s" % (dirfd, name)


def set_xattr(dirfd: int, name: bytes, key: bytes, value: bytes) -> None:
    """Set attribute ``key`` of the entry ``name`` itself; OSError as setxattr(2)."""
    if XattrDoor.at_calls:
        try:
            return syscalls.setxattrat(dirfd, name, key, value)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            XattrDoor.at_calls = False
    return os.setxattr(_fallback(dirfd, name), key, value, follow_symlinks=False)


def get_xattr(dirfd: int, name: bytes, key: bytes) -> bytes | None:
    """Attribute ``key`` of the entry ``name`` itself, None when it has none or the filesystem knows no attributes."""
    try:
        if XattrDoor.at_calls:
            try:
                return syscalls.getxattrat(dirfd, name, key)
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                XattrDoor.at_calls = False
        return os.getxattr(_fallback(dirfd, name), key, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def list_xattrs(dirfd: int, name: bytes) -> list[bytes]:
    """The attribute keys of the entry ``name`` itself; empty where the filesystem knows no attributes."""
    try:
        if XattrDoor.at_calls:
            try:
                return syscalls.listxattrat(dirfd, name)
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                XattrDoor.at_calls = False
        return [os.fsencode(key) for key in os.listxattr(_fallback(dirfd, name), follow_symlinks=False)]
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise


def names(dirfd: int, name: bytes) -> list[bytes]:
    """The names inside the directory ``name``, unsorted; NotADirectoryError for anything else, a link to one included."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    try:
        return [os.fsencode(entry) for entry in os.listdir(fd)]
    finally:
        os.close(fd)


def remove(dirfd: int, name: bytes) -> None:
    """Remove the entry ``name``, a directory with all that is in it; FileNotFoundError when it is not there.

    One descriptor is open at a time, however deep the tree: the way up is ``..``, accepted only when it is the directory we came from.
    """
    try:
        os.unlink(name, dir_fd=dirfd)
    except IsADirectoryError:
        _remove_directory(dirfd, name)


def _remove_directory(dirfd: int, name: bytes) -> None:
    with _Cursor(dirfd, name) as cursor:
        pending = [cursor.empty_of_files()]
        while pending:
            if pending[-1]:
                cursor.down(pending[-1].pop())
                pending.append(cursor.empty_of_files())
                continue
            pending.pop()
            cursor.up_and_remove()


class _Cursor:
    """A position in a tree that is being removed: one open descriptor and the identities of the directories above it."""

    def __init__(self, dirfd: int, name: bytes) -> None:
        self.top, self.name = dirfd, name
        self.fd = -1
        self.above: list[tuple[bytes, int, int]] = []

    def __enter__(self) -> _Cursor:
        self.fd = self._open(self.top, self.name)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    @staticmethod
    def _open(dirfd: int, name: bytes) -> int:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)

    def empty_of_files(self) -> list[bytes]:
        """Unlink all but directories here and return the names of those."""
        left: list[bytes] = []
        for entry in os.listdir(self.fd):
            name = os.fsencode(entry)
            try:
                os.unlink(name, dir_fd=self.fd)
            except IsADirectoryError:
                left.append(name)
        return left

    def down(self, name: bytes) -> None:
        """Enter the directory ``name``."""
        status = os.fstat(self.fd)
        fd = self._open(self.fd, name)
        os.close(self.fd)
        self.fd = fd
        self.above.append((name, status.st_dev, status.st_ino))

    def up_and_remove(self) -> None:
        """Leave the (now empty) directory and remove it."""
        if not self.above:
            os.close(self.fd)
            self.fd = -1
            os.rmdir(self.name, dir_fd=self.top)
            return
        name, dev, ino = self.above.pop()
        fd = os.open(b"..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        os.close(self.fd)
        self.fd = fd
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (dev, ino):
            raise OSError(errno.ESTALE, "a directory was moved while it was being removed", name)
        os.rmdir(name, dir_fd=fd)


@contextlib.contextmanager
def opened(fd: int) -> Iterator[int]:
    """Close ``fd`` when the block ends."""
    try:
        yield fd
    finally:
        os.close(fd)


def show(path: bytes) -> str:
    """``path`` for an error message: quoted, unprintable bytes escaped, at most about 200 characters."""
    shown = path.decode("utf-8", "backslashreplace")
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)
    return '"' + (shown if len(shown) <= 200 else shown[:90] + "..." + shown[-90:]) + '"'
