"""What every `content.Blobs` must do, as a test class to inherit from.

A backend's test module writes ``class TestMine(contract_blobs.BlobsContract)`` with a fixture ``blobs`` (empty) and a fixture ``restart``:
a call that drops all the process knew and returns the same storage opened again.
Source: the invariants of containerd's content test suite (its 12 local cases), stated for bytes without labels.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable

import pytest

from pydock.base import clock, digest, errors
from pydock.core import content

Restart = Callable[[], Awaitable[content.Blobs]]


def some_bytes(size: int = 256) -> tuple[bytes, str]:
    """Return fresh random bytes and their digest."""
    data = os.urandom(size)
    return data, digest.compute(data)


async def put(blobs: content.Blobs, data: bytes, ref: str = "put") -> str:
    """Store ``data`` and return its digest."""
    writer = await blobs.writer(ref, len(data))
    await writer.write(data)
    return await writer.commit(len(data), digest.compute(data), {})


async def read(blobs: content.Blobs, name: str) -> bytes:
    """Return all bytes of a blob."""
    reader = await blobs.open(name)
    try:
        return await reader.read_at(0, reader.size)
    finally:
        await reader.close()


async def locked(blobs: content.Blobs, ref: str) -> None:
    """Check that ``ref`` has a writer."""
    with pytest.raises(errors.Unavailable, match=f"^ref {ref} locked for "):
        await blobs.writer(ref)


class BlobsContract:
    """The suite."""

    @pytest.mark.parametrize(("with_size", "with_digest"), [(False, False), (True, False), (False, True), (True, True)])
    async def test_a_blob_written_in_pieces_has_its_digest(self, blobs: content.Blobs, with_size: bool, with_digest: bool) -> None:
        data, name = some_bytes()
        writer = await blobs.writer("c1", len(data) if with_size else 0, name if with_digest else "")
        for start in range(0, len(data), 32):
            assert await writer.write(data[start : start + 32]) == start + 32
        assert await writer.digest() == name
        assert await writer.commit(0, "", {}) == name
        assert (await blobs.info(name)).size == len(data)
        assert await read(blobs, name) == data
        assert await blobs.statuses() == []

    async def test_status_tells_offset_total_and_times_after_each_write(self, blobs: content.Blobs) -> None:
        data, name = some_bytes()
        before = clock.now()
        writer = await blobs.writer("c1", len(data), name)
        started = clock.now()
        for end in (64, 192, 256):
            last = clock.now()
            await writer.write(data[writer.status().offset : end])
            status = writer.status()
            assert (status.ref, status.offset, status.total, status.expected) == ("c1", end, 256, name)
            assert before <= status.started_at <= started
            assert last <= status.updated_at <= clock.now()
            assert status == await blobs.status("c1")
            assert list(await blobs.statuses()) == [status]
            assert await writer.digest() == digest.compute(data[:end])
        await writer.close()

    @pytest.mark.parametrize("given", [True, False])
    async def test_commit_of_what_exists_says_so_and_frees_the_ref(self, blobs: content.Blobs, given: bool) -> None:
        data, name = some_bytes()
        await put(blobs, data)
        writer = await blobs.writer("again")
        await writer.write(data)
        with pytest.raises(errors.AlreadyExists, match=f"^content {name}: already exists$"):
            await writer.commit(len(data), name if given else "", {})
        assert await blobs.statuses() == []
        fresh = await blobs.writer("again")
        assert fresh.status().offset == 0
        await fresh.close()

    async def test_a_writer_for_a_digest_that_exists_is_refused(self, blobs: content.Blobs) -> None:
        data, name = some_bytes()
        await put(blobs, data)
        with pytest.raises(errors.AlreadyExists, match=f"^content {name}: already exists$"):
            await blobs.writer("again", expected=name)

    async def test_a_ref_has_one_writer_until_it_is_closed(self, blobs: content.Blobs) -> None:
        writer = await blobs.writer("c1")
        await locked(blobs, "c1")
        await writer.close()
        await writer.close()
        await (await blobs.writer("c1")).close()

    async def test_a_commit_with_a_wrong_digest_or_size_keeps_the_ingest_for_a_right_one(self, blobs: content.Blobs) -> None:
        data, name = some_bytes()
        other = some_bytes()[1]
        writer = await blobs.writer("c1")
        await writer.write(data)
        with pytest.raises(errors.FailedPrecondition, match=f"^unexpected commit digest {name}, expected {other}: failed precondition$"):
            await writer.commit(len(data), other, {})
        writer = await blobs.writer("c1")
        await locked(blobs, "c1")
        with pytest.raises(errors.FailedPrecondition, match=r"^unexpected commit size 256, expected 252: failed precondition$"):
            await writer.commit(252, name, {})
        writer = await blobs.writer("c1")
        assert writer.status().offset == 256
        assert await writer.commit(256, name, {}) == name
        assert await read(blobs, name) == data

    async def test_a_closed_writer_writes_no_more(self, blobs: content.Blobs) -> None:
        writer = await blobs.writer("c1")
        await writer.close()
        with pytest.raises(errors.FailedPrecondition):
            await writer.write(b"x")
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit(0, "", {})

    @pytest.mark.parametrize("size", [256, 3 << 20])
    @pytest.mark.parametrize("restarted", [True, False])
    async def test_an_ingest_is_resumed_where_it_stopped(self, blobs: content.Blobs, restart: Restart, size: int, restarted: bool) -> None:
        data, name = some_bytes(size)
        writer = await blobs.writer("c1", size, name)
        await writer.write(data[: size // 2])
        before = writer.status()
        await writer.close()
        blobs = await restart() if restarted else blobs
        writer = await blobs.writer("c1", size, name)
        status = writer.status()
        assert (status.offset, status.total, status.expected, status.started_at) == (size // 2, size, name, before.started_at)
        assert await writer.digest() == digest.compute(data[: size // 2])
        await writer.write(data[size // 2 :])
        assert await writer.commit(size, name, {}) == name
        assert await read(blobs, name) == data

    async def test_a_resumed_ingest_may_be_cut_to_nothing_and_written_anew(self, blobs: content.Blobs, restart: Restart) -> None:
        data, name = some_bytes()
        writer = await blobs.writer("c1", len(data), name)
        await writer.write(os.urandom(100))
        await writer.close()
        writer = await (await restart()).writer("c1", len(data), name)
        await writer.truncate(0)
        assert writer.status().offset == 0
        assert await writer.digest() == digest.EMPTY
        await writer.write(data)
        assert await writer.commit(len(data), name, {}) == name

    async def test_a_resume_that_expects_another_size_is_refused(self, blobs: content.Blobs) -> None:
        await (await blobs.writer("c1", 10)).close()
        with pytest.raises(errors.InvalidArgument, match=r"^provided total differs from status: 11 != 10: invalid argument$"):
            await blobs.writer("c1", 11)

    async def test_an_empty_blob_is_a_blob(self, blobs: content.Blobs) -> None:
        writer = await blobs.writer("empty")
        assert await writer.commit(0, digest.EMPTY, {}) == digest.EMPTY
        assert await read(blobs, digest.EMPTY) == b""

    async def test_sha512_blobs_are_checked_by_sha512(self, blobs: content.Blobs) -> None:
        data = os.urandom(300)
        name = f"sha512:{hashlib.sha512(data).hexdigest()}"
        writer = await blobs.writer("late")
        await writer.write(data)
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit(300, "sha512:" + "0" * 128, {})
        assert await (await blobs.writer("late")).commit(300, name, {}) == name
        assert await read(blobs, name) == data

    async def test_reads_give_ranges_and_end_with_the_blob(self, blobs: content.Blobs) -> None:
        data, name = some_bytes(70_000)
        await put(blobs, data)
        reader = await blobs.open(name)
        assert reader.size == 70_000
        assert await reader.read_at(0, 10) == data[:10]
        assert await reader.read_at(69_990, 100) == data[69_990:]
        assert await reader.read_at(70_000, 1) == b""
        assert os.pread(reader.fd, 5, 3) == data[3:8]
        await reader.close()
        await reader.close()

    async def test_an_open_reader_keeps_the_bytes_of_a_deleted_blob(self, blobs: content.Blobs) -> None:
        data, name = some_bytes()
        await put(blobs, data)
        reader = await blobs.open(name)
        await blobs.delete(name)
        assert await reader.read_at(0, 256) == data
        await reader.close()
        with pytest.raises(errors.NotFound, match=f"^content {name}: not found$"):
            await blobs.open(name)

    async def test_walk_yields_every_blob_once(self, blobs: content.Blobs, restart: Restart) -> None:
        names = {await put(blobs, os.urandom(size)) for size in (1, 2, 3)}
        await (await blobs.writer("unfinished")).close()
        for each in (blobs, await restart()):
            assert {info.digest: info.size for info in [info async for info in each.walk()]} == dict(
                zip(sorted(names), [(await each.info(name)).size for name in sorted(names)], strict=True)
            )

    async def test_delete_of_what_is_not_there_is_not_found(self, blobs: content.Blobs) -> None:
        name = some_bytes()[1]
        for call in (blobs.delete, blobs.info, blobs.open):
            with pytest.raises(errors.NotFound, match=f"^content {name}: not found$"):
                await call(name)

    @pytest.mark.parametrize("name", ["", "sha256", "sha256:../../etc", "sha256:" + "A" * 64, "md5:" + "0" * 32, "sha256:" + "0" * 63])
    async def test_what_is_not_a_digest_is_an_invalid_argument(self, blobs: content.Blobs, name: str) -> None:
        for call in (blobs.delete, blobs.info, blobs.open):
            with pytest.raises(errors.InvalidArgument):
                await call(name)

    async def test_abort_forgets_the_ingest_and_fails_its_writer(self, blobs: content.Blobs, restart: Restart) -> None:
        writer = await blobs.writer("c1", 10)
        await writer.write(b"12345")
        await blobs.abort("c1")
        with pytest.raises(errors.NotFound):
            await blobs.status("c1")
        with pytest.raises(errors.NotFound):
            await writer.commit(0, "", {})
        with pytest.raises(errors.NotFound):
            await blobs.abort("c1")
        assert await (await restart()).statuses() == []
        fresh = await blobs.writer("c1", 11)
        assert fresh.status().offset == 0
        await fresh.close()

    @pytest.mark.parametrize("ref", ["../../escape", "a/b", "x" * 5000, "layer-sha256:abc", "ü\n", "."])
    async def test_a_ref_may_be_any_text(self, blobs: content.Blobs, restart: Restart, ref: str) -> None:
        writer = await blobs.writer(ref)
        await writer.write(b"data")
        await writer.close()
        blobs = await restart()
        assert (await blobs.status(ref)).offset == 4
        await blobs.abort(ref)
        assert await blobs.statuses() == []

    async def test_parallel_commits_of_the_same_bytes_all_end_well(self, blobs: content.Blobs) -> None:
        data, name = some_bytes(100_000)

        async def one(number: int) -> str:
            try:
                return await put(blobs, data, f"ref-{number}")
            except errors.AlreadyExists:
                return name

        assert await asyncio.gather(*(one(number) for number in range(8))) == [name] * 8
        assert await read(blobs, name) == data
        assert await blobs.statuses() == []
