"""Blobs and ingests over the wire, on a store that keeps them in memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import grpc
import pytest

from pydock._proto.containerd.services.content.v1 import content_pb2 as pb
from pydock.base import errors
from pydock.core import content
from pydock.services import content as service


def name(data: bytes | bytearray) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Reader:
    fd = -1

    def __init__(self, data: bytes) -> None:
        self._data, self.size, self.closed = data, len(data), False

    async def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]

    async def close(self) -> None:
        self.closed = True


class Writer:
    def __init__(self, store: Store, status: content.Status) -> None:
        self._store, self._status = store, status

    @property
    def _data(self) -> bytearray:
        return self._store.ingests[self._status.ref]

    def status(self) -> content.Status:
        item = self._status
        return content.Status(item.ref, len(self._data), item.total, item.expected, 5_000_000_000, 6_000_000_000)

    async def write(self, data: bytes | memoryview) -> int:
        self._data.extend(data)
        return len(self._data)

    async def truncate(self, size: int) -> None:
        del self._data[size:]

    async def digest(self) -> str:
        return name(self._data)

    async def commit(self, size: int, expected: str, labels: Mapping[str, str]) -> str:
        found = name(self._data)
        if size and size != len(self._data):
            raise errors.FailedPrecondition(f'"{self._status.ref}" failed size validation: {len(self._data)} != {size}')
        if expected and expected != found:
            raise errors.FailedPrecondition(f"unexpected commit digest {found}, expected {expected}")
        self._store.blobs[found] = bytes(self._store.ingests.pop(self._status.ref))
        self._store.labels[found] = dict(labels)
        return found

    async def close(self) -> None:
        self._store.locked.discard(self._status.ref)


class Store:
    """`content.Store` of one namespace."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, Mapping[str, str]] = {}
        self.ingests: dict[str, bytearray] = {}
        self.locked: set[str] = set()
        self.leases: list[str] = []

    async def info(self, ns: str, digest: str) -> content.Info:
        if digest not in self.blobs:
            raise errors.NotFound(f"content {digest}")
        return content.Info(digest, len(self.blobs[digest]), labels=self.labels.get(digest, {}))

    async def update(self, ns: str, info: content.Info, paths: Sequence[str] = ()) -> content.Info:
        self.labels[info.digest] = {"paths": ",".join(paths), **info.labels}
        return await self.info(ns, info.digest)

    async def walk(self, ns: str, filters: Iterable[str] = ()) -> AsyncIterator[content.Info]:
        for digest in self.blobs:
            yield await self.info(ns, digest)

    async def delete(self, ns: str, digest: str) -> None:
        await self.info(ns, digest)
        del self.blobs[digest]

    async def open(self, ns: str, digest: str) -> Reader:
        await self.info(ns, digest)
        return Reader(self.blobs[digest])

    async def writer(self, ns: str, ref: str, total: int = 0, expected: str = "", lease: str = "") -> Writer:
        if ref in self.locked:
            raise errors.Unavailable(f"ref {ref} locked")
        self.locked.add(ref)
        self.leases.append(lease)
        self.ingests.setdefault(ref, bytearray())
        return Writer(self, content.Status(ref, 0, total, expected, 0, 0))

    async def status(self, ns: str, ref: str) -> content.Status:
        return content.Status(ref, len(self.ingests[ref]), 0, "", 0, 0)

    async def statuses(self, ns: str, filters: Iterable[str] = ()) -> Sequence[content.Status]:
        return [await self.status(ns, ref) for ref in self.ingests]

    async def abort(self, ns: str, ref: str) -> None:
        del self.ingests[ref]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def client(dial: Any, store: Store) -> AsyncIterator[Any]:
    async with dial(service.Content(store)) as client:
        yield client


async def _write(client: Any, *requests: pb.WriteContentRequest, **options: Any) -> list[pb.WriteContentResponse]:
    async def each() -> AsyncIterator[pb.WriteContentRequest]:
        for request in requests:
            yield request

    return [response async for response in client.Write(each(), **options)]


async def _refused(client: Any, *requests: pb.WriteContentRequest) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.RpcError) as caught:
        await _write(client, *requests)
    return caught.value.code(), caught.value.details()


async def _read(client: Any, data: bytes, **place: int) -> list[pb.ReadContentResponse]:
    return [part async for part in client.Read(pb.ReadContentRequest(digest=name(data), **place))]


async def test_a_session_writes_and_commits(client: Any, store: Store) -> None:
    answers = await _write(
        client,
        pb.WriteContentRequest(action=pb.STAT, ref="r", total=6),
        pb.WriteContentRequest(action=pb.WRITE, data=b"abc"),
        pb.WriteContentRequest(action=pb.COMMIT, data=b"def", offset=3, total=6, expected=name(b"abcdef"), labels={"k": "v"}),
        lease="l1",
    )
    assert [(item.action, item.offset) for item in answers] == [(pb.STAT, 0), (pb.WRITE, 3), (pb.COMMIT, 6)]
    assert answers[0].total == 6 and answers[0].started_at.seconds == 5 and answers[1].digest == name(b"abc")
    assert answers[2].digest == name(b"abcdef") and store.labels[name(b"abcdef")] == {"k": "v"}
    assert store.leases == ["l1"] and not store.locked


