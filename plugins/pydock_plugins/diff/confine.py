"""The tables of what a sealed unpack helper may still do: system calls, capabilities. Pure data and the filter built from it.

Vocabulary: a *filter* is a classic BPF program over ``struct seccomp_data`` (seccomp(2)); Landlock *rights* are those of landlock(7).
Invariants: an allow list: what is not named fails with EPERM, and what only an attacker would try ends the process; no new executable
memory can be mapped.
"""

from __future__ import annotations

import platform
import struct
from typing import Final

from pydock.base import syscalls

# (x86-64, every architecture that uses the generic table); None where the architecture has no such call.
_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "poll": (7, None), "lseek": (8, 62), "mprotect": (10, 226),
    "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "pread64": (17, 67), "pwrite64": (18, 68), "writev": (20, 66), "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233),
    "nanosleep": (35, 101), "getpid": (39, 172), "sendfile": (40, 71), "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211),
    "recvmsg": (47, 212), "exit": (60, 93), "fcntl": (72, 25), "ftruncate": (77, 46), "fchdir": (81, 50), "fchmod": (91, 52),
    "fchown": (93, 55), "umask": (95, 166), "sigaltstack": (131, 132), "gettid": (186, 178), "lsetxattr": (189, 6), "lgetxattr": (192, 9),
    "fsetxattr": (190, 7), "fgetxattr": (193, 10), "llistxattr": (195, 12), "flistxattr": (196, 13), "futex": (202, 98),
    "getdents64": (217, 61), "restart_syscall": (219, 128), "fadvise64": (221, 223), "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "tgkill": (234, 131), "openat": (257, 56), "mkdirat": (258, 34),
    "mknodat": (259, 33), "fchownat": (260, 54), "newfstatat": (262, 79), "unlinkat": (263, 35), "linkat": (265, 37),
    "symlinkat": (266, 36), "readlinkat": (267, 78), "fchmodat": (268, 53), "ppoll": (271, 73), "set_robust_list": (273, 99),
    "utimensat": (280, 88), "syncfs": (306, 267), "getrandom": (318, 278), "membarrier": (324, 283), "statx": (332, 291),
    "rseq": (334, 293), "openat2": (437, 437), "fchmodat2": (452, 452), "setxattrat": (463, 463), "getxattrat": (464, 464),
    "listxattrat": (465, 465),
}  # fmt: skip
_MMAP: Final = (9, 222)
_DEADLY: Final[dict[str, tuple[int | None, int | None]]] = {
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "clone": (56, 220), "clone3": (435, 435),
    "ptrace": (101, 117), "socket": (41, 198), "connect": (42, 203), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "setns": (308, 268), "unshare": (272, 97), "bpf": (321, 280), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104), "open_by_handle_at": (304, 265),
    "process_vm_writev": (311, 271), "perf_event_open": (298, 241), "keyctl": (250, 219), "io_uring_setup": (425, 425),
}  # fmt: skip

_ARCH: Final = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1), "riscv64": (0xC000_00F3, 1)}
_X32: Final = 0x4000_0000
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _EPERM = 0x7FFF_0000, 0x8000_0000, 0x0005_0001
_PROT_EXEC: Final = 4

CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SYS_ADMIN, CAP_MKNOD, CAP_SETFCAP = 0, 1, 3, 4, 21, 27, 31
FILE_CAPABILITIES: Final = sum(1 << cap for cap in (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_SETFCAP))
# Only for ``trusted.overlay.opaque``; the filter below takes away all else it would allow.
OVERLAY_CAPABILITIES: Final = FILE_CAPABILITIES | 1 << CAP_SYS_ADMIN

# Landlock: (ABI version, rights) refused everywhere: executing, making sockets, device ioctls. Not the ordinary writes: the mounts confine
# those already, and a Landlock check of each costs 13 us per archive entry, a quarter of all the work (measured, Linux 6.18).
NEVER: Final = ((1, 1 | 1 << 9), (5, 1 << 15))
# Linking into another directory, which Landlock refuses unasked: handled (ABI 2 on) only to be granted.
REFER: Final = 1 << 13


def program(machine: str = platform.machine()) -> bytes:
    """The filter for ``machine`` as an array of ``struct sock_filter``; KeyError for a machine without a table."""
    arch, column = _ARCH[machine]
    allowed = [calls[column] for calls in _CALLS.values() if calls[column] is not None]
    deadly = [calls[column] for calls in _DEADLY.values() if calls[column] is not None]
    head = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL)]
    head += [(_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    mmap = [(_EQUAL, 0, 4, _MMAP[column]), (_LOAD, 0, 0, 32), (_BITS, 1, 0, _PROT_EXEC), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)]
    tail = [(_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _KILL)]
    tests = len(allowed) + len(deadly)
    body = [(_EQUAL, tests - index, 0, number) for index, number in enumerate(allowed)]
    body += [(_EQUAL, tests - index + 1, 0, number) for index, number in enumerate(deadly, len(allowed))]
    return b"".join(struct.pack("HBBI", *step) for step in head + mmap + body + tail)


def landlock_rights(abi: int) -> int:
    """The rights to refuse, of those a Landlock ABI version knows."""
    return sum(bits for version, bits in NEVER if abi >= version)


def supported() -> bool:
    """Whether there is a filter for this machine."""
    return platform.machine() in _ARCH and "openat2" in syscalls.NUMBERS
