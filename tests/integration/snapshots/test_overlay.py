"""The overlayfs snapshotter beyond the contract: mounts as clients know them, restarts, detached layers, failures."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pydock.base import errors, syscalls
from pydock.core import plugin, snapshots
from pydock.core.mounts import Mount
from pydock_plugins.mounts import kernel
from pydock_plugins.snapshots import directories, index, overlay

pytestmark = pytest.mark.root

DETACHED = {snapshots.REBASE_LABEL: "true"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "overlay"


@pytest.fixture
async def snapshotter(root: Path) -> AsyncIterator[directories.DirectorySnapshotter]:
    async with overlay.opened(root, overlay.OverlayConfig(ahead=0)) as opened:
        yield opened


@contextlib.asynccontextmanager
async def mounted(mounts: list[Mount] | object, place: Path) -> AsyncIterator[Path]:
    mounter = kernel.KernelMounter(place)
    async with mounter.mounted(mounts) as target:  # type: ignore[arg-type]
        yield target


def fs(root: Path, id: int) -> Path:
    return root / f"snapshots/{id}/fs"


async def layer(snapshotter: directories.DirectorySnapshotter, name: str, parent: str = "") -> None:
    await snapshotter.prepare(f"{name}-a", parent, {})
    await snapshotter.commit(name, f"{name}-a", {})


async def test_mounts_are_those_containerd_gives(snapshotter: directories.DirectorySnapshotter, root: Path) -> None:
    (bind,) = await snapshotter.prepare("base-a", "", {})
    assert bind == Mount("bind", str(fs(root, 1)), options=("rw", "rbind"))
    await snapshotter.commit("base", "base-a", {})
    (active,) = await snapshotter.prepare("next-a", "base", {})
    assert (active.type, active.source) == ("overlay", "overlay")
    assert active.options[:3] == (f"workdir={root}/snapshots/2/work", f"upperdir={fs(root, 2)}", f"lowerdir={fs(root, 1)}")
    assert active.options[3:] == tuple(overlay.options_here())
    await snapshotter.commit("next", "next-a", {})
    assert await snapshotter.view("v1", "base", {}) == [Mount("bind", str(fs(root, 1)), options=("ro", "rbind"))]
    (view,) = await snapshotter.view("v2", "next", {})
    assert view.options[0] == f"lowerdir={fs(root, 2)}:{fs(root, 1)}"
    assert not any(option.startswith("upperdir") for option in view.options)


async def test_directories_are_for_root_only_and_trees_open(snapshotter: directories.DirectorySnapshotter, root: Path) -> None:
    await snapshotter.prepare("key", "", {})
    modes = {stat.S_IMODE(place.stat().st_mode) for place in (root, root / "snapshots", root / "snapshots/1")}
    assert modes == {0o700}
    assert stat.S_IMODE(fs(root, 1).stat().st_mode) == 0o755


async def test_a_umask_does_not_close_the_tree(snapshotter: directories.DirectorySnapshotter, root: Path) -> None:
    before = os.umask(0o077)
    try:
        await snapshotter.prepare("key", "", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(fs(root, 1).stat().st_mode) == 0o755


async def test_removed_snapshots_and_orphans_leave_no_directory(root: Path) -> None:
    async with overlay.opened(root, overlay.OverlayConfig(ahead=0)) as snapshotter:
        await layer(snapshotter, "kept")
        await snapshotter.prepare("gone", "kept", {})
        (fs(root, 2) / "deep/er").mkdir(parents=True)
        await snapshotter.remove("gone")
        await snapshotter.cleanup()
        assert os.listdir(root / "snapshots") == ["1"]
    (root / "snapshots/7/fs").mkdir(parents=True)
    (root / "snapshots/rubbish").mkdir()
    async with overlay.opened(root, overlay.OverlayConfig(ahead=2)) as snapshotter:
        await snapshotter.prepare("key", "kept", {})
        assert (await snapshotter.mounts("key"))[0].options[2] == f"lowerdir={fs(root, 1)}"
        await snapshotter.cleanup()
        left = {int(name) for name in os.listdir(root / "snapshots")}
        assert 1 in left
        assert 7 not in left
        assert min(left - {1}) > 7, "the id of an orphan is not given again while it is being removed"


async def test_a_mount_left_inside_does_not_keep_a_directory(snapshotter: directories.DirectorySnapshotter, root: Path) -> None:
    await snapshotter.prepare("key", "", {})
    place = fs(root, 1) / "with space"
    place.mkdir()
    kernel.mount_one(Mount("tmpfs", "tmpfs"), place)
    await snapshotter.remove("key")
    await snapshotter.cleanup()
    assert os.listdir(root / "snapshots") == []


async def test_layers_are_unpacked_before_their_parents_and_stacked_later(
    snapshotter: directories.DirectorySnapshotter, root: Path, tmp_path: Path
) -> None:
    tops = {}
    for number in (1, 2, 3):
        mounts = await snapshotter.prepare(f"a{number}", "", DETACHED)
        assert mounts[0].type == "overlay"
        async with mounted(mounts, tmp_path) as top:
            (top / f"file-{number}").write_text(str(number))
            (top / "same").write_text(str(number))
        tops[number] = mounts
    os.mknod(fs(root, 3) / "file-1", stat.S_IFCHR, 0)
    fs(root, 1).chmod(0o750)
    os.chown(fs(root, 1), 5, 6)
    for number in (1, 2, 3):
        await snapshotter.rebase(f"l{number}", f"a{number}", f"l{number - 1}" if number > 1 else "", {"n": str(number)})
    await snapshotter.settle()
    info = await snapshotter.stat("l3")
    assert (info.kind, info.parent, info.labels) == (snapshots.Kind.COMMITTED, "l2", {"n": "3"})
    async with mounted(await snapshotter.view("v", "l3", {}), tmp_path) as top:
        assert sorted(os.listdir(top)) == ["file-2", "file-3", "same"]
        assert (top / "same").read_text() == "3"
        status = top.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 5, 6)


async def test_a_detached_snapshot_committed_alone_is_an_ordinary_one(
    snapshotter: directories.DirectorySnapshotter, root: Path
) -> None:
    await snapshotter.prepare("a", "", DETACHED)
    await snapshotter.commit("c", "a", {})
    await snapshotter.prepare("b", "c", {})
    assert {stat.S_IMODE(fs(root, id).stat().st_mode) for id in (1, 2)} == {0o755}


async def test_a_rebase_may_not_change_a_parent(snapshotter: directories.DirectorySnapshotter) -> None:
    await layer(snapshotter, "one")
    await layer(snapshotter, "two")
    await snapshotter.prepare("a", "one", {})
    for parent in ("two", "nowhere"):
        with pytest.raises(errors.InvalidArgument):
            await snapshotter.rebase("name", "a", parent, {})
    await snapshotter.rebase("name", "a", "one", {})
    assert (await snapshotter.stat("name")).parent == "one"


async def test_files_are_synced_before_the_record_of_a_commit(
    snapshotter: directories.DirectorySnapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = syscalls.syncfs

    def syncfs(fd: int) -> None:
        seen.append(snapshotter._nodes.get("a").kind.name)
        real(fd)

    monkeypatch.setattr(syscalls, "syncfs", syncfs)
    await snapshotter.prepare("a", "", {})
    await snapshotter.commit("c", "a", {})
    assert seen == ["ACTIVE"]


async def test_parallel_commits_share_syncs(snapshotter: directories.DirectorySnapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(syscalls, "syncfs", calls.append)
    for number in range(10):
        await snapshotter.prepare(f"a{number}", "", {})
    await asyncio.gather(*(snapshotter.commit(f"c{number}", f"a{number}", {}) for number in range(10)))
    assert len(calls) <= 2


async def test_rebases_do_not_wait_for_the_disk_and_settle_does(
    snapshotter: directories.DirectorySnapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(syscalls, "syncfs", lambda fd: go.wait())
    for number in range(10):
        await snapshotter.prepare(f"a{number}", "", {})
        await snapshotter.rebase(f"c{number}", f"a{number}", "", {})
    assert len(snapshotter._nodes.unsettled()) == 10
    waiting = asyncio.ensure_future(snapshotter.settle())
    await snapshotter.stat("c1")
    assert not waiting.done()
    go.set()
    await waiting
    assert snapshotter._nodes.unsettled() == set()


async def test_rebased_snapshots_are_settled_without_being_asked(snapshotter: directories.DirectorySnapshotter) -> None:
    await snapshotter.prepare("a", "", {})
    await snapshotter.rebase("c", "a", "", {})
    async with asyncio.timeout(10):
        while snapshotter._nodes.unsettled():
            await snapshotter.update(await snapshotter.stat("c"))


async def test_after_a_failed_sync_nothing_written_before_it_is_committed(
    snapshotter: directories.DirectorySnapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "lost")

    await snapshotter.prepare("a", "", {})
    await snapshotter.prepare("b", "", {})
    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "syncfs", fail)
        with pytest.raises(errors.Internal, match="lost"):
            await snapshotter.commit("ca", "a", {})
    for key in ("a", "b"):
        with pytest.raises(errors.Internal):
            await snapshotter.commit("name", key, {})
        await snapshotter.remove(key)
    await layer(snapshotter, "fresh")


async def test_a_host_crash_before_settle_takes_the_directories_too(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "the power went")

    async with overlay.opened(root, overlay.OverlayConfig(ahead=0)) as snapshotter:
        await layer(snapshotter, "kept")
        await snapshotter.prepare("a", "kept", {})
        monkeypatch.setattr(syscalls, "syncfs", fail)
        await snapshotter.rebase("loose", "a", "kept", {})
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(index, "BOOT_ID", tmp_path / "boot")
    async with overlay.opened(root, overlay.OverlayConfig(ahead=0)) as snapshotter:
        await snapshotter.cleanup()
        assert [info.name async for info in snapshotter.walk()] == ["kept"]
        assert os.listdir(root / "snapshots") == ["1"]


async def test_a_volatile_snapshot_can_be_mounted_again(snapshotter: directories.DirectorySnapshotter, tmp_path: Path) -> None:
    await layer(snapshotter, "base")
    mounts = await snapshotter.prepare("key", "base", {directories.VOLATILE_LABEL: "true"})
    assert mounts[0].options[-1] == "volatile"
    async with mounted(mounts, tmp_path) as top:
        (top / "file").write_text("x")
    async with mounted(await snapshotter.mounts("key"), tmp_path) as top:
        assert (top / "file").read_text() == "x"


async def test_directories_made_ahead_are_used_and_made_again(root: Path) -> None:
    async with overlay.opened(root, overlay.OverlayConfig(ahead=3)) as snapshotter:
        await layer(snapshotter, "base")
        await asyncio.gather(*(snapshotter.prepare(f"key-{number}", "base", {}) for number in range(20)))
        sources = {(await snapshotter.mounts(f"key-{number}"))[0].options[1] for number in range(20)}
        assert len(sources) == 20
        for number in range(20):
            await snapshotter.remove(f"key-{number}")
        await snapshotter.cleanup()
        assert len(os.listdir(root / "snapshots")) <= 1 + 3


async def test_a_full_disk_says_so_and_the_next_try_works(root: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    kernel.mount_one(Mount("tmpfs", "tmpfs", options=("size=2m", "nr_inodes=60")), small)
    try:
        async with overlay.opened(small / "root", overlay.OverlayConfig(ahead=0)) as snapshotter:
            with pytest.raises(errors.ResourceExhausted):
                for number in range(60):
                    await snapshotter.prepare(f"key-{number}", "", {})
            await snapshotter.remove("key-0")
            await snapshotter.remove("key-1")
            await snapshotter.cleanup()
            await snapshotter.prepare("again", "", {})
    finally:
        kernel.unmount_all(small)


async def test_where_overlayfs_does_not_work_the_plugin_is_skipped(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = (f"lowerdir={tmp_path}/lower", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work")
    kernel.mount_one(Mount("overlay", "overlay", options=options), tmp_path / "merged")
    try:
        with pytest.raises(plugin.SkipPlugin, match="no overlayfs on"):
            async with overlay.opened(tmp_path / "merged/root", overlay.OverlayConfig()):
                pass
        assert os.listdir(tmp_path / "merged/root") == []
    finally:
        kernel.unmount_all(tmp_path / "merged")
