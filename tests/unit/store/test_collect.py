"""The collector: frees what nobody reaches, whatever happened before, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from pydock.base import clock, errors
from pydock.core import garbage, images, leases, snapshots
from pydock.oci import image
from pydock.store import collect, references
from pydock.testing import contract_content, memory

NS = "testing"
O = "overlayfs"  # noqa: E741


async def an_image(stores: Any, name: str = "i", ns: str = NS) -> tuple[str, str]:
    """Make an image of a manifest and a layer; return their digests."""
    layer = await contract_content.put(stores.content, f"layer of {name}".encode(), ns)
    label = {"containerd.io/gc.ref.content.l.0": layer}
    manifest = await contract_content.put(stores.content, f"manifest of {name}".encode(), ns, **label)
    await stores.images.create(ns, images.Image(name, image.Descriptor("m", manifest, 1)))
    return manifest, layer


async def bytes_of(stores: Any) -> set[str]:
    return {info.digest async for info in stores.blobs.walk()}


async def test_what_an_image_reaches_is_kept_and_the_rest_goes(stores: Any) -> None:
    kept = await an_image(stores)
    stray = await contract_content.put(stores.content, b"stray")
    assert await stores.collector.collect() == garbage.Collected(blobs=1)
    assert await bytes_of(stores) == set(kept)
    assert await contract_content.seen(stores.content) == sorted(kept)
    with pytest.raises(errors.NotFound):
        await stores.content.info(NS, stray)
    assert await stores.collector.collect() == garbage.Collected()


async def test_what_an_image_alone_reached_goes_with_it(stores: Any) -> None:
    await an_image(stores)
    kept = await an_image(stores, "j")
    await stores.images.delete(NS, "i")
    assert (await stores.collector.collect()).blobs == 2
    assert await bytes_of(stores) == set(kept)


async def test_bytes_stay_for_the_other_namespace(stores: Any) -> None:
    digests = await an_image(stores, ns="one")
    await an_image(stores, ns="two")
    await stores.images.delete("one", "i")
    assert (await stores.collector.collect()).blobs == 2
    assert await bytes_of(stores) == set(digests)
    assert await contract_content.seen(stores.content, "one") == []


async def test_snapshots_go_children_first_with_their_files(stores: Any) -> None:
    parent = ""
    for name in ("a", "b", "c"):
        await stores.snapshots.prepare(NS, O, snapshots.Preparation(f"to-{name}", parent))
        await stores.snapshots.commit(NS, O, snapshots.Commitment(name, f"to-{name}"))
        parent = name
    await stores.snapshots.prepare(NS, O, snapshots.Preparation("work", "a", {references.ROOT: "2026"}))
    assert (await stores.collector.collect()).snapshots == 2
    assert sorted(info.name.rpartition("/")[2] for info in stores.backend.infos.values()) == ["a", "work"]


async def test_the_last_lease_gone_with_sync_frees_at_once(stores: Any) -> None:
    await stores.leases.create(NS, leases.Lease("l"))
    writer = await stores.content.writer(NS, "ref", lease="l")
    await writer.write(b"data")
    name = await writer.commit(0, "", {})
    await stores.collector.collect()
    assert await bytes_of(stores) == {name}
    await stores.leases.delete(NS, "l", sync=True)
    assert await bytes_of(stores) == set()


async def test_an_expired_lease_is_an_object_until_it_is_collected(stores: Any) -> None:
    label = {leases.EXPIRE_LABEL: clock.format_rfc3339(clock.now() - clock.SECOND)}
    await stores.leases.create(NS, leases.Lease("l", label))
    assert len(await stores.leases.list(NS)) == 1
    assert (await stores.collector.collect()).leases == 1
    assert await stores.leases.list(NS) == []


async def test_a_pass_of_its_own_accord_spares_what_is_young(stores: Any) -> None:
    await contract_content.put(stores.content, b"young")
    await stores.snapshots.prepare(NS, O, snapshots.Preparation("x", labels={snapshots.REF_LABEL: "chain"}))
    assert await stores.collector.collect(grace=60) == garbage.Collected()
    assert await stores.collector.collect() == garbage.Collected(blobs=1, snapshots=1)


async def test_files_a_crash_left_without_a_record_are_found(stores: Any) -> None:
    await an_image(stores)
    await stores.backend.prepare("testing/1/lost", "", {})
    await stores.backend.commit("testing/2/parent", "testing/1/lost", {})
    await stores.backend.prepare("testing/3/child", "testing/2/parent", {})
    writer = await stores.blobs.writer("elsewhere")
    await writer.write(b"orphan")
    orphan = await writer.commit(0, "", {})
    await stores.collector.collect()
    assert stores.backend.infos == {}
    assert orphan not in await bytes_of(stores)


async def test_nothing_is_removed_when_the_records_are_gone(stores: Any) -> None:
    await stores.backend.prepare("testing/1/s", "", {})
    writer = await stores.blobs.writer("testing/r")
    await writer.write(b"data")
    name = await writer.commit(0, "", {})
    assert await stores.collector.collect() == garbage.Collected()
    assert (await bytes_of(stores), list(stores.backend.infos)) == ({name}, ["testing/1/s"])


async def test_what_is_being_made_is_left_alone(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await an_image(stores)
    real = stores.backend.prepare

    async def prepare(*args: Any) -> Any:
        made = await real(*args)
        await stores.collector.collect()
        return made

    monkeypatch.setattr(stores.backend, "prepare", prepare)
    await stores.snapshots.prepare(NS, O, snapshots.Preparation("key"))
    assert len(stores.backend.infos) == 1
    assert await stores.snapshots.mounts(NS, O, "key")


async def test_a_pull_under_a_lease_survives_passes_at_any_moment(stores: Any) -> None:
    await stores.leases.create(NS, leases.Lease("pull"))

    async def pull() -> list[str]:
        made = []
        for number in range(20):
            writer = await stores.content.writer(NS, f"layer-{number}", lease="pull")
            await writer.write(f"layer {number}".encode())
            made.append(await writer.commit(0, "", {}))
        return made

    async def passes() -> None:
        for _ in range(20):
            await stores.collector.collect()

    made, _ = await asyncio.gather(pull(), passes())
    assert await bytes_of(stores) == set(made)
    assert await contract_content.seen(stores.content) == sorted(made)


async def test_an_old_ingest_that_nobody_holds_is_thrown_away(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await an_image(stores)
    await stores.leases.create(NS, leases.Lease("l"))
    for ref, lease in (("held", "l"), ("free", ""), ("open", "")):
        writer = await stores.content.writer(NS, ref, lease=lease)
        if ref != "open":
            await writer.close()
    await stores.collector.collect()
    assert len(await stores.content.statuses(NS)) == 3
    monkeypatch.setattr(collect, "INGEST_AGE", -clock.SECOND)
    await stores.collector.collect()
    assert [status.ref for status in await stores.content.statuses(NS)] == ["held", "open"]


async def test_dropped_files_go_in_the_background(stores: Any) -> None:
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(stores.collector.run_quick())
        await stores.snapshots.prepare(NS, O, snapshots.Preparation("key"))
        await stores.snapshots.remove(NS, O, "key")
        name = await contract_content.put(stores.content, b"data")
        await stores.content.delete(NS, name)
        while stores.backend.infos or await bytes_of(stores):
            await asyncio.sleep(0)
        loop.cancel()


async def test_deletions_lead_to_a_pass(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DELAY", "FIRST_DELAY", "GRACE"):
        monkeypatch.setattr(collect, name, 0.001)
    digests = await an_image(stores)
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(stores.collector.run_passes())
        await stores.images.delete(NS, "i")
        while set(digests) & await bytes_of(stores):
            await asyncio.sleep(0.001)
        loop.cancel()


async def test_records_of_snapshots_whose_files_a_power_cut_took_are_forgotten(stores: Any) -> None:
    for key in ("kept", "lost"):
        await stores.snapshots.prepare(NS, O, snapshots.Preparation(key))
    del stores.backend.infos[next(key for key in stores.backend.infos if key.endswith("lost"))]
    assert await collect.forget_lost(stores.database, {O: stores.backend}) == 1
    assert await collect.forget_lost(stores.database, {}) == 0
    assert [info.name async for info in stores.snapshots.walk(NS, O)] == ["kept"]


class Away(memory.MemorySnapshotter):
    """A snapshotter in another process that is not there."""

    async def walk(self, filters: Iterable[str] = ()) -> AsyncIterator[snapshots.Info]:
        """Fail as a lost connection does."""
        raise errors.Unavailable("nobody answers")
        yield


async def test_a_snapshotter_that_is_away_loses_no_record_and_stops_no_pass(stores: Any) -> None:
    await stores.snapshots.prepare(NS, O, snapshots.Preparation("active"))
    away = Away()
    stores.snapshots.backends["away"] = away
    stray = await contract_content.put(stores.content, b"stray")
    assert await collect.forget_lost(stores.database, {O: away}) == 0
    assert (await stores.snapshots.stat(NS, O, "active")).kind is snapshots.Kind.ACTIVE
    assert (await stores.collector.collect()).blobs == 1
    assert stray not in await bytes_of(stores)


async def test_passes_are_counted(stores: Any) -> None:
    await an_image(stores)
    await contract_content.put(stores.content, b"stray")
    await stores.collector.collect()
    stores.content.blobs.delete = None  # a fault
    await contract_content.put(stores.content, b"another")
    with pytest.raises(TypeError):
        await stores.collector.collect()
    history = stores.collector.history
    assert (history.passes, history.failures, history.blobs) == (1, 1, 1)
    assert history.seconds > 0
