"""Named sets of mounts in the real mount table, over restarts of their manager."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pydock.base import errors
from pydock.core import activations, mounts
from pydock_plugins.mounts import kernel, manager

pytestmark = pytest.mark.root

TMPFS = mounts.Mount("tmpfs", "tmpfs", options=("size=1m", "mode=0755"))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "state"
    place.mkdir()
    yield place
    assert [point for point in manager.mount_points() if point.startswith(str(tmp_path))] == []


@contextlib.asynccontextmanager
async def opened(state: Path) -> AsyncIterator[manager.MountManager]:
    async with manager.opened(state, kernel.KernelMounter(state)) as running:
        yield running


def asked(name: str, *wanted: mounts.Mount, **labels: str) -> activations.Request:
    return activations.Request(name, wanted, labels, temporary=True)


async def test_a_set_is_mounted_listed_labelled_and_undone(state: Path) -> None:
    source = state / "source"
    source.mkdir()
    async with opened(state) as running:
        info = await running.activate("ns", asked("one", TMPFS, mounts.Mount("bind", str(source), options=("rbind", "ro")), k="v"))
        assert [active.mount for active in info.active] == [TMPFS, mounts.Mount("bind", str(source), options=("rbind", "ro"))]
        assert {active.mount_point for active in info.active} <= manager.mount_points()
        assert info.system == (mounts.Mount("bind", info.active[-1].mount_point, options=("rbind",)),)
        assert await running.info("ns", "one") == info
        assert await running.list("ns", ["labels.k==v"]) == [info]
        assert await running.list("ns", ["name==two"]) == []
        changed = await running.update("ns", activations.ActivationInfo("one", labels={"k": "w"}), ["labels.k"])
        assert changed.labels == {"k": "w"}
        with pytest.raises(errors.InvalidArgument, match='cannot update "active" field'):
            await running.update("ns", info, ["active"])
        await running.deactivate("ns", "one")
        assert await running.list("ns") == []
        assert list((state / "sets").iterdir()) == []


async def test_names_are_of_one_namespace_and_taken_once(state: Path) -> None:
    async with opened(state) as running:
        await running.activate("ns", asked("one", TMPFS))
        with pytest.raises(errors.AlreadyExists, match='mount "one": already exists'):
            await running.activate("ns", asked("one", TMPFS))
        await running.activate("other", asked("one", TMPFS))
        await running.deactivate("ns", "one")
        for refused in (running.deactivate("ns", "one"), running.info("ns", "one")):
            with pytest.raises(errors.NotFound, match='mount "one": not found'):
                await refused
        await running.deactivate("other", "one")


async def test_a_set_of_which_one_mount_fails_leaves_nothing(state: Path) -> None:
    async with opened(state) as running:
        with pytest.raises(errors.NotFound, match="mount 1 of 2 failed"):
            await running.activate("ns", asked("one", TMPFS, mounts.Mount("bind", "/nowhere", options=("bind",))))
        with pytest.raises(errors.InvalidArgument):
            await running.activate("ns", asked("one", mounts.Mount("no-such-type", "x")))
        assert list((state / "sets").iterdir()) == []
        assert await running.list("ns") == []


@pytest.mark.parametrize("kind", ["format/overlay", "mkfs/loop/ext4", "mkdir/bind", "loop"])
async def test_a_type_that_takes_more_than_a_mount_is_refused_by_name(state: Path, kind: str) -> None:
    async with opened(state) as running:
        with pytest.raises(errors.Unimplemented, match=kind):
            await running.activate("ns", asked("one", mounts.Mount(kind, "x")))


async def test_what_a_client_can_mount_itself_is_left_to_it(state: Path) -> None:
    async with opened(state) as running:
        with pytest.raises(errors.Unimplemented):
            await running.activate("ns", activations.Request("one", [TMPFS]))


async def test_sets_survive_a_restart_and_lost_ones_are_forgotten(state: Path) -> None:
    async with opened(state) as running:
        kept = await running.activate("ns", asked("kept", TMPFS))
        lost = await running.activate("ns", asked("lost", TMPFS))
    kernel.unmount_all(Path(lost.active[0].mount_point))
    stray = state / "sets/stray/000"
    stray.mkdir(parents=True)
    kernel.mount_one(TMPFS, stray)
    async with opened(state) as running:
        assert await running.list("ns") == [kept]
        assert kept.active[0].mount_point in manager.mount_points()
        assert len(list((state / "sets").iterdir())) == 1
        await running.deactivate("ns", "kept")
