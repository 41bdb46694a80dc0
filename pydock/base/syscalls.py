"""Linux system calls that Python 3.11 has no name for, through one ctypes door.

Vocabulary: a *call number* is looked up by machine (x86-64, or the table every newer architecture shares); ``call`` raises ``OSError`` with
errno, so a caller treats these like any ``os`` function. Sources: syscalls(2) and the man page each function names.
Invariants: no function here resolves a path on its own; EINTR and EAGAIN of openat2 are retried here and nowhere else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import Final

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWNET: Final = 0x4000_0000

MS_RDONLY: Final = 1
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOUNT_ATTR_RDONLY: Final = 0x01
MOUNT_ATTR_NOSUID: Final = 0x02
MOUNT_ATTR_NODEV: Final = 0x04
MOUNT_ATTR_NOEXEC: Final = 0x08
MOUNT_ATTR_NOSYMFOLLOW: Final = 0x0020_0000

# Calls added since 2019 have one number on every architecture; the older ones do not.
_COMMON: Final = {
    "open_tree": 428, "move_mount": 429, "openat2": 437, "mount_setattr": 442, "landlock_create_ruleset": 444,
    "landlock_add_rule": 445, "landlock_restrict_self": 446, "fchmodat2": 452, "setxattrat": 463, "getxattrat": 464, "listxattrat": 465,
}  # fmt: skip
_X86_64: Final = {"pivot_root": 155, "seccomp": 317, "capset": 126}
_GENERIC: Final = {"pivot_root": 41, "seccomp": 277, "capset": 91}
NUMBERS: Final[dict[str, int]] = _COMMON | (_X86_64 if platform.machine() == "x86_64" else _GENERIC)

_PLAIN_RETRIES: Final = 64

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (("set", ctypes.c_uint64), ("clear", ctypes.c_uint64), ("propagation", ctypes.c_uint64), ("userns", ctypes.c_uint64))


class _XattrArgs(ctypes.Structure):
    _fields_ = (("value", ctypes.c_uint64), ("size", ctypes.c_uint32), ("flags", ctypes.c_uint32))


def _fail(what: str | bytes | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what) if what is not None else OSError(number, os.strerror(number))


def call(name: str, *args: object, what: str | bytes | None = None) -> int:
    """Make the named call and return its result; ints are passed as C long, bytes as pointers. OSError on failure."""
    result = _syscall(ctypes.c_long(NUMBERS[name]), *(ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args))
    if result < 0:
        raise _fail(what)
    return int(result)


def openat2(dirfd: int, path: bytes, flags: int, mode: int = 0, *, resolve: int = 0) -> int:
    """Open ``path`` under ``dirfd`` with openat2(2); the descriptor is close-on-exec.

    The kernel answers EAGAIN when a rename raced with a ``..`` in a scoped look-up; that is retried a bounded number of times.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_PLAIN_RETRIES):
        try:
            return call("openat2", dirfd, path, ctypes.byref(how), ctypes.sizeof(how), what=path)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def fchmodat2(dirfd: int, name: bytes, mode: int) -> None:
    """Set the mode of ``name`` itself, never of what a symbolic link names (EOPNOTSUPP on a link). Linux 6.6, else ENOSYS."""
    call("fchmodat2", dirfd, name, mode, AT_SYMLINK_NOFOLLOW, what=name)


def setxattrat(dirfd: int, name: bytes, key: bytes, value: bytes) -> None:
    """Set one extended attribute of ``name`` itself. Linux 6.13, else ENOSYS."""
    buffer = ctypes.create_string_buffer(value, len(value))
    args = _XattrArgs(ctypes.addressof(buffer), len(value), 0)
    call("setxattrat", dirfd, name, AT_SYMLINK_NOFOLLOW, key, ctypes.byref(args), ctypes.sizeof(args), what=name)


def getxattrat(dirfd: int, name: bytes, key: bytes) -> bytes:
    """One extended attribute of ``name`` itself, at most 64 KiB (the kernel's own bound). Linux 6.13, else ENOSYS."""
    buffer = ctypes.create_string_buffer(65536)
    args = _XattrArgs(ctypes.addressof(buffer), 65536, 0)
    size = call("getxattrat", dirfd, name, AT_SYMLINK_NOFOLLOW, key, ctypes.byref(args), ctypes.sizeof(args), what=name)
    return buffer.raw[:size]


def listxattrat(dirfd: int, name: bytes) -> list[bytes]:
    """The keys of the extended attributes of ``name`` itself. Linux 6.13, else ENOSYS."""
    buffer = ctypes.create_string_buffer(65536)
    size = call("listxattrat", dirfd, name, AT_SYMLINK_NOFOLLOW, buffer, 65536, what=name)
    return [key for key in buffer.raw[:size].split(b"\0") if key]


def clone_tree(dirfd: int, *, attributes: int = 0, recursive: bool = False) -> int:
    """A detached copy of the mount at directory ``dirfd``, seen from there: its ``..`` leads nowhere. A descriptor.

    ``attributes`` are MOUNT_ATTR_* bits set on the copy; ``recursive`` takes the mounts below with it. open_tree(2) and mount_setattr(2),
    Linux 5.12; needs CAP_SYS_ADMIN.
    """
    deep = AT_RECURSIVE if recursive else 0
    fd = call("open_tree", dirfd, b"", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | deep)
    if attributes:
        attr = _MountAttr(attributes, 0, 0, 0)
        try:
            call("mount_setattr", fd, b"", AT_EMPTY_PATH | deep, ctypes.byref(attr), ctypes.sizeof(attr))
        except OSError:
            os.close(fd)
            raise
    return fd


def move_mount(tree: int, target: bytes) -> None:
    """Attach the detached mount ``tree`` at ``target``."""
    call("move_mount", tree, b"", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH, what=target)


def unshare(flags: int) -> None:
    """Give the calling process new namespaces (CLONE_NEW*). unshare(2)."""
    if _libc.unshare(ctypes.c_int(flags)) < 0:
        raise _fail()


def mount(source: bytes | None, target: bytes, fstype: bytes | None, flags: int, data: bytes | None = None) -> None:
    """mount(2)."""
    if _libc.mount(source, target, fstype, ctypes.c_ulong(flags), data) < 0:
        raise _fail(target)


def umount(target: bytes, flags: int = 0) -> None:
    """umount2(2)."""
    if _libc.umount2(target, ctypes.c_int(flags)) < 0:
        raise _fail(target)


def pivot_root(new: bytes, old: bytes) -> None:
    """pivot_root(2)."""
    call("pivot_root", new, old)


def prctl(option: int, *args: int) -> int:
    """prctl(2) with up to four number arguments; the missing ones are zero."""
    padded = [ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:4]]
    result = int(_libc.prctl(ctypes.c_int(option), *padded))
    if result < 0:
        raise _fail()
    return result


def syncfs(fd: int) -> None:
    """Write back the whole filesystem ``fd`` lies on. syncfs(2)."""
    if _libc.syncfs(ctypes.c_int(fd)) < 0:
        raise _fail()


def keep_capabilities(bits: int) -> None:
    """Drop every capability of the calling thread but those in ``bits``, for good: none stays inheritable. capset(2)."""

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    low, high = bits & 0xFFFF_FFFF, bits >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    call("capset", ctypes.byref(Header(0x2008_0522, 0)), ctypes.byref(data))


def set_name(name: bytes) -> None:
    """Give the calling thread a name of at most 15 bytes, as ``ps`` shows it."""
    if _libc.prctl(ctypes.c_int(15), ctypes.c_char_p(name), *[ctypes.c_ulong(0)] * 3) < 0:
        raise _fail()
