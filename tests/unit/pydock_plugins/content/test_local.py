"""Local blobs beyond the contract: what is on disk, and what happens when the disk fails."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from pydock.base import digest, durable, errors
from pydock_plugins.content import files, local


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "content"


@pytest.fixture
def blobs(root: Path) -> local.LocalBlobs:
    return local.open_blobs(root)


def ingests(root: Path) -> list[Path]:
    return sorted((root / "ingest").iterdir())


async def test_a_blob_is_a_read_only_file_without_traces_of_its_ingest(blobs: local.LocalBlobs, root: Path) -> None:
    writer = await blobs.writer("ref", 4)
    await writer.write(b"data")
    name = await writer.commit(0, "", {})
    path = root / "blobs/sha256" / name.removeprefix("sha256:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert os.listxattr(path) == []
    assert ingests(root) == []
    assert {stat.S_IMODE(each.stat().st_mode) for each in (root, root / "blobs", root / "ingest", path.parent)} == {0o700}


async def test_an_ingest_is_one_file_or_two_where_there_are_no_attributes(
    blobs: local.LocalBlobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not here")

    await (await blobs.writer("with")).close()
    assert len(ingests(root)) == 1
    monkeypatch.setattr(os, "setxattr", refuse)
    writer = await blobs.writer("without", 7)
    await writer.write(b"1234567")
    await writer.close()
    assert len(ingests(root)) == 3
    again = local.open_blobs(root)
    assert [status.ref for status in await again.statuses()] == ["with", "without"]
    name = await (await again.writer("without", 7)).commit(7, "", {})
    assert await (await again.open(name)).read_at(0, 9) == b"1234567"
    assert len(ingests(root)) == 1


async def test_a_full_disk_keeps_the_ingest_at_its_last_good_offset(
    blobs: local.LocalBlobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(100_000)
    writer = await blobs.writer("ref")
    await writer.write(data[:1000])
    real, room = os.pwrite, [50_000]

    def pwrite(fd: int, part: bytes, offset: int) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "full")
        count = real(fd, memoryview(part)[: room[0]], offset)
        room[0] -= count
        return count

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(errors.ResourceExhausted):
        await writer.write(data[1000:])
    assert writer.status().offset == 1000
    assert ingests(root)[0].stat().st_size == 1000
    room[0] = 1 << 30
    await writer.write(data[1000:])
    assert await writer.commit(len(data), digest.compute(data), {}) == digest.compute(data)


async def test_what_cannot_be_synced_is_dropped_and_never_synced_again(
    blobs: local.LocalBlobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fail(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, "lost")

    writer = await blobs.writer("ref")
    await writer.write(b"data")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(errors.Internal):
            await writer.commit(0, "", {})
    assert len(calls) == 1
    assert ingests(root) == []
    with pytest.raises(errors.NotFound):
        await blobs.info(digest.compute(b"data"))
    fresh = await blobs.writer("ref")
    assert fresh.status().offset == 0
    await fresh.write(b"data")
    await fresh.commit(0, "", {})


async def test_a_blob_whose_directory_cannot_be_synced_is_not_there(blobs: local.LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = await blobs.writer("ref")
    await writer.write(b"data")

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "lost")

    with monkeypatch.context() as patch:
        for name in digest.SIZES:
            patch.setattr(blobs._syncs[name], "_flush", lambda: fail(Path()))
        with pytest.raises(errors.Internal):
            await writer.commit(0, "", {})
    with pytest.raises(errors.NotFound):
        await blobs.info(digest.compute(b"data"))


async def test_data_is_synced_before_it_is_named_and_the_directory_after(
    blobs: local.LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, rename, sync_dir = os.fdatasync, Path.rename, durable.sync_dir
    monkeypatch.setattr(os, "fdatasync", lambda fd: (order.append("data"), sync(fd))[1])
    monkeypatch.setattr(Path, "rename", lambda path, to: (order.append("name"), rename(path, to))[1])
    monkeypatch.setattr(blobs._syncs["sha256"], "_flush", lambda: (order.append("directory"), sync_dir(blobs._blobs / "sha256"))[1])
    writer = await blobs.writer("ref")
    await writer.write(b"data")
    await writer.commit(0, "", {})
    assert order == ["data", "name", "directory"]


async def test_files_nobody_can_explain_are_removed_at_start(root: Path) -> None:
    local.open_blobs(root)
    (root / "ingest/stray").write_bytes(b"x")
    (root / "ingest/lonely.json").write_bytes(b"{}")
    (root / "ingest/bad").write_bytes(b"x")
    (root / "ingest/bad.json").write_bytes(b"not json")
    blobs = local.open_blobs(root)
    assert await blobs.statuses() == []
    assert ingests(root) == []


async def test_bytes_after_the_good_offset_are_cut_on_resume(blobs: local.LocalBlobs, root: Path) -> None:
    writer = await blobs.writer("ref")
    await writer.write(b"good")
    await writer.close()
    with ingests(root)[0].open("ab") as stream:
        stream.write(b"bad")
    writer = await blobs.writer("ref")
    assert await writer.commit(4, digest.compute(b"good"), {}) == digest.compute(b"good")


async def test_an_ingest_that_lost_bytes_resumes_from_what_is_left(blobs: local.LocalBlobs, root: Path) -> None:
    writer = await blobs.writer("ref")
    await writer.write(b"12345678")
    await writer.close()
    os.truncate(ingests(root)[0], 3)
    writer = await blobs.writer("ref")
    assert writer.status().offset == 3
    assert await writer.digest() == digest.compute(b"123")
    await writer.close()


async def test_an_ingest_whose_file_is_gone_begins_again(blobs: local.LocalBlobs, root: Path) -> None:
    await (await blobs.writer("ref")).close()
    ingests(root)[0].unlink()
    writer = await blobs.writer("ref")
    assert writer.status().offset == 0
    await writer.close()


async def test_a_growing_blob_can_be_read_up_to_its_offset(blobs: local.LocalBlobs) -> None:
    data = os.urandom(200_000)
    writer = await blobs.writer("ref")
    await writer.write(data[:100_000])
    assert os.pread(writer.fd, writer.offset, 0) == data[:100_000]
    kept = os.dup(writer.fd)
    await writer.write(data[100_000:])
    await writer.commit(0, "", {})
    assert os.pread(kept, 300_000, 0) == data
    os.close(kept)


async def test_a_resume_that_expects_sha512_hashes_anew(blobs: local.LocalBlobs) -> None:
    name = digest.compute(b"data", "sha512")
    writer = await blobs.writer("ref")
    await writer.write(b"data")
    await writer.close()
    writer = await blobs.writer("ref", expected=name)
    assert await writer.digest() == name
    assert await writer.commit(4, name, {}) == name


async def test_truncate_keeps_a_prefix_and_refuses_to_grow(blobs: local.LocalBlobs) -> None:
    writer = await blobs.writer("ref")
    await writer.write(b"12345678")
    await writer.truncate(4)
    assert await writer.digest() == digest.compute(b"1234")
    for size in (5, -1):
        with pytest.raises(errors.InvalidArgument):
            await writer.truncate(size)
    await writer.close()


async def test_large_writes_start_their_way_to_the_disk(blobs: local.LocalBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(local, "WRITEBACK", 100_000)
    monkeypatch.setattr(files, "start_writeback", lambda fd, offset, length: asked.append((offset, length)))
    writer = await blobs.writer("ref")
    for _ in range(4):
        await writer.write(b"x" * 60_000)
    await writer.close()
    assert asked == [(0, 120_000), (120_000, 120_000)]
