"""mount(2) for the mounts snapshots answer with: attached to a path, or private to one thread for a short look inside.

Vocabulary: *flags* are options the kernel takes as bits, the rest is *data* the file system parses.
Invariant: `peek` attaches nothing that anybody else sees and leaves nothing behind, even if this process is killed.
Source: mount(2), mount(8), unshare(2).
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from pydock.base import errors, syscalls
from pydock.client.snapshots import Mount

T = TypeVar("T")

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_SYNC, _MS_REMOUNT = 2, 4, 8, 16, 32
_MS_DIRSYNC, _MS_NOATIME, _MS_NODIRATIME, _MS_RELATIME, _MS_STRICTATIME = 128, 1024, 2048, 1 << 21, 1 << 24
_SET = {
    "ro": syscalls.MS_RDONLY, "bind": syscalls.MS_BIND, "rbind": syscalls.MS_BIND | syscalls.MS_REC, "nosuid": _MS_NOSUID,
    "nodev": _MS_NODEV, "noexec": _MS_NOEXEC, "sync": _MS_SYNC, "dirsync": _MS_DIRSYNC, "noatime": _MS_NOATIME,
    "nodiratime": _MS_NODIRATIME, "relatime": _MS_RELATIME, "strictatime": _MS_STRICTATIME, "remount": _MS_REMOUNT,
}  # fmt: skip
_IGNORED = {"rw", "suid", "dev", "exec", "defaults", "async", "atime", "loop"}
_PAGE = 4096


def mount_all(mounts: Iterable[Mount], target: str) -> None:
    """Mount each of ``mounts`` on ``target`` (or below it), in order. Raises InvalidArgument, OSError."""
    for each in mounts:
        mount(each, os.path.join(target, each.target.lstrip("/")) if each.target else target)


def mount(what: Mount, target: str) -> None:
    """Perform one mount. Raises InvalidArgument for options longer than the kernel takes, OSError."""
    flags, words = 0, []
    for option in what.options:
        if option in _SET:
            flags |= _SET[option]
        elif option not in _IGNORED:
            words.append(option)
    if what.type in ("bind", "rbind"):
        flags |= syscalls.MS_BIND | (syscalls.MS_REC if what.type == "rbind" else 0)
    data = ",".join(words).encode()
    if len(data) >= _PAGE:
        raise errors.InvalidArgument(f"mount options of {len(data)} bytes are more than the kernel takes")
    place = os.fsencode(target)
    syscalls.mount(os.fsencode(what.source), place, os.fsencode(what.type), flags, data or None)
    if flags & syscalls.MS_BIND and flags & ~(syscalls.MS_BIND | syscalls.MS_REC):
        # The kernel takes the other bits of a bind mount only in a second step.
        syscalls.mount(None, place, None, flags & ~syscalls.MS_REC | _MS_REMOUNT)


def unmount_all(target: str) -> int:
    """Unmount everything stacked on ``target``; return how many it were. Raises OSError other than "not mounted"."""
    count = 0
    while True:
        try:
            syscalls.umount(os.fsencode(target), syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # No mount point (any more); a bind mount on its own file system shows no other sign of being one.
            return count
        count += 1


def peek(mounts: Sequence[Mount], look: Callable[[int], T]) -> T:
    """Return what ``look`` makes of the root these mounts give, read-only, as a directory descriptor. Raises OSError and what it raises."""
    if len(mounts) == 1 and mounts[0].type in ("bind", "rbind"):
        return _look_at(mounts[0].source, look)
    found: list[T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            found.append(_peek_in_private([_read_only(each) for each in mounts], look))
        except (OSError, errors.PydockError, ValueError) as error:
            failed.append(error)

    # A thread may leave the mount namespace of its process alone, and takes the private one with it when it ends.
    thread = threading.Thread(target=body, name="peek")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _peek_in_private(mounts: Sequence[Mount], look: Callable[[int], T]) -> T:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    # Any directory serves as the place: nobody but this thread sees what lies on it.
    place = tempfile.gettempdir()
    mount_all(mounts, place)
    return _look_at(place, look)


def _look_at(directory: str, look: Callable[[int], T]) -> T:
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return look(root)
    finally:
        os.close(root)


def _read_only(what: Mount) -> Mount:
    """Return a mount that changes nothing: a writable overlay's upper directory becomes the topmost of its lower ones."""
    options = [option for option in what.options if option not in ("rw", "volatile")]
    if what.type == "overlay":
        upper = next((option.removeprefix("upperdir=") for option in options if option.startswith("upperdir=")), "")
        options = [option for option in options if not option.startswith(("upperdir=", "workdir="))]
        if upper:
            lower = f"lowerdir={upper}:"
            options = [f"{lower}{option[9:]}" if option.startswith("lowerdir=") else option for option in options]
    return Mount(type=what.type, source=what.source, options=[*options, "ro"])
