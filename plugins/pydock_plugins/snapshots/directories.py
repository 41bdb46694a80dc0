"""What the snapshotters that keep a directory per snapshot have in common.

On disk, below the root (0700)::

    index.db             see `index`
    snapshots/<id>/      one snapshot (0700), or one made ahead whose id is not given yet

Vocabulary: a *layout* is what differs (`Layout`): what a directory holds and how it is mounted; an *orphan* is a directory no node names;
to *settle* is to sync the file system and then to note durably that committed files are on disk; concurrent commits share one sync.
Invariants: rows go first, files later, so a row without files does not exist; ids are not given again, so a directory whose row is gone
is an orphan at once, needs no renaming and is removed off the caller's path; a commit that said yes survives a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydock.base import clock, errors, groupsync, offload, safefs, syscalls
from pydock.base.failpoint import failpoint
from pydock.core import plugin, snapshots
from pydock.core.mounts import Mount
from pydock_plugins.snapshots import index, usage

log = logging.getLogger(__name__)

VOLATILE_LABEL = "io.pydock.snapshot/volatile"


class Layout(Protocol):
    """What a snapshotter adds to this module."""

    def tree(self, directory: Path) -> Path:
        """Return where in a snapshot's directory its own files are."""

    async def stock(self, directory: Path, parent: Path | None) -> None:
        """Fill ``directory``, which does not exist yet, for a snapshot on the snapshot directory ``parent``; may take its time."""

    def fit(self, directory: Path, parent: Path | None, *, detached: bool) -> None:
        """Finish a stocked directory in a few system calls, once its final parent is known."""

    def adopt(self, directory: Path, parent: Path | None) -> None:
        """Make a directory that was made without a parent what it would be had it been made on ``parent``, now that this is known."""

    def mounts(self, node: index.Node, directory: Path, parents: Sequence[Path]) -> Sequence[Mount]:
        """Return how to mount an active snapshot on its parents, nearest first."""


