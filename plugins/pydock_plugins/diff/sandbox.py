"""Shut the calling process in one directory with no privilege but to write files there, for good.

Vocabulary: the *tree* is a detached mount of the target directory (``syscalls.clone_tree``), made by the daemon; the process becomes
unable to name anything else.
Invariants: ``enter`` and ``drop`` run while the process has one thread, since capabilities and Landlock are a thread's own; ``seal``
comes last and reaches all threads; after it nothing is imported, executed or forked. Sources: pivot_root(2), seccomp(2), landlock(7),
capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from typing import Final

from pydock.base import safefs, syscalls
from pydock_plugins.diff import confine

_NAMESPACES: Final = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1
_MEMORY: Final = 4 << 30
_CPU_SECONDS: Final = 4 * 3600
_FILES: Final = 4096

TREE_ATTRIBUTES: Final = (
    syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC | syscalls.MOUNT_ATTR_NOSYMFOLLOW
)
LOWER_ATTRIBUTES: Final = TREE_ATTRIBUTES & ~syscalls.MOUNT_ATTR_NOSYMFOLLOW | syscalls.MOUNT_ATTR_RDONLY


def empty_root() -> None:
    """Leave all mounts of the host for an empty, private root with one directory ``/t``; once, in the zygote.

    A child's own copy of the mount table is then two mounts, not the thousand a host with containers has.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(b"tmpfs", b"/proc", b"tmpfs", 0, b"size=16k,mode=0700")
    os.mkdir("/proc/t")
    os.chdir("/proc")
    syscalls.pivot_root(b".", b".")
    syscalls.umount(b".", syscalls.MNT_DETACH)
    os.chdir("/")


def enter(tree: int, bytes_limit: int) -> int:
    """Take new namespaces and make ``tree`` the whole file system; returns a descriptor (O_PATH) of its root."""
    for kind, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CPU, _CPU_SECONDS)):
        _lower(kind, value)
    _lower(resource.RLIMIT_FSIZE, bytes_limit)
    _lower(resource.RLIMIT_NOFILE, _FILES)
    os.umask(0)
    syscalls.unshare(_NAMESPACES)
    syscalls.move_mount(tree, b"/t")
    os.fchdir(tree)
    syscalls.pivot_root(b".", b".")
    syscalls.umount(b".", syscalls.MNT_DETACH)
    os.chdir("/")
    safefs.XattrDoor.by_cwd = True
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def drop(root: int, capabilities: int) -> None:
    """Give up all but ``capabilities``, for this thread and those it starts; ``root`` is where hard links may still be made."""
    syscalls.prctl(_PR_SET_DUMPABLE, 0)
    syscalls.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _landlock(root)
    syscalls.keep_capabilities(capabilities)


def seal() -> None:
    """Allow every thread only the system calls of ``confine``; a machine without a table keeps the other walls."""
    if not confine.supported():
        return
    code = confine.program()
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code) // 8, ctypes.addressof(buffer))
    syscalls.call("seccomp", _SET_MODE_FILTER, _FLAG_TSYNC, ctypes.byref(program))


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _landlock(root: int) -> None:
    """Refuse execution, TCP, abstract sockets and signals, as far as this kernel's Landlock goes; none is fine."""
    try:
        abi = syscalls.call("landlock_create_ruleset", 0, 0, 1)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return
        raise
    if abi < 2:
        return  # it would refuse every hard link into another directory
    rules = _Ruleset(confine.landlock_rights(abi) | confine.REFER, 0b11 if abi >= 4 else 0, 0b11 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    fd = syscalls.call("landlock_create_ruleset", ctypes.byref(rules), size, 0)
    with safefs.opened(fd):
        beneath = _Beneath(confine.REFER, root)
        syscalls.call("landlock_add_rule", fd, 1, ctypes.byref(beneath), 0)
        syscalls.call("landlock_restrict_self", fd, 0)
