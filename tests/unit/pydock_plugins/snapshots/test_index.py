"""The snapshotters' index across restarts and host crashes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pydock.base import errors
from pydock.core import snapshots
from pydock_plugins.snapshots import index

Kind = snapshots.Kind


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.db"


def fine(chain: Sequence[int]) -> None:
    pass


async def add(nodes: index.Index, key: str, parent: str = "", *, boot: str = "") -> list[int]:
    return await nodes.add(key, index.Node(nodes.next_id(), Kind.ACTIVE, 1, 1, parent, {"key": key}, boot=boot), fine)


async def layer(nodes: index.Index, name: str, parent: str = "", *, settled: bool = True) -> None:
    await add(nodes, f"{name}-active", parent)
    await nodes.commit(name, f"{name}-active", "", {}, settled=settled)


async def test_nodes_are_there_after_a_restart_and_ids_go_on(path: Path) -> None:
    async with index.opened(path) as nodes:
        await layer(nodes, "bottom")
        await layer(nodes, "top", "bottom")
        assert await add(nodes, "active", "top") == [2, 1]
        before = dict(nodes.nodes())
    async with index.opened(path) as nodes:
        assert dict(nodes.nodes()) == before
        assert nodes.chain(nodes.get("active")) == [2, 1]
        assert nodes.next_id() == 4
        nodes.reserve([9, 7])
        assert nodes.next_id() == 10


async def test_a_node_whose_directory_cannot_be_made_is_not_added(path: Path) -> None:
    def fail(chain: Sequence[int]) -> None:
        raise OSError("no")

    async with index.opened(path) as nodes:
        with pytest.raises(OSError, match="no"):
            await nodes.add("key", index.Node(1, Kind.ACTIVE, 1, 1), fail)
        assert dict(nodes.nodes()) == {}


async def test_a_commit_may_name_the_parent_once(path: Path) -> None:
    async with index.opened(path) as nodes:
        await layer(nodes, "bottom")
        await layer(nodes, "other")
        await add(nodes, "a")
        await nodes.commit("middle", "a", "bottom", {}, settled=True)
        assert nodes.get("middle").parent == "bottom"
        await add(nodes, "lonely")
        with pytest.raises(errors.NotFound):
            await nodes.commit("top", "lonely", "nowhere", {}, settled=True)
        await add(nodes, "b", "middle")
        with pytest.raises(errors.InvalidArgument, match="cannot change parent"):
            await nodes.commit("top", "b", "other", {}, settled=True)
        await nodes.commit("top", "b", "middle", {}, settled=True)


async def test_a_crash_of_the_host_voids_what_was_not_settled_and_all_on_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with index.opened(path) as nodes:
        await layer(nodes, "kept")
        await layer(nodes, "loose", "kept", settled=False)
        await layer(nodes, "on-loose", "loose", settled=False)
        await add(nodes, "container", "on-loose")
        await add(nodes, "fine", "kept")
        assert nodes.unsettled() == {2, 3}
    async with index.opened(path) as nodes:
        assert len(nodes.nodes()) == 5, "a crash of the daemon alone voids nothing"
    (path.parent / "boot").write_text("another\n")
    monkeypatch.setattr(index, "BOOT_ID", path.parent / "boot")
    async with index.opened(path) as nodes:
        assert sorted(nodes.nodes()) == ["fine", "kept"]


async def test_settled_nodes_survive_a_crash_of_the_host(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with index.opened(path) as nodes:
        await layer(nodes, "one", settled=False)
        await nodes.settle(nodes.unsettled())
        await layer(nodes, "two", "one", settled=False)
        await layer(nodes, "three", "two", settled=True)
        assert nodes.unsettled() == set()
    (path.parent / "boot").write_text("another\n")
    monkeypatch.setattr(index, "BOOT_ID", path.parent / "boot")
    async with index.opened(path) as nodes:
        assert sorted(nodes.nodes()) == ["one", "three", "two"]


async def test_a_volatile_snapshot_is_refused_after_a_crash_of_the_host(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with index.opened(path) as nodes:
        await add(nodes, "key", boot=nodes.boot)
        assert nodes.active("key").id == 1
    (path.parent / "boot").write_text("another\n")
    monkeypatch.setattr(index, "BOOT_ID", path.parent / "boot")
    async with index.opened(path) as nodes:
        for look in (nodes.active, lambda key: nodes.check_commit("name", key)):
            with pytest.raises(errors.FailedPrecondition, match="volatile"):
                look("key")
        await nodes.remove("key")


async def test_a_size_measured_too_late_is_not_kept(path: Path) -> None:
    async with index.opened(path) as nodes:
        await layer(nodes, "name")
        await nodes.remove("name")
        await layer(nodes, "name")
        await nodes.measured("name", 1, snapshots.Usage(7, 7))
        assert nodes.get("name").size == index.UNKNOWN
        await nodes.measured("name", 2, snapshots.Usage(7, 8))
        assert (nodes.get("name").size, nodes.get("name").inodes) == (7, 8)


async def test_empty_keys_and_names_are_refused(path: Path) -> None:
    async with index.opened(path) as nodes:
        with pytest.raises(errors.InvalidArgument):
            nodes.check_new("", "")
        with pytest.raises(errors.InvalidArgument):
            nodes.check_commit("", "key")
