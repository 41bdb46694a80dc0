"""The kernel mounter with real mounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydock.base import errors
from pydock.core import mounts
from pydock_plugins.mounts import kernel

pytestmark = pytest.mark.root


@pytest.fixture
def mounter(tmp_path: Path) -> kernel.KernelMounter:
    (tmp_path / "scratch").mkdir()
    return kernel.KernelMounter(tmp_path / "scratch")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    place = tmp_path / "target"
    place.mkdir()
    return place


def table(below: Path) -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(below) in line.split()[4]]


def bind(source: Path, *options: str, target: str = "") -> mounts.Mount:
    source.mkdir(parents=True, exist_ok=True)
    return mounts.Mount("bind", str(source), target, ("rbind", *options))


async def test_unmount_all_takes_off_everything_stacked_there(mounter: kernel.KernelMounter, target: Path, tmp_path: Path) -> None:
    for name in "abc":
        await mounter.mount_all([bind(tmp_path / name)], target)
    assert len(table(target)) == 3
    await mounter.unmount_all(target)
    assert table(target) == []
    await mounter.unmount_all(target)
    await mounter.unmount_all(tmp_path / "nowhere")


async def test_a_busy_mount_is_detached(mounter: kernel.KernelMounter, target: Path, tmp_path: Path) -> None:
    await mounter.mount_all([mounts.Mount("tmpfs", "tmpfs")], target)
    with (target / "file").open("w"):
        await mounter.unmount_all(target)
    assert table(target) == []


async def test_a_failed_mount_undoes_those_before_it(mounter: kernel.KernelMounter, target: Path, tmp_path: Path) -> None:
    bad = mounts.Mount("bind", str(tmp_path / "nowhere"), options=("rbind",))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        await mounter.mount_all([bind(tmp_path / "a"), bad], target)
    assert table(target) == []


async def test_a_read_only_bind_is_read_only(mounter: kernel.KernelMounter, target: Path, tmp_path: Path) -> None:
    await mounter.mount_all([bind(tmp_path / "a", "ro")], target)
    try:
        with pytest.raises(OSError, match="Read-only"):
            (target / "x").touch()
    finally:
        await mounter.unmount_all(target)


async def test_targets_lie_below_the_root_whatever_links_say(mounter: kernel.KernelMounter, target: Path, tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside/etc", target / "outside/etc"
    outside.mkdir(parents=True)
    inside.mkdir(parents=True)
    (target / "link").symlink_to("/outside")
    (target / "up").symlink_to("../../../../outside")
    for name in ("link/etc", "/link/etc", "up/etc", "../outside/etc"):
        await mounter.mount_all([bind(tmp_path / "a", target=name)], target)
        assert table(tmp_path) == [str(inside)]
        await mounter.unmount_all(inside)


async def test_a_private_mount_lasts_for_the_block(mounter: kernel.KernelMounter, tmp_path: Path) -> None:
    source = tmp_path / "a"
    with pytest.raises(errors.Canceled):
        async with mounter.mounted([bind(source)]) as place:
            (place / "file").touch()
            raise errors.Canceled
    assert (source / "file").exists()
    assert os.listdir(tmp_path / "scratch") == []


async def test_what_a_killed_daemon_left_is_swept(mounter: kernel.KernelMounter, tmp_path: Path) -> None:
    left = tmp_path / "scratch/mount-left"
    left.mkdir()
    await mounter.mount_all([bind(tmp_path / "a")], left)
    await mounter.sweep()
    assert os.listdir(tmp_path / "scratch") == []


async def test_an_overlay_beyond_a_page_leaves_the_process_where_it_is(mounter: kernel.KernelMounter, target: Path, tmp_path: Path) -> None:
    lowers = [tmp_path / f"{number}/fs" for number in range(200)]
    for number, lower in enumerate(lowers):
        lower.mkdir(parents=True)
        (lower / f"file-{number}").touch()
    before = Path.cwd()
    overlay = mounts.Mount("overlay", "overlay", options=("lowerdir=" + ":".join(map(str, lowers)),))
    await mounter.mount_all([overlay], target)
    try:
        assert len(os.listdir(target)) == 200
        assert (Path.cwd(), Path("/proc/self/cwd").readlink()) == (before, before)
    finally:
        await mounter.unmount_all(target)


async def test_options_too_long_to_shorten_are_an_error(mounter: kernel.KernelMounter, target: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="too long"):
        await mounter.mount_all([mounts.Mount("tmpfs", "tmpfs", options=("x=" + "y" * 5000,))], target)
