"""The Linux calls the shim needs and Python 3.11 has no name for: mounts, namespaces, prctl, inotify, and what /proc tells of a process.

Names are the kernel's.  Every wrapper raises ``OSError`` with errno and the path concerned.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_REMOUNT, MS_MANDLOCK, MS_DIRSYNC = 1, 2, 4, 8, 16, 32, 64, 128
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC = 1024, 2048, 4096, 16384
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_RELATIME, MS_STRICTATIME = 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 24
MNT_DETACH = 2
PR_SET_NAME, PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG = 15, 36, 1
IN_NONBLOCK, IN_CLOEXEC = 0o4000, 0o2000000
IN_MODIFY, IN_OPEN, IN_ONESHOT = 0x2, 0x20, 0x80000000
CGROUP2_SUPER_MAGIC = 0x63677270

# From kernel 5.2 on these have one number on every architecture.
SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_move_mount = 430, 431, 432, 429
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
MOVE_MOUNT_F_EMPTY_PATH = 4
AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = ctypes.CDLL(None).prctl


def _call(name: str, path: str, *args: Any) -> int:
    result: int = getattr(_libc, name)(*args)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def _text(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    _call("mount", target, _text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(data))


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _call("umount2", target, _text(target), flags)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _call("unshare", "unshare", flags)


def prctl(option: int, value: int | bytes) -> None:
    """prctl(2) with one argument; its failures are of no interest.  Called in every shim, so by the shortest way."""
    _prctl(option, value, 0, 0, 0)


def inotify_init() -> int:
    """A non-blocking inotify descriptor."""
    return _call("inotify_init1", "inotify", IN_NONBLOCK | IN_CLOEXEC)


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """The watch descriptor for ``path``."""
    return _call("inotify_add_watch", path, fd, _text(path), ctypes.c_uint32(mask))


def inotify_rm_watch(fd: int, watch: int) -> None:
    """Give up a watch; one the kernel has dropped already is no error."""
    _libc.inotify_rm_watch(fd, watch)


def mount_fs(kind: str, settings: list[tuple[str, str | None]], target: str) -> None:
    """Mount with fsopen(2) and friends: settings one by one, so that none of the page-long limits of mount(2) holds."""
    fs = _call("syscall", kind, SYS_fsopen, _text(kind), 1)
    try:
        for key, value in settings:
            command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
            _call("syscall", f"{kind} {key}", SYS_fsconfig, fs, command, _text(key), _text(value), 0)
        _call("syscall", target, SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, None, None, 0)
        mounted = _call("syscall", target, SYS_fsmount, fs, 1, 0)
    finally:
        os.close(fs)
    try:
        _call("syscall", target, SYS_move_mount, mounted, b"", AT_FDCWD, _text(target), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(mounted)


def is_cgroup2(path: str) -> bool:
    """Whether a v2 hierarchy is mounted at ``path`` (its root, and only a v2 cgroup, has this file)."""
    return os.path.exists(path + "/cgroup.controllers")


def start_ticks(pid: int) -> int:
    """When process ``pid`` began, in clock ticks since boot; 0 where there is none.

    With the pid it names a process for good: a recycled pid has other ticks.
    """
    return parent_and_start(pid)[1]


def parent_and_start(pid: int) -> tuple[int, int]:
    """Fields 4 and 22 of /proc/PID/stat: the parent's pid and the start ticks; zeros where there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0, 0
    try:
        text = os.read(fd, 1024)
    except OSError:
        return 0, 0
    finally:
        os.close(fd)
    fields = text[text.rfind(b")") + 2 :].split()
    return (int(fields[1]), int(fields[19])) if len(fields) > 19 else (0, 0)


def read_text(path: str, limit: int = 65536) -> str:
    """The first ``limit`` bytes of a small file; unlike ``open`` it costs four calls and no buffers."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while limit > 0:
            data = os.read(fd, min(limit, 16384))
            if not data:
                break
            parts.append(data)
            limit -= len(data)
        return b"".join(parts).decode("utf-8", "replace")
    finally:
        os.close(fd)


def write_file(path: str, data: bytes, flags: int = os.O_CREAT | os.O_TRUNC, mode: int = 0o600) -> None:
    """Write ``data`` whole to ``path``."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, mode)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def replace_file(path: str, data: bytes, sync: bool = False) -> None:
    """Put ``data`` at ``path`` in one step: whoever looks sees the old file or the new one, whole."""
    scratch = path + ".tmp"
    fd = os.open(scratch, os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        rest = data
        while rest:
            rest = rest[os.write(fd, rest) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(scratch, path)
