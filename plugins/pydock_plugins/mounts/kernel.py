"""The kernel's mount table by mount(2) and umount2(2), for `mounts.Mounter`.

Vocabulary: *flags* are the options the kernel takes as bits, *data* the rest, one comma-separated text of at most a page.
Overlay mounts of many layers do not fit in a page when each lower directory is written in full; they are then mounted from a thread
whose working directory is the common parent, with relative names (unshare(CLONE_FS) keeps that directory out of the other threads).
Source: mount(2), umount2(2), unshare(2), Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from pydock.base import errors, offload, safefs, syscalls
from pydock.core import mounts, plugin

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000
PROPAGATION = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE

CLONE_FS = 0x200

# option -> (bits set, bits cleared), as in fstab(5)
FLAGS = {
    "defaults": (0, 0),
    "ro": (MS_RDONLY, 0),
    "rw": (0, MS_RDONLY),
    "nosuid": (MS_NOSUID, 0),
    "suid": (0, MS_NOSUID),
    "nodev": (MS_NODEV, 0),
    "dev": (0, MS_NODEV),
    "noexec": (MS_NOEXEC, 0),
    "exec": (0, MS_NOEXEC),
    "sync": (MS_SYNCHRONOUS, 0),
    "async": (0, MS_SYNCHRONOUS),
    "remount": (MS_REMOUNT, 0),
    "mand": (MS_MANDLOCK, 0),
    "nomand": (0, MS_MANDLOCK),
    "dirsync": (MS_DIRSYNC, 0),
    "noatime": (MS_NOATIME, 0),
    "atime": (0, MS_NOATIME),
    "nodiratime": (MS_NODIRATIME, 0),
    "diratime": (0, MS_NODIRATIME),
    "bind": (MS_BIND, 0),
    "rbind": (MS_BIND | MS_REC, 0),
    "relatime": (MS_RELATIME, 0),
    "norelatime": (0, MS_RELATIME),
    "strictatime": (MS_STRICTATIME, 0),
    "nostrictatime": (0, MS_STRICTATIME),
    "private": (MS_PRIVATE, 0),
    "rprivate": (MS_PRIVATE | MS_REC, 0),
    "slave": (MS_SLAVE, 0),
    "rslave": (MS_SLAVE | MS_REC, 0),
    "shared": (MS_SHARED, 0),
    "rshared": (MS_SHARED | MS_REC, 0),
    "unbindable": (MS_UNBINDABLE, 0),
    "runbindable": (MS_UNBINDABLE | MS_REC, 0),
}

DATA_LIMIT = os.sysconf("SC_PAGE_SIZE") - 1


class KernelMounter:
    """`mounts.Mounter` for this process's mount namespace; ``scratch`` holds the directories of `mounted`."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    async def mount_all(self, mounts: Sequence[mounts.Mount], target: Path) -> None:
        """Mount in order at ``target``; a failure undoes what came before it. Raises OSError, InvalidArgument."""
        done: list[Path] = []
        try:
            for each in mounts:
                # A long overlay gets a thread of its own, because it changes that thread's working directory for good.
                done.append(await (offload.dedicated if is_long(each) else offload.run)(mount_at, each, target))
        except BaseException:
            for place in reversed(done):
                await offload.run(_unmount, place)
            raise

    async def unmount_all(self, target: Path) -> None:
        """Unmount until nothing is mounted at ``target``; busy ones are detached and go when their last user does."""
        await offload.run(unmount_all, target)

    @contextlib.asynccontextmanager
    async def mounted(self, mounts: Sequence[mounts.Mount]) -> AsyncIterator[Path]:
        """Mount at a new private directory for the time of the block."""
        place = Path(tempfile.mkdtemp(prefix="mount-", dir=self._scratch))
        try:
            await self.mount_all(mounts, place)
            yield place
        finally:
            await self.unmount_all(place)
            place.rmdir()

    async def sweep(self) -> None:
        """Undo what a killed daemon left in ``scratch``."""
        for place in self._scratch.glob("mount-*"):
            await self.unmount_all(place)
            place.rmdir()


