"""What every `content.Store` must do, as a test class to inherit from.

A store's test module writes ``class TestMine(contract_content.StoreContract)`` with a fixture ``store`` (empty).
Source: the invariants of containerd's content test suite: 12 cases of one namespace and 4 of two.
"""

from __future__ import annotations

import os

import pytest

from pydock.base import clock, digest, errors
from pydock.core import content

NS = "testing"


def some_bytes(size: int = 256) -> tuple[bytes, str]:
    """Return fresh random bytes and their digest."""
    data = os.urandom(size)
    return data, digest.compute(data)


async def put(store: content.Store, data: bytes, ns: str = NS, **labels: str) -> str:
    """Store ``data`` and return its digest."""
    writer = await store.writer(ns, f"put-{digest.compute(data)}", len(data))
    await writer.write(data)
    return await writer.commit(len(data), digest.compute(data), labels)


async def read(store: content.Store, name: str, ns: str = NS) -> bytes:
    """Return all bytes of a blob."""
    reader = await store.open(ns, name)
    try:
        return await reader.read_at(0, reader.size)
    finally:
        await reader.close()


async def seen(store: content.Store, ns: str = NS, *filters: str) -> list[str]:
    """Return the digests a namespace sees."""
    return [info.digest async for info in store.walk(ns, filters)]


