"""containerd.services.content.v1: blobs and ingests over the wire.

A Write call is one session with one ingest: its first message names the ref and takes the writer's lock, every message is answered, a
COMMIT ends it.  Ending it otherwise keeps the ingest for a later session.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.content.v1 import content_pb2 as pb
from pydock.base import digest, errors
from pydock.core import content, plugin
from pydock.services import calls, codec, routing

CHUNK = 256 << 10  # bytes of a blob in one Read response: measured best, 510 MB/s; 1 MiB gives 330, 32 KiB 260
BLOCK = 100  # infos in one List response


class Content:
    """Answers the Content service."""

    wire = pb.DESCRIPTOR.services_by_name["Content"]
    raw = frozenset({"Read"})

    def __init__(self, store: content.Store) -> None:
        self._store = store

    async def info(self, request: pb.InfoRequest, call: calls.Call) -> pb.InfoResponse:
        """Return one blob's size, times and labels."""
        return pb.InfoResponse(info=_info(await self._store.info(call.ns, digest.validate(request.digest))))

    async def update(self, request: pb.UpdateRequest, call: calls.Call) -> pb.UpdateResponse:
        """Change labels, those that the mask names or all."""
        digest.validate(request.info.digest)
        info = await self._store.update(call.ns, codec.decode(content.Info, request.info), tuple(request.update_mask.paths))
        return pb.UpdateResponse(info=_info(info))

    async def list(self, request: pb.ListContentRequest, call: calls.Call, send: calls.Send) -> None:
        """Send the blobs that any of the filters matches, a hundred at a time."""
        block = pb.ListContentResponse()
        async for info in self._store.walk(call.ns, tuple(request.filters)):
            codec.fill(block.info.add(), info)
            if len(block.info) == BLOCK:
                await send(block)
                block = pb.ListContentResponse()
        if block.info:
            await send(block)

    async def delete(self, request: pb.DeleteContentRequest, call: calls.Call) -> empty_pb2.Empty:
        """Remove a blob from this namespace."""
        await self._store.delete(call.ns, digest.validate(request.digest))
        return empty_pb2.Empty()

    async def read(self, request: pb.ReadContentRequest, call: calls.Call, send: calls.Send) -> None:
        """Send the bytes from ``offset`` on, ``size`` of them or (0) all. Raises OutOfRange for an offset beyond the end."""
        async with contextlib.AsyncExitStack() as stack:
            reader = await self._store.open(call.ns, digest.validate(request.digest))
            stack.push_async_callback(reader.close)
            offset = max(0, request.offset)
            if offset > reader.size:
                raise errors.OutOfRange(f"read past object length {reader.size} bytes")
            end = min(reader.size, offset + request.size) if request.size > 0 else reader.size
            while offset < end:
                data = await reader.read_at(offset, min(CHUNK, end - offset))
                if not data:
                    raise errors.DataLoss(f"content {request.digest} ends at {offset} of {reader.size} bytes")
                await send(chunk(offset, data))
                offset += len(data)

    async def status(self, request: pb.StatusRequest, call: calls.Call) -> pb.StatusResponse:
        """Return how far an ingest is."""
        return pb.StatusResponse(status=_status(await self._store.status(call.ns, request.ref)))

    async def list_statuses(self, request: pb.ListStatusesRequest, call: calls.Call) -> pb.ListStatusesResponse:
        """Return the ingests that any of the filters matches."""
        found = await self._store.statuses(call.ns, tuple(request.filters))
        return pb.ListStatusesResponse(statuses=[_status(item) for item in found])

    async def write(self, requests: calls.Requests, call: calls.Call, send: calls.Send) -> None:
        """Write one ingest in a session of messages."""
        first = await anext(aiter(requests), None)
        if first is None or not first.ref:
            raise errors.InvalidArgument("first message must have a reference")
        async with contextlib.AsyncExitStack() as stack:
            writer = await self._store.writer(call.ns, first.ref, first.total, first.expected, call.lease)
            stack.push_async_callback(writer.close)
            session = _Session(self._store, call.ns, first.ref, writer)
            request: pb.WriteContentRequest | None = first
            while request is not None:
                await send(await session.answer(request))
                request = None if request.action == pb.COMMIT else await anext(aiter(requests), None)

    async def abort(self, request: pb.AbortRequest, call: calls.Call) -> empty_pb2.Empty:
        """Throw an ingest away."""
        await self._store.abort(call.ns, request.ref)
        return empty_pb2.Empty()


class _Session:
    """What the messages of one Write call have said so far: the later ``total`` and ``expected`` win."""

    def __init__(self, store: content.Store, ns: str, ref: str, writer: content.Writer) -> None:
        self._store, self._ns, self._ref, self._writer = store, ns, ref, writer
        self._total, self._expected = 0, ""

    async def answer(self, request: pb.WriteContentRequest) -> pb.WriteContentResponse:
        """Do what ``request`` says and return what the ingest is then."""
        await self._expect(request)
        status = self._writer.status()
        offset = status.offset if request.action == pb.STAT else await self._append(request, status.offset)
        done = await self._commit(request) if request.action == pb.COMMIT else await self._writer.digest()
        return pb.WriteContentResponse(
            action=request.action,
            started_at=codec.stamp(status.started_at),
            updated_at=codec.stamp(status.updated_at),
            offset=offset,
            total=self._total,
            digest=done,
        )

    async def _expect(self, request: pb.WriteContentRequest) -> None:
        self._total = request.total or self._total
        if not request.expected:
            return
        self._expected = digest.validate(request.expected)
        if await _exists(self._store, self._ns, self._expected):
            await self._writer.close()
            await self._store.abort(self._ns, self._ref)
            raise errors.AlreadyExists(f"blob with expected digest {self._expected} exists")

    async def _append(self, request: pb.WriteContentRequest, offset: int) -> int:
        """Return the offset after the request's data; a request without an offset begins the ingest anew."""
        if request.offset not in (0, offset):
            raise errors.OutOfRange(f"write @{request.offset} must occur at current offset {offset}")
        if request.offset == 0 and offset > 0:
            await self._writer.truncate(0)
            offset = 0
        return await self._writer.write(request.data) if request.data else offset

    async def _commit(self, request: pb.WriteContentRequest) -> str:
        return await self._writer.commit(self._total, self._expected, dict(request.labels))


def chunk(offset: int, data: bytes) -> bytes:
    """Return a serialised ReadContentResponse; joining it here copies the data once instead of three times."""
    return b"".join((b"\x08", codec.varint(offset), b"\x12", codec.varint(len(data)), data))


async def _exists(store: content.Store, ns: str, wanted: str) -> bool:
    with contextlib.suppress(errors.NotFound):
        await store.info(ns, wanted)
        return True
    return False


def _info(item: content.Info) -> pb.Info:
    return codec.encode(pb.Info, item)


def _status(item: content.Status) -> pb.Status:
    return codec.encode(pb.Status, item)


@plugin.plugin("io.containerd.grpc.v1", "content")
async def service(store: content.Store) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Content service."""
    yield routing.Service(Content(store))