def mount_at(mount: mounts.Mount, target: Path) -> Path:
    """Mount one below ``target``, blocking, and return where; links in a ``Mount.target`` are followed inside ``target`` only."""
    if not mount.target:
        mount_one(mount, target)
        return target
    root = safefs.open_root(target)
    try:
        with safefs.opened(safefs.open_in_root(root, os.fsencode(mount.target), os.O_PATH)) as fd:
            mount_one(mount, Path(f"/proc/self/fd/{fd}"))
            return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(root)


def mount_one(mount: mounts.Mount, place: Path) -> None:
    """Mount one at ``place``, blocking. Call it for a long overlay only in a thread that ends: it changes its working directory."""
    flags, data = parse(mount.options)
    source, first = mount.source, flags & ~PROPAGATION
    if mount.type == "overlay" and len(",".join(data)) > DATA_LIMIT:
        data = _from_common_directory(data)
    text = ",".join(data)
    if len(text) > DATA_LIMIT:
        raise errors.InvalidArgument("mount options is too long")
    if not flags & MS_REMOUNT or text:
        _mount(source, place, mount.type, first, text)
    if flags & PROPAGATION:
        _mount("", place, "", flags & (PROPAGATION | MS_REC), "")
    if first & (MS_BIND | MS_RDONLY) == MS_BIND | MS_RDONLY:
        # The kernel ignores all flags but MS_REC when it makes a bind mount: the rest takes a second call.
        _mount("", place, "", first | MS_REMOUNT, "")


def parse(options: Sequence[str]) -> tuple[int, list[str]]:
    """Return (flags, data) of fstab-style options."""
    flags, data = 0, []
    for option in options:
        bits = FLAGS.get(option)
        if bits is None:
            data.append(option)
        else:
            flags = (flags | bits[0]) & ~bits[1]
    return flags, data


def unmount_all(target: Path) -> None:
    """Unmount until nothing is mounted at ``target``, blocking."""
    while _unmount(target):
        pass


def is_long(mount: mounts.Mount) -> bool:
    """Tell whether the options of an overlay do not fit in a page as they are."""
    return mount.type == "overlay" and sum(map(len, mount.options)) + len(mount.options) > DATA_LIMIT


def _from_common_directory(data: Sequence[str]) -> list[str]:
    """Enter, in this thread alone, the directory all lower directories share; return the options with names relative to it."""
    lowers = next((option.removeprefix("lowerdir=").split(":") for option in data if option.startswith("lowerdir=")), [])
    if len(lowers) < 2 or not all(lower.startswith("/") for lower in lowers):
        return list(data)
    common = os.path.commonpath(lowers)
    relative = "lowerdir=" + ":".join(os.path.relpath(lower, common) for lower in lowers)
    syscalls.unshare(CLONE_FS)
    os.chdir(common)
    return [relative if option.startswith("lowerdir=") else option for option in data]


def _mount(source: str, place: Path, kind: str, flags: int, data: str) -> None:
    try:
        syscalls.mount(os.fsencode(source), os.fsencode(place), kind.encode(), flags, os.fsencode(data))
    except OSError as error:
        raise OSError(error.errno, f"mount {kind or 'flags'} from {source!r}: {error.strerror}", str(place)) from error


def _unmount(place: Path) -> bool:
    """Take one mount off ``place``; False when there is none."""
    name = os.fsencode(place)
    try:
        syscalls.umount(name, syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        if error.errno != errno.EBUSY:
            raise
        syscalls.umount(name, syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)
    return True


@plugin.plugin("io.pydock.mounts.v1", "kernel")
async def kernel(state: plugin.PluginState) -> AsyncIterator[mounts.Mounter]:
    """Mounts in the daemon's mount namespace."""
    mounter = KernelMounter(state)
    await mounter.sweep()
    yield mounter