class DirectorySnapshotter:
    """`snapshots.Snapshotter` and `snapshots.Rebaser` over a `Layout`; made by `opened`."""

    def __init__(self, root: Path, nodes: index.Index, layout: Layout, *, ahead: int, sync: bool) -> None:
        self.root = root
        self._home = root / "snapshots"
        self._nodes, self._layout, self._sync = nodes, layout, sync
        self._ready: list[int] = []
        self._ahead = ahead
        self._wanted = asyncio.Event()
        self._unborn: set[int] = set()
        self._loose = asyncio.Event()
        if nodes.unsettled():
            self._loose.set()
        self._doomed: asyncio.Queue[str] = asyncio.Queue()
        # Kept open: syncfs tells a descriptor of every write-back error since the descriptor was opened (syncfs(2), Linux 5.8).
        self._fd = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._flush = groupsync.Shared(self._syncfs)
        self._lost: set[int] = set()

    # snapshots.Snapshotter

    async def stat(self, key: str) -> snapshots.Info:
        """Return a snapshot's record. Raises NotFound."""
        return index.info_of(key, self._nodes.get(key))

    async def update(self, info: snapshots.Info, paths: Sequence[str] = ()) -> snapshots.Info:
        """Replace labels. Raises NotFound, InvalidArgument for another path than ``labels``."""
        return await self._nodes.update(info, paths)

    async def usage(self, key: str) -> snapshots.Usage:
        """Return the disk use; committed snapshots are measured when it is first asked for, since they do not change."""
        node = self._nodes.get(key)
        if node.size != index.UNKNOWN:
            return snapshots.Usage(node.size, node.inodes)
        if node.kind is snapshots.Kind.VIEW:
            return snapshots.Usage(0, 0)
        found = await offload.run(usage.measure, self._layout.tree(self._directory(node.id)))
        if node.kind is snapshots.Kind.COMMITTED:
            await self._nodes.measured(key, node.id, found)
        return found

    async def mounts(self, key: str) -> Sequence[Mount]:
        """Return the mounts of an active snapshot or view. Raises NotFound, FailedPrecondition."""
        node = self._nodes.active(key)
        return self._mounts(node, self._nodes.chain(node))

    async def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make an active snapshot. Raises AlreadyExists, NotFound (parent), InvalidArgument (parent not committed)."""
        return await self._create(snapshots.Kind.ACTIVE, key, parent, labels)

    async def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make a read-only snapshot. Raises as `prepare`."""
        return await self._create(snapshots.Kind.VIEW, key, parent, labels)

    async def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        """Make the active ``key`` the parent-to-be ``name``; ``key`` is free again. Raises AlreadyExists, NotFound, FailedPrecondition."""
        node = self._adopted(self._nodes.check_commit(name, key), key)
        await self._settled({node.id} | self._nodes.unsettled())
        failpoint("snapshot.synced")
        await self._nodes.commit(name, key, "", labels, settled=True)

    async def remove(self, key: str) -> None:
        """Forget a snapshot; its files go in the background. Raises NotFound, FailedPrecondition while it is a parent."""
        node = await self._nodes.remove(key)
        failpoint("snapshot.doomed")
        self._doomed.put_nowait(str(node.id))

    async def walk(self, filters: Iterable[str] = ()) -> AsyncIterator[snapshots.Info]:
        """Yield the matching snapshots as they are when the walk begins. Raises InvalidArgument for a bad filter."""
        for info in list(self._nodes.walk(filters)):
            yield info

    async def cleanup(self) -> None:
        """Remove orphans and wait until all removals are done."""
        await self._collect()
        await self._doomed.join()

    # snapshots.Rebaser

    async def rebase(self, name: str, key: str, parent: str, labels: Mapping[str, str]) -> None:
        """Commit ``key`` as ``name`` on ``parent``; it is there at once.

        It survives a power cut once `settle` returns, or a little later by itself.
        """
        self._adopted(self._nodes.check_commit(name, key, parent), key)
        await self._nodes.commit(name, key, parent, labels, settled=False)
        self._loose.set()

    async def settle(self) -> None:
        """Make all that was committed by `rebase` survive a power cut, with one sync. Raises Internal when the disk failed."""
        ids = self._nodes.unsettled()
        if ids:
            await self._settled(ids)
            await self._nodes.settle(ids)

    # background

    async def run(self) -> None:
        """Remove what is doomed, one directory at a time, until cancelled."""
        await self._collect()
        while True:
            name = await self._doomed.get()
            try:
                await offload.dedicated(remove_tree, self._fd, name.encode())
            except FileNotFoundError:
                pass
            except OSError as error:
                log.warning("snapshot directory %s stays until the next cleanup: %s", self._home / name, error)
            finally:
                self._doomed.task_done()

    async def make_ahead(self) -> None:
        """Keep directories ready for the next snapshots, until cancelled."""
        while True:
            self._wanted.clear()
            try:
                while len(self._ready) < self._ahead:
                    self._ready.append(await self._stocked(None))
            except (OSError, errors.ResourceExhausted) as error:
                log.warning("no directories ahead below %s: %s", self._home, error)
            await self._wanted.wait()

    async def settle_soon(self) -> None:
        """Settle after every `rebase` without being asked, so that the disk works while the next layer is unpacked; until cancelled."""
        while True:
            await self._loose.wait()
            self._loose.clear()
            try:
                await self.settle()
            except errors.PydockError as error:
                log.warning("snapshots stay unsettled until the next try: %s", error)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    async def _create(self, kind: snapshots.Kind, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        below = self._nodes.check_new(key, parent)
        id = self._ready.pop() if self._ready else await self._stocked(self._directory(below.id) if below else None)
        now = clock.now()
        boot = self._nodes.boot if labels.get(VOLATILE_LABEL) == "true" else ""
        detached = labels.get(snapshots.REBASE_LABEL) == "true" and not parent
        node = index.Node(id, kind, now, now, parent, dict(labels), boot=boot)

        def make(chain: Sequence[int]) -> None:
            self._layout.fit(self._directory(id), self._directory(chain[0]) if chain else None, detached=detached)
            self._unborn.discard(id)

        try:
            chain = await self._nodes.add(key, node, make)
        except BaseException:
            self._unborn.discard(id)
            if not any(other.id == id for other in self._nodes.nodes().values()):
                self._doomed.put_nowait(str(id))
            raise
        if len(self._ready) <= self._ahead // 2:
            self._wanted.set()
        return self._mounts(node, chain)

    async def _stocked(self, parent: Path | None) -> int:
        """Make and fill a directory and return its id."""
        id = self._nodes.next_id()
        self._unborn.add(id)
        try:
            await self._layout.stock(self._directory(id), parent)
        except BaseException as error:
            self._unborn.discard(id)
            self._doomed.put_nowait(str(id))
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise errors.ResourceExhausted(f"{self._directory(id)}: {error.strerror}") from error
            raise
        return id

    def _adopted(self, node: index.Node, key: str) -> index.Node:
        """Tell the layout the final parent of ``node``, when the active ``key`` had none, and return it."""
        if not self._nodes.get(key).parent:
            parent = self._nodes.get(node.parent) if node.parent else None
            self._layout.adopt(self._directory(node.id), self._directory(parent.id) if parent else None)
        return node

    def _mounts(self, node: index.Node, chain: Sequence[int]) -> Sequence[Mount]:
        return self._layout.mounts(node, self._directory(node.id), [self._directory(each) for each in chain])

    def _directory(self, id: int) -> Path:
        return self._home / str(id)

    async def _settled(self, ids: set[int]) -> None:
        """Return when the files of ``ids`` are on disk, or at once where the configuration leaves that to luck."""
        if not self._sync:
            return
        try:
            await self._flush.run()
        except OSError as error:
            # The kernel tells of lost pages once and not whose they were: nothing written up to now may count as committed later.
            self._lost |= {node.id for node in self._nodes.nodes().values()}
            raise errors.Internal(f"{self._home} cannot be synced: {error}") from error
        if ids & self._lost:
            raise errors.Internal(f"{self._home} could not be synced while the snapshot was written")

    def _syncfs(self) -> None:
        syscalls.syncfs(self._fd)

    async def _collect(self) -> None:
        """Doom every orphan there is now."""
        names = await offload.run(os.listdir, self._home)
        known = {node.id for node in self._nodes.nodes().values()} | self._unborn
        for name in sorted(names):
            if not name.isdecimal() or int(name) not in known:
                self._doomed.put_nowait(name)


def remove_tree(home: int, name: bytes) -> None:
    """Remove ``name`` in the directory ``home``, blocking; what is still mounted inside is detached first."""
    try:
        safefs.remove(home, name)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        top = Path(os.readlink(f"/proc/self/fd/{home}"), os.fsdecode(name))
        for place in reversed(mounted_below(top)):
            syscalls.umount(os.fsencode(place), syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        safefs.remove(home, name)


def mounted_below(top: Path) -> list[Path]:
    """Return the mount points at and below ``top`` in the order they were made (proc_pid_mountinfo(5))."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    places = [Path(os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1"))) for line in lines]
    return [place for place in places if place.is_relative_to(top)]


@contextlib.asynccontextmanager
async def opened(root: Path, layout: Layout, *, ahead: int, sync: bool) -> AsyncIterator[DirectorySnapshotter]:
    """Open the snapshotter below ``root``, with its background work for the time of the block."""
    home = root / "snapshots"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with index.opened(root / "index.db") as nodes:
        nodes.reserve(int(name) for name in os.listdir(home) if name.isdecimal())
        snapshotter = DirectorySnapshotter(root, nodes, layout, ahead=ahead, sync=sync)
        try:
            async with plugin.background() as spawn:
                spawn(snapshotter.run(), name=f"removals below {root}")
                spawn(snapshotter.settle_soon(), name=f"syncs below {root}")
                if ahead:
                    spawn(snapshotter.make_ahead(), name=f"directories ahead below {root}")
                yield snapshotter
        finally:
            snapshotter.close()
