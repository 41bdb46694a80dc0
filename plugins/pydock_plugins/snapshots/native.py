"""Snapshots as whole copies: slow and large, but of any file system.

A snapshot's directory is the tree itself; it begins as a copy of its parent's (`copying`), with shared blocks where the file system can.
Mounts are binds: of the snapshot's own directory, or of the parent's for a view. Snapshots without a parent to be are not rebased.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydock.base import errors, offload, platform
from pydock.core import plugin, snapshots
from pydock.core.mounts import Mount
from pydock_plugins.snapshots import copying, directories, index


@dataclass(frozen=True)
class NativeConfig(plugin.Config):
    """Options of the native snapshotter."""

    sync: bool = plugin.option(True, "flush the file system before a snapshot is committed, so that a power cut leaves no short files")


class NativeLayout:
    """What `directories.DirectorySnapshotter` needs to know of copies."""

    def tree(self, directory: Path) -> Path:
        """Return the directory itself."""
        return directory

    async def stock(self, directory: Path, parent: Path | None) -> None:
        """Copy the parent, in a thread of its own since it may last."""
        await offload.dedicated(_copy, directory, parent)

    def fit(self, directory: Path, parent: Path | None, *, detached: bool) -> None:
        """Nothing is left to do; a whole copy cannot come before its parent."""
        if detached:
            raise errors.InvalidArgument("the native snapshotter cannot prepare a snapshot before its parent")

    def adopt(self, directory: Path, parent: Path | None) -> None:
        """Refuse: what is not a copy of the parent cannot become one."""
        if parent is not None:
            raise errors.InvalidArgument("the native snapshotter cannot change the parent of a snapshot")

    def mounts(self, node: index.Node, directory: Path, parents: Sequence[Path]) -> Sequence[Mount]:
        """Return the one bind mount of a snapshot."""
        view = node.kind is snapshots.Kind.VIEW
        source = parents[0] if view and parents else directory
        return [Mount("bind", str(source), options=("ro" if view else "rw", "rbind"))]


def _copy(directory: Path, parent: Path | None) -> None:
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    if parent is not None:
        copying.copy_tree(parent, directory)


@contextlib.asynccontextmanager
async def opened(root: Path, config: NativeConfig) -> AsyncIterator[directories.DirectorySnapshotter]:
    """Open the snapshotter below ``root``."""
    async with directories.opened(root, NativeLayout(), ahead=0, sync=config.sync) as snapshotter:
        yield snapshotter


@plugin.plugin("io.containerd.snapshotter.v1", "native", platforms=(platform.format(platform.default()),))
async def native(config: NativeConfig, root: plugin.PluginRoot) -> AsyncIterator[snapshots.Snapshotter]:
    """Snapshots as whole copies."""
    async with opened(root, config) as snapshotter:
        yield snapshotter