class StoreContract:
    """The suite."""

    @pytest.mark.parametrize(("with_size", "with_digest"), [(False, False), (True, False), (False, True), (True, True)])
    async def test_a_blob_written_in_pieces_is_seen_under_its_digest(
        self, store: content.Store, with_size: bool, with_digest: bool
    ) -> None:
        data, name = some_bytes()
        writer = await store.writer(NS, "c1", len(data) if with_size else 0, name if with_digest else "")
        for start in range(0, 256, 64):
            assert await writer.write(data[start : start + 64]) == start + 64
        assert await writer.digest() == name
        assert await writer.commit(len(data) if with_size else 0, name if with_digest else "", {"a": "b"}) == name
        info = await store.info(NS, name)
        assert (info.digest, info.size, info.labels) == (name, 256, {"a": "b"})
        assert await read(store, name) == data
        assert list(await store.statuses(NS)) == []

    async def test_status_tells_offset_total_and_times_after_each_write(self, store: content.Store) -> None:
        data, name = some_bytes()
        before = clock.now()
        writer = await store.writer(NS, "c1", 256, name)
        for end in (64, 192, 256):
            last = clock.now()
            await writer.write(data[writer.status().offset : end])
            status = writer.status()
            assert (status.ref, status.offset, status.total, status.expected) == ("c1", end, 256, name)
            assert before <= status.started_at <= last <= status.updated_at <= clock.now()
            assert status == await store.status(NS, "c1")
            assert list(await store.statuses(NS, ["ref==c1"])) == [status]
        await writer.close()
        assert list(await store.statuses(NS, ["ref==other"])) == []

    async def test_a_ref_has_one_writer(self, store: content.Store) -> None:
        writer = await store.writer(NS, "c1")
        with pytest.raises(errors.Unavailable, match="locked"):
            await store.writer(NS, "c1")
        await writer.close()
        await (await store.writer(NS, "c1")).close()

    async def test_what_is_there_cannot_be_written_again_and_the_ref_is_free(self, store: content.Store) -> None:
        data, name = some_bytes()
        await put(store, data)
        with pytest.raises(errors.AlreadyExists, match=f"^content {name}: already exists$"):
            await store.writer(NS, "c1", len(data), name)
        writer = await store.writer(NS, "c1")
        await writer.write(data)
        with pytest.raises(errors.AlreadyExists, match=f"^content {name}: already exists$"):
            await writer.commit(0, "", {})
        with pytest.raises(errors.NotFound, match=r"^reference c1: not found$"):
            await store.status(NS, "c1")
        await (await store.writer(NS, "c1")).close()

    @pytest.mark.parametrize("mode", ["same", "truncate", "discard", "append", "reopen", "no-total"])
    async def test_an_ingest_is_resumed_where_it_was_left(self, store: content.Store, mode: str) -> None:
        data, name = some_bytes()
        writer = await store.writer(NS, "c1", 256, name)
        await writer.write(data[:100])
        await writer.close()
        if mode == "discard":
            await store.abort(NS, "c1")
        writer = await store.writer(NS, "c1", 0 if mode == "no-total" else 256, name)
        assert writer.status().offset == (0 if mode == "discard" else 100)
        if mode == "truncate":
            await writer.truncate(0)
        if mode == "reopen":
            await writer.write(data[100:200])
            await writer.close()
            writer = await store.writer(NS, "c1", 256, name)
        await writer.write(data[writer.status().offset :])
        assert await writer.commit(256, name, {}) == name
        assert await read(store, name) == data

    async def test_an_empty_blob_is_a_blob(self, store: content.Store) -> None:
        writer = await store.writer(NS, "empty")
        assert await writer.commit(0, digest.EMPTY, {}) == digest.EMPTY
        assert (await store.info(NS, digest.EMPTY)).size == 0
        assert await read(store, digest.EMPTY) == b""

    async def test_labels_are_set_masked_and_replaced(self, store: content.Store) -> None:
        data, name = some_bytes()
        await put(store, data, one="1", two="2")
        first = await store.info(NS, name)
        changed = await store.update(NS, content.Info(name, 0, labels={"two": "b", "three": "3"}), ["labels.two", "labels.one"])
        assert changed.labels == {"two": "b"}
        assert changed == await store.info(NS, name)
        assert (changed.size, changed.created_at) == (first.size, first.created_at)
        assert changed.updated_at > first.updated_at
        assert (await store.update(NS, content.Info(name, 0, labels={"x": "y"}))).labels == {"x": "y"}
        assert (await store.update(NS, content.Info(name, 0), ["labels"])).labels == {}
        with pytest.raises(errors.InvalidArgument, match=f'cannot update "size" field on content info "{name}"'):
            await store.update(NS, content.Info(name, 7), ["size"])

    async def test_a_commit_with_a_wrong_size_or_digest_fails_and_keeps_the_ingest(self, store: content.Store) -> None:
        data, name = some_bytes()
        other = some_bytes()[1]
        writer = await store.writer(NS, "c1")
        await writer.write(data)
        with pytest.raises(errors.FailedPrecondition, match=r'"c1" failed size validation: 256 != 255'):
            await writer.commit(255, name, {})
        for expected in (other, "sha512:" + "0" * 128):
            writer = await store.writer(NS, "c1")
            with pytest.raises(errors.FailedPrecondition, match=r"unexpected commit digest"):
                await writer.commit(256, expected, {})
        assert (await store.status(NS, "c1")).offset == 256
        assert await seen(store) == []
        writer = await store.writer(NS, "c1")
        assert await writer.commit(256, name, {}) == name

    async def test_a_commit_with_labels_out_of_bounds_fails_and_keeps_the_ingest(self, store: content.Store) -> None:
        data, name = some_bytes()
        writer = await store.writer(NS, "c1")
        await writer.write(data)
        with pytest.raises(errors.InvalidArgument, match=r"info\.Labels: label key and value length"):
            await writer.commit(256, name, {"k": "v" * 5000})
        assert await (await store.writer(NS, "c1")).commit(256, name, {}) == name

    async def test_what_is_deleted_or_was_never_there_is_not_found(self, store: content.Store) -> None:
        data, name = some_bytes()
        await put(store, data)
        await store.delete(NS, name)
        missing = rf"^content digest {name}: not found$"
        for call in (store.info(NS, name), store.open(NS, name), store.delete(NS, name), store.update(NS, content.Info(name, 0))):
            with pytest.raises(errors.NotFound, match=missing):
                await call
        with pytest.raises(errors.NotFound, match=r"^reference nope: not found$"):
            await store.status(NS, "nope")
        with pytest.raises(errors.NotFound, match=r"^reference nope: not found$"):
            await store.abort(NS, "nope")

    async def test_the_walk_is_in_order_and_filtered(self, store: content.Store) -> None:
        names = sorted([await put(store, some_bytes()[0], number=str(number)) for number in range(5)])
        assert await seen(store) == names
        assert await seen(store, NS, f"digest=={names[3]}") == [names[3]]
        assert len(await seen(store, NS, "labels.number==2", "labels.number==4")) == 2
        assert await seen(store, NS, "labels.none") == []
        with pytest.raises(errors.InvalidArgument, match="parse error"):
            await seen(store, NS, "digest=")

    async def test_bad_refs_and_digests_are_refused(self, store: content.Store) -> None:
        for ref in ("", "a\0b", "x" * 2000):
            with pytest.raises(errors.InvalidArgument):
                await store.writer(NS, ref)
        with pytest.raises(errors.InvalidArgument):
            await store.writer(NS, "c1", 0, "sha256:../../etc/passwd")
        assert list(await store.statuses(NS)) == []

    async def test_two_namespaces_share_bytes_but_neither_sight_nor_labels(self, store: content.Store) -> None:
        data, name = some_bytes()
        await put(store, data, "one", mine="1")
        assert await seen(store, "two") == []
        with pytest.raises(errors.NotFound):
            await store.open("two", name)
        writer = await store.writer("two", "ref", len(data), name)
        assert writer.status().offset == len(data)
        assert await writer.commit(len(data), name, {"mine": "2"}) == name
        assert await read(store, name, "two") == data
        assert (await store.info("one", name)).labels == {"mine": "1"}
        assert (await store.info("two", name)).labels == {"mine": "2"}

    async def test_bytes_stay_while_one_namespace_sees_them(self, store: content.Store) -> None:
        data, name = some_bytes()
        await put(store, data, "one")
        await put(store, data, "two")
        await store.delete("one", name)
        assert await read(store, name, "two") == data
        with pytest.raises(errors.NotFound):
            await store.info("one", name)

    async def test_appending_to_shared_bytes_makes_a_blob_of_its_own(self, store: content.Store) -> None:
        data, name = some_bytes()
        await put(store, data, "one")
        writer = await store.writer("two", "ref", 0, name)
        assert await writer.write(b"more") == len(data) + 4
        longer = digest.compute(data + b"more")
        assert await writer.commit(0, longer, {}) == longer
        assert await read(store, longer, "two") == data + b"more"
        assert await seen(store, "two") == [longer]

    async def test_refs_of_two_namespaces_are_strangers(self, store: content.Store) -> None:
        one, two = await store.writer("one", "ref"), await store.writer("two", "ref")
        await one.write(b"one")
        await two.write(b"two!")
        assert (await store.status("one", "ref")).offset == 3
        assert (await store.status("two", "ref")).offset == 4
        await one.close()
        await store.abort("one", "ref")
        assert await two.commit(0, "", {}) == digest.compute(b"two!")
        assert await seen(store, "one") == []

    async def test_a_commit_of_what_another_namespace_brought_meanwhile_succeeds(self, store: content.Store) -> None:
        data, name = some_bytes()
        one, two = await store.writer("one", "ref", 0, name), await store.writer("two", "ref", 0, name)
        for writer in (one, two):
            await writer.write(data)
        assert await one.commit(0, name, {}) == name
        assert await two.commit(0, name, {}) == name
        assert await seen(store, "one") == await seen(store, "two") == [name]
