"""The content store: the contract, and what leases, deletions and crashes do to it."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from pydock.base import digest, errors
from pydock.core import content, events, leases
from pydock.testing import contract_content

NS = "testing"


class TestContent(contract_content.StoreContract):
    """The suite over the real blobs."""

    @pytest.fixture
    def store(self, stores: Any) -> content.Store:
        found: content.Store = stores.content
        return found


async def test_the_first_write_makes_the_namespace(stores: Any) -> None:
    assert await stores.namespaces.list() == []
    await (await stores.content.writer("fresh", "ref")).close()
    assert [item.name for item in await stores.namespaces.list()] == ["fresh"]


async def test_events_tell_of_creation_and_deletion_once(stores: Any) -> None:
    name = await contract_content.put(stores.content, b"data")
    await stores.content.delete(NS, name)
    assert stores.exchange.seen == [(NS, events.ContentCreate(name, 4)), (NS, events.ContentDelete(name))]


async def test_a_lease_holds_the_ingest_and_then_the_blob(stores: Any) -> None:
    await stores.leases.create(NS, leases.Lease("l"))
    writer = await stores.content.writer(NS, "ref", lease="l")
    assert await stores.leases.resources(NS, "l") == [leases.Resource("ref", "ingests")]
    await writer.write(b"data")
    name = await writer.commit(0, "", {})
    assert await stores.leases.resources(NS, "l") == [leases.Resource(name, "content")]
    await stores.leases.create(NS, leases.Lease("other"))
    with pytest.raises(errors.AlreadyExists):
        await stores.content.writer(NS, "again", 4, name, lease="other")
    assert await stores.leases.resources(NS, "other") == [leases.Resource(name, "content")]


async def test_a_lease_that_is_not_there_is_told(stores: Any) -> None:
    with pytest.raises(errors.NotFound, match=r"^lease does not exist: not found$"):
        await stores.content.writer(NS, "ref", lease="nope")
    assert await stores.content.statuses(NS) == []


async def test_a_shared_writer_keeps_the_bytes_and_its_ref(stores: Any) -> None:
    name = await contract_content.put(stores.content, b"data", "one")
    writer = await stores.content.writer("two", "ref", 4, name)
    with pytest.raises(errors.Unavailable, match="locked"):
        await stores.content.writer("two", "ref", 4, name)
    await stores.content.delete("one", name)
    assert not await stores.content.remove_bytes(name)
    assert await writer.commit(4, name, {}) == name
    assert await contract_content.read(stores.content, name, "two") == b"data"


async def test_a_shared_writer_that_is_closed_lets_go(stores: Any) -> None:
    name = await contract_content.put(stores.content, b"data", "one")
    writer = await stores.content.writer("two", "ref", 4, name)
    await writer.close()
    await writer.close()
    with pytest.raises(errors.FailedPrecondition, match="is closed"):
        await writer.commit(4, name, {})
    await stores.content.delete("one", name)
    assert await stores.content.remove_bytes(name)
    with pytest.raises(errors.NotFound):
        await stores.blobs.info(name)


async def test_a_shared_writer_checks_size_and_digest_too(stores: Any) -> None:
    name = await contract_content.put(stores.content, b"data", "one")
    with pytest.raises(errors.FailedPrecondition, match="failed size validation: 4 != 5"):
        await stores.content.writer("two", "ref", 5, name)
    for size, expected in ((5, name), (4, digest.EMPTY)):
        writer = await stores.content.writer("two", "ref", 0, name)
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit(size, expected, {})
    assert await contract_content.seen(stores.content, "two") == []


async def test_a_shared_writer_that_begins_anew_writes_as_usual(stores: Any) -> None:
    name = await contract_content.put(stores.content, b"data", "one")
    writer = await stores.content.writer("two", "ref", 4, name)
    await writer.truncate(0)
    assert writer.status().offset == 0
    await writer.write(b"data")
    assert writer.offset == 4
    assert await writer.commit(4, name, {}) == name
    assert await contract_content.read(stores.content, name, "two") == b"data"


async def test_bytes_that_come_while_they_are_deleted_are_not_lost(stores: Any) -> None:
    """A commit and the removal of the same bytes, in all orders the lock allows."""
    for _ in range(20):
        name = await contract_content.put(stores.content, b"data", "one")
        await stores.content.delete("one", name)
        await asyncio.gather(stores.content.remove_bytes(name), contract_content.put(stores.content, b"data", "two"))
        assert await contract_content.read(stores.content, name, "two") == b"data"
        await stores.content.delete("two", name)
        await stores.content.remove_bytes(name)


async def test_a_row_that_could_not_be_written_leaves_the_bytes_to_share(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise errors.ResourceExhausted("no space left on device")

    writer = await stores.content.writer(NS, "ref", 4)
    await writer.write(b"data")
    name = digest.compute(b"data")
    monkeypatch.setattr(stores.database, "change", fail)
    with pytest.raises(errors.ResourceExhausted):
        await writer.commit(4, name, {})
    monkeypatch.undo()
    assert await contract_content.seen(stores.content) == []
    again = await stores.content.writer(NS, "ref", 4, name)
    assert await again.commit(4, name, {}) == name


async def test_what_was_committed_is_there_after_a_restart(opener: Any) -> None:
    async with opener() as stores:
        name = await contract_content.put(stores.content, b"data", key="value")
        before = await stores.content.info(NS, name)
        writer = await stores.content.writer(NS, "half", 10)
        await writer.write(b"half")
        await writer.close()
    async with opener() as stores:
        assert await stores.content.info(NS, name) == before
        assert dataclasses.astuple(await stores.content.status(NS, "half"))[:3] == ("half", 4, 10)
