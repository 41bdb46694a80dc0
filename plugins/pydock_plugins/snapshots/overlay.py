"""Snapshots by the kernel's overlayfs: one directory of changes per snapshot, stacked when mounted.

A snapshot's directory holds ``fs`` (its own files; whiteouts are 0:0 character devices, opaque directories carry trusted.overlay.opaque)
and, while it is active, ``work`` (the kernel's).  ``<root>/empty`` is the lower directory of what has no parent yet (`snapshots.Rebaser`).

Mounts: an active snapshot without parents is a bind of its ``fs``, a view on one parent a read-only bind of the parent's; all else is an
overlay with whole paths, nearest parent first, as containerd hands out.  Paths of 128 layers exceed the page mount(2) takes: whoever mounts
shortens them (`pydock_plugins.mounts.kernel` does; containerd's Go clients do so too).
Source: Documentation/filesystems/overlayfs.rst (index, userxattr, volatile), containerd's overlay snapshotter for the shape of mounts.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydock.base import offload, platform
from pydock.core import plugin, snapshots
from pydock.core.mounts import Mount
from pydock_plugins.mounts import kernel
from pydock_plugins.snapshots import directories, index

# The mode of the top directory of a detached snapshot until its layer says otherwise; no image uses it.
UNTOUCHED = 0o1711
NEW_MODE = 0o755
WHOLE_USER_SPACE = "0 0 4294967295"


@dataclass(frozen=True)
class OverlayConfig(plugin.Config):
    """Options of the overlayfs snapshotter."""

    sync: bool = plugin.option(True, "flush the file system before a snapshot is committed, so that a power cut leaves no short files")
    ahead: int = plugin.option(8, "directories made ahead of the snapshots that will need them; 0 for none")
    volatile: bool = plugin.option(False, "mount every active snapshot with overlayfs's volatile option: faster, lost with the host")
    mount_options: tuple[str, ...] = plugin.option((), "further options of every overlay mount")


class OverlayLayout:
    """What `directories.DirectorySnapshotter` needs to know of overlayfs; ``options`` end every overlay mount."""

    def __init__(self, root: Path, options: Sequence[str], *, volatile: bool = False) -> None:
        self._empty = root / "empty"
        self._options, self._volatile = tuple(options), volatile

    def tree(self, directory: Path) -> Path:
        """Return the directory of changes."""
        return directory / "fs"

    async def stock(self, directory: Path, parent: Path | None) -> None:
        """Make the directories."""
        await offload.run(_make, directory)

    def fit(self, directory: Path, parent: Path | None, *, detached: bool) -> None:
        """Give the top directory the mode and owner it has in the layer below: overlayfs shows those of the uppermost."""
        if detached:
            (directory / "fs").chmod(UNTOUCHED)
        elif parent is not None and _access(parent / "fs") != (0, 0, NEW_MODE):
            _copy_access(parent / "fs", directory / "fs")

    def adopt(self, directory: Path, parent: Path | None) -> None:
        """Do the same late, where the layer itself did not say."""
        if stat.S_IMODE((directory / "fs").stat().st_mode) != UNTOUCHED:
            return
        if parent is not None:
            _copy_access(parent / "fs", directory / "fs")
        else:
            (directory / "fs").chmod(NEW_MODE)

    def mounts(self, node: index.Node, directory: Path, parents: Sequence[Path]) -> Sequence[Mount]:
        """Return the one mount of a snapshot."""
        active = node.kind is snapshots.Kind.ACTIVE
        lowers = [parent / "fs" for parent in parents]
        if not lowers and node.labels.get(snapshots.REBASE_LABEL) == "true":
            lowers = [self._empty]
        if not lowers:
            return [Mount("bind", str(directory / "fs"), options=("rw" if active else "ro", "rbind"))]
        if not active and len(lowers) == 1:
            return [Mount("bind", str(lowers[0]), options=("ro", "rbind"))]
        options = [f"workdir={directory / 'work'}", f"upperdir={directory / 'fs'}"] if active else []
        options.append("lowerdir=" + ":".join(map(str, lowers)))
        options.extend(self._options)
        if active and (self._volatile or node.boot):
            _allow_volatile(directory)
            options.append("volatile")
        return [Mount("overlay", "overlay", options=tuple(options))]


def _make(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / "fs").mkdir()
    (directory / "fs").chmod(NEW_MODE)
    (directory / "work").mkdir(mode=0o711)


def _copy_access(source: Path, target: Path) -> None:
    access, found = _access(source), _access_of(target.stat())
    if access[:2] != found[:2]:
        os.chown(target, access[0], access[1])
    if access != found:
        target.chmod(access[2])


@functools.lru_cache(1024)
def _access(source: Path) -> tuple[int, int, int]:
    """Return owner, group and mode of the top of a committed snapshot, which nobody changes, under a path never used again."""
    return _access_of(source.stat())


def _access_of(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def _allow_volatile(directory: Path) -> None:
    """Take away the mark by which the kernel refuses a second volatile mount: the boot it would be about is still this one."""
    mark = directory / "work/work/incompat/volatile"
    with contextlib.suppress(FileNotFoundError):
        (mark / "dirty").unlink(missing_ok=True)
        mark.rmdir()


def options_here() -> list[str]:
    """Return the options this kernel and user need."""
    options = []
    if Path("/sys/module/overlay/parameters/index").exists():
        options.append("index=off")
    if " ".join(Path("/proc/self/uid_map").read_text().split()) != WHOLE_USER_SPACE:
        options.append("userxattr")  # trusted.* attributes are not for a user namespace
    return options


def why_not(root: Path, options: Sequence[str]) -> str:
    """Return why overlayfs does not work below ``root``, "" when it does: tried with a mount and a removed file, blocking."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="probe-", dir=root) as name:
        place = Path(name)
        for part in ("lower", "upper", "work", "merged"):
            (place / part).mkdir()
        (place / "lower/file").touch()
        parts = (f"workdir={place}/work", f"upperdir={place}/upper", f"lowerdir={place}/lower")
        try:
            kernel.mount_one(Mount("overlay", "overlay", options=(*parts, *options)), place / "merged")
        except OSError as error:
            return f"no overlayfs on {root}: {error.strerror}"
        try:
            (place / "merged/file").unlink()
            # Without d_type in its directories the file system below shows whiteouts as files (overlayfs.rst, "Upper and Lower").
            return "" if not os.listdir(place / "merged") else f"the file system of {root} keeps no d_type in directories"
        except OSError as error:
            return f"overlayfs on {root} does not remove files: {error.strerror}"
        finally:
            kernel.unmount_all(place / "merged")


@contextlib.asynccontextmanager
async def opened(root: Path, config: OverlayConfig) -> AsyncIterator[directories.DirectorySnapshotter]:
    """Open the snapshotter below ``root``. Raises SkipPlugin where overlayfs does not work."""
    options = [*options_here(), *config.mount_options]
    reason = await offload.run(why_not, root, options)
    if reason:
        raise plugin.SkipPlugin(reason)
    (root / "empty").mkdir(mode=0o755, exist_ok=True)
    layout = OverlayLayout(root, options, volatile=config.volatile)
    async with directories.opened(root, layout, ahead=config.ahead, sync=config.sync) as snapshotter:
        yield snapshotter


@plugin.plugin("io.containerd.snapshotter.v1", "overlayfs", platforms=(platform.format(platform.default()),))
async def overlay(config: OverlayConfig, root: plugin.PluginRoot) -> AsyncIterator[snapshots.Snapshotter]:
    """Kernel overlayfs snapshots."""
    async with opened(root, config) as snapshotter:
        yield snapshotter