async def test_a_session_that_ends_without_commit_keeps_the_ingest_and_frees_it(client: Any, store: Store) -> None:
    await _write(client, pb.WriteContentRequest(action=pb.WRITE, ref="r", data=b"abc"))
    assert store.ingests == {"r": bytearray(b"abc")} and not store.locked
    answers = await _write(client, pb.WriteContentRequest(action=pb.STAT, ref="r"))
    assert answers[0].offset == 3


async def test_a_write_at_the_wrong_offset_is_out_of_range(client: Any) -> None:
    told = await _refused(client, pb.WriteContentRequest(action=pb.WRITE, ref="r", offset=7, data=b"x"))
    assert told == (grpc.StatusCode.OUT_OF_RANGE, "write @7 must occur at current offset 0: out of range")


async def test_a_write_without_an_offset_begins_anew(client: Any, store: Store) -> None:
    await _write(client, pb.WriteContentRequest(action=pb.WRITE, ref="r", data=b"old"))
    answers = await _write(client, pb.WriteContentRequest(action=pb.WRITE, ref="r", data=b"newer"))
    assert answers[0].offset == 5 and store.ingests["r"] == b"newer"


async def test_a_wrong_digest_or_size_is_refused_and_keeps_the_ingest(client: Any, store: Store) -> None:
    wrong = pb.WriteContentRequest(action=pb.COMMIT, ref="r", data=b"abc", expected=name(b"other"))
    assert (await _refused(client, wrong))[0] is grpc.StatusCode.FAILED_PRECONDITION
    short = pb.WriteContentRequest(action=pb.COMMIT, ref="r", offset=3, total=9)
    assert (await _refused(client, short))[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert store.ingests["r"] == b"abc"


async def test_expecting_what_is_there_already_exists_and_drops_the_ingest(client: Any, store: Store) -> None:
    store.blobs[name(b"abc")] = b"abc"
    code, text = await _refused(client, pb.WriteContentRequest(action=pb.COMMIT, ref="r", expected=name(b"abc")))
    assert code is grpc.StatusCode.ALREADY_EXISTS and str(text).startswith(f"blob with expected digest {name(b'abc')} exists")
    assert store.ingests == {} and not store.locked


async def test_a_session_without_a_ref_is_refused(client: Any) -> None:
    told = await _refused(client, pb.WriteContentRequest(action=pb.STAT))
    assert told == (grpc.StatusCode.INVALID_ARGUMENT, "first message must have a reference: invalid argument")
    assert (await _refused(client))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_locked_ref_is_unavailable(client: Any, store: Store) -> None:
    store.locked.add("r")
    assert (await _refused(client, pb.WriteContentRequest(action=pb.STAT, ref="r")))[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_digest_out_of_its_grammar_is_refused_before_the_store_sees_it(client: Any) -> None:
    for method, request in ((client.Info, pb.InfoRequest), (client.Delete, pb.DeleteContentRequest)):
        with pytest.raises(grpc.RpcError) as caught:
            await method(request(digest="sha256:../../etc"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_large_blob_is_read_in_parts(client: Any, store: Store) -> None:
    data = bytes(range(256)) * 9000
    store.blobs[name(data)] = data
    parts = await _read(client, data)
    assert b"".join(part.data for part in parts) == data
    assert [part.offset for part in parts] == list(range(0, len(data), service.CHUNK))


@pytest.mark.parametrize(
    ("place", "found"),
    [({"offset": 2}, b"cdef"), ({"offset": 1, "size": 2}, b"bc"), ({"offset": 4, "size": 99}, b"ef"), ({"offset": 6}, b"")],
)
async def test_a_range_of_a_blob_is_read(client: Any, store: Store, place: dict[str, int], found: bytes) -> None:
    store.blobs[name(b"abcdef")] = b"abcdef"
    assert b"".join(part.data for part in await _read(client, b"abcdef", **place)) == found


async def test_reading_past_the_end_is_out_of_range(client: Any, store: Store) -> None:
    store.blobs[name(b"abc")] = b"abc"
    with pytest.raises(grpc.RpcError) as caught:
        await _read(client, b"abc", offset=4)
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_many_blobs_are_listed_in_blocks(client: Any, store: Store) -> None:
    store.blobs |= {name(bytes([number])): b"x" for number in range(201)}
    blocks = [len(block.info) async for block in client.List(pb.ListContentRequest())]
    assert blocks == [100, 100, 1]


async def test_labels_are_changed_under_a_mask(client: Any, store: Store) -> None:
    store.blobs[name(b"a")] = b"a"
    request = pb.UpdateRequest(info=pb.Info(digest=name(b"a"), labels={"k": "v"}))
    request.update_mask.paths.append("labels.k")
    assert dict((await client.Update(request)).info.labels) == {"paths": "labels.k", "k": "v"}


async def test_an_ingest_is_shown_and_aborted(client: Any, store: Store) -> None:
    store.ingests["r"] = bytearray(b"abc")
    assert (await client.Status(pb.StatusRequest(ref="r"))).status.offset == 3
    assert [item.ref for item in (await client.ListStatuses(pb.ListStatusesRequest())).statuses] == ["r"]
    await client.Abort(pb.AbortRequest(ref="r"))
    assert store.ingests == {}


@pytest.mark.parametrize(("offset", "data"), [(0, b""), (0, b"x"), (1 << 40, b"y" * 300)])
def test_a_chunk_is_what_protobuf_would_make(offset: int, data: bytes) -> None:
    assert pb.ReadContentResponse.FromString(service.chunk(offset, data)) == pb.ReadContentResponse(offset=offset, data=data)
