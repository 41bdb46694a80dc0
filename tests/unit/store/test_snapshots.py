"""Snapshots per namespace: keys, parents, labels, leases, and what failures leave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pydock.base import errors
from pydock.core import events, leases, snapshots

NS = "testing"
O = "overlayfs"  # noqa: E741 - short, as it is in every line


def prepare(key: str, parent: str = "", lease: str = "", **labels: str) -> snapshots.Preparation:
    return snapshots.Preparation(key, parent, labels, lease)


async def chain(stores: Any, *names: str) -> None:
    parent = ""
    for name in names:
        await stores.snapshots.prepare(NS, O, prepare(f"to-{name}", parent))
        await stores.snapshots.commit(NS, O, snapshots.Commitment(name, f"to-{name}"))
        parent = name


async def keys(stores: Any, *filters: str, ns: str = NS) -> list[str]:
    return [info.name async for info in stores.snapshots.walk(ns, O, filters)]


async def test_a_snapshot_is_prepared_committed_viewed_and_removed(stores: Any) -> None:
    found = await stores.snapshots.prepare(NS, O, prepare("key", label="x"))
    assert found == await stores.snapshots.mounts(NS, O, "key")
    assert (await stores.snapshots.stat(NS, O, "key")).kind is snapshots.Kind.ACTIVE
    await stores.snapshots.commit(NS, O, snapshots.Commitment("name", "key", {"l": "m"}))
    info = await stores.snapshots.stat(NS, O, "name")
    assert (info.kind, info.parent, info.labels) == (snapshots.Kind.COMMITTED, "", {"l": "m"})
    await stores.snapshots.view(NS, O, prepare("view", "name"))
    assert (await stores.snapshots.stat(NS, O, "view")).kind is snapshots.Kind.VIEW
    assert await stores.snapshots.usage(NS, O, "name") == snapshots.Usage(4096, 1)
    await stores.snapshots.remove(NS, O, "view")
    await stores.snapshots.remove(NS, O, "name")
    assert await keys(stores) == []
    assert [event for _, event in stores.exchange.seen] == [
        events.SnapshotPrepare("key", "", O),
        events.SnapshotCommit("key", "name", O),
        events.SnapshotPrepare("view", "name", O),
        events.SnapshotRemove("view", O),
        events.SnapshotRemove("name", O),
    ]


async def test_no_name_means_the_default_snapshotter_and_a_wrong_one_is_told(stores: Any) -> None:
    await stores.snapshots.prepare(NS, "", prepare("key"))
    assert await keys(stores) == ["key"]
    assert stores.snapshots.names() == ["overlayfs", "native"]
    with pytest.raises(errors.InvalidArgument, match=r"^snapshotter not loaded: xyz: invalid argument$"):
        await stores.snapshots.stat(NS, "xyz", "key")
    with pytest.raises(errors.InvalidArgument, match="not loaded"):
        [info async for info in stores.snapshots.walk(NS, "xyz")]


async def test_what_is_not_there_is_not_found_in_the_words_of_containerd(stores: Any) -> None:
    service = stores.snapshots
    calls = [
        service.stat(NS, O, "nope"),
        service.mounts(NS, O, "nope"),
        service.usage(NS, O, "nope"),
        service.remove(NS, O, "nope"),
        service.update(NS, O, snapshots.Info("nope", snapshots.Kind.UNKNOWN)),
        service.commit(NS, O, snapshots.Commitment("name", "nope")),
    ]
    for call in calls:
        with pytest.raises(errors.NotFound, match=r"^snapshot nope does not exist: not found$"):
            await call
    with pytest.raises(errors.NotFound, match=r"^parent snapshot nope does not exist: not found$"):
        await service.prepare(NS, O, prepare("key", "nope"))
    assert stores.backend.infos == {}


async def test_a_key_or_name_is_taken_once(stores: Any) -> None:
    await chain(stores, "name")
    await stores.snapshots.prepare(NS, O, prepare("key"))
    for call in (
        stores.snapshots.prepare(NS, O, prepare("key")),
        stores.snapshots.view(NS, O, prepare("key")),
    ):
        with pytest.raises(errors.AlreadyExists, match=r'^snapshot "key": already exists$'):
            await call
    for key in ("key", "nope"):
        with pytest.raises(errors.AlreadyExists, match=r'^snapshot "name": already exists$'):
            await stores.snapshots.commit(NS, O, snapshots.Commitment("name", key))
    with pytest.raises(errors.AlreadyExists, match=r'^target snapshot "name": already exists$'):
        await stores.snapshots.prepare(NS, O, snapshots.Preparation("other", labels={snapshots.REF_LABEL: "name"}))
    assert await keys(stores) == ["key", "name"]


async def test_of_many_that_take_one_key_one_wins(stores: Any) -> None:
    calls = [stores.snapshots.prepare(NS, O, prepare("key")) for _ in range(5)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(each, errors.AlreadyExists) for each in results) == 4
    assert len(stores.backend.infos) == 1


async def test_only_what_is_committed_is_a_parent_and_it_stays_while_it_is_one(stores: Any) -> None:
    await chain(stores, "one", "two")
    with pytest.raises(errors.FailedPrecondition, match=r"^cannot remove snapshot with child: failed precondition$"):
        await stores.snapshots.remove(NS, O, "one")
    await stores.snapshots.prepare(NS, O, prepare("active", "two"))
    with pytest.raises(errors.InvalidArgument, match='parent "active" is not committed snapshot'):
        await stores.snapshots.prepare(NS, O, prepare("x", "active"))
    for key in ("active", "two", "one"):
        await stores.snapshots.remove(NS, O, key)


async def test_committed_ones_have_no_mounts_and_views_are_not_committed(stores: Any) -> None:
    await chain(stores, "name")
    await stores.snapshots.view(NS, O, prepare("view", "name"))
    for call in (
        stores.snapshots.mounts(NS, O, "name"),
        stores.snapshots.commit(NS, O, snapshots.Commitment("n2", "view")),
        stores.snapshots.commit(NS, O, snapshots.Commitment("n2", "name")),
    ):
        with pytest.raises(errors.FailedPrecondition):
            await call
    assert await keys(stores) == ["name", "view"]


async def test_namespaces_have_keys_of_their_own(stores: Any) -> None:
    await stores.snapshots.prepare("one", O, prepare("key"))
    await stores.snapshots.prepare("two", O, prepare("key"))
    await stores.snapshots.remove("one", O, "key")
    assert (await keys(stores, ns="one"), await keys(stores, ns="two")) == ([], ["key"])


async def test_labels_are_masked_and_only_those_for_snapshotters_are_passed_on(stores: Any) -> None:
    passed = {"containerd.io/snapshot/x": "1", snapshots.REF_LABEL: "target"}
    await stores.snapshots.prepare(NS, O, snapshots.Preparation("key", labels={"mine": "0", **passed}))
    (below,) = stores.backend.infos.values()
    assert below.labels == passed
    info = snapshots.Info("key", snapshots.Kind.UNKNOWN, labels={"containerd.io/snapshot/x": "2", "new": "3"})
    changed = await stores.snapshots.update(NS, O, info, ["labels.containerd.io/snapshot/x", "labels.mine"])
    assert changed.labels == {"containerd.io/snapshot/x": "2", snapshots.REF_LABEL: "target"}
    assert changed == await stores.snapshots.stat(NS, O, "key")
    assert stores.backend.infos[below.name].labels == changed.labels
    with pytest.raises(errors.InvalidArgument, match='cannot update "kind" field on snapshot "key"'):
        await stores.snapshots.update(NS, O, info, ["kind"])
    with pytest.raises(errors.InvalidArgument, match=r"info\.Labels: label key and value length"):
        await stores.snapshots.prepare(NS, O, prepare("x", a="b" * 5000))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kind==committed", ["one", "two"]),
        ("kind==active", ["a"]),
        ("kind==view", ["v"]),
        ("kind==Committed", []),
        ("name==two", ["two"]),
        ("parent==one", ["two"]),
        ("parent", ["a", "one", "two", "v"]),
        ("labels.l==m", ["a"]),
    ],
)
async def test_snapshots_are_filtered_by_the_fields_containerd_has(stores: Any, text: str, found: list[str]) -> None:
    await chain(stores, "one", "two")
    await stores.snapshots.prepare(NS, O, prepare("a", "two", l="m"))
    await stores.snapshots.view(NS, O, prepare("v", "two"))
    assert await keys(stores, text) == found


async def test_a_lease_holds_the_key_and_then_the_name(stores: Any) -> None:
    await stores.leases.create(NS, leases.Lease("l"))
    await stores.snapshots.prepare(NS, O, prepare("key", lease="l"))
    assert await stores.leases.resources(NS, "l") == [leases.Resource("key", "snapshots/overlayfs")]
    await stores.snapshots.commit(NS, O, snapshots.Commitment("name", "key", lease="l"))
    assert await stores.leases.resources(NS, "l") == [leases.Resource("name", "snapshots/overlayfs")]
    with pytest.raises(errors.NotFound, match="lease does not exist"):
        await stores.snapshots.prepare(NS, O, prepare("other", lease="nope"))


async def test_a_snapshotter_that_fails_leaves_no_record_and_the_key_free(stores: Any) -> None:
    stores.backend.fail = errors.ResourceExhausted("no space left on device")
    with pytest.raises(errors.ResourceExhausted):
        await stores.snapshots.prepare(NS, O, prepare("key"))
    assert await keys(stores) == []
    await stores.snapshots.prepare(NS, O, prepare("key"))
    stores.backend.fail = errors.Internal("input/output error")
    with pytest.raises(errors.Internal):
        await stores.snapshots.commit(NS, O, snapshots.Commitment("name", "key"))
    await stores.snapshots.commit(NS, O, snapshots.Commitment("name", "key"))
    assert stores.snapshots.in_flight == set()


async def test_a_record_that_cannot_be_written_gives_its_files_to_the_collector(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise errors.ResourceExhausted("no space left on device")

    monkeypatch.setattr(stores.database, "change", fail)
    with pytest.raises(errors.ResourceExhausted):
        await stores.snapshots.prepare(NS, O, prepare("key"))
    monkeypatch.undo()
    (backend_key,) = stores.backend.infos
    assert stores.waste.next_snapshot() == (O, backend_key)


async def test_a_parent_that_goes_meanwhile_fails_the_child(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await chain(stores, "one")
    real = stores.backend.prepare

    async def slow(*args: Any) -> Any:
        made = await real(*args)
        await stores.snapshots.remove(NS, O, "one")
        return made

    monkeypatch.setattr(stores.backend, "prepare", slow)
    with pytest.raises(errors.NotFound, match="parent snapshot one does not exist"):
        await stores.snapshots.prepare(NS, O, prepare("key", "one"))
    assert await keys(stores) == []


async def test_a_snapshotter_that_does_not_rebase_says_so(stores: Any) -> None:
    with pytest.raises(errors.Unimplemented):
        await stores.snapshots.rebase(NS, O, snapshots.Commitment("n", "k"), "")
    with pytest.raises(errors.Unimplemented):
        await stores.snapshots.settle(NS, O)


class Rebasing:
    """A snapshotter in memory that also rebases."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.settled = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def rebase(self, name: str, key: str, parent: str, labels: dict[str, str]) -> None:
        await self.inner.commit(name, key, labels)
        if parent:
            await self.inner.stat(parent)

    async def settle(self) -> None:
        self.settled += 1


async def test_layers_are_unpacked_side_by_side_and_rebased_in_order(stores: Any) -> None:
    rebasing = Rebasing(stores.backend)
    stores.snapshots.backends["overlayfs"] = rebasing
    for key in ("a", "b"):
        await stores.snapshots.prepare(NS, O, snapshots.Preparation(key, labels={snapshots.REBASE_LABEL: "true"}))
    assert all(info.labels == {snapshots.REBASE_LABEL: "true"} for info in stores.backend.infos.values())
    await stores.snapshots.rebase(NS, O, snapshots.Commitment("one", "a"), "")
    await stores.snapshots.rebase(NS, O, snapshots.Commitment("two", "b"), "one")
    await stores.snapshots.settle(NS, O)
    assert rebasing.settled == 1
    info = await stores.snapshots.stat(NS, O, "two")
    assert (info.kind, info.parent) == (snapshots.Kind.COMMITTED, "one")
