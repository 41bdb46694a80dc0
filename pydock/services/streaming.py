"""containerd.services.streaming.v1: a client's pipe to an operation of the daemon, named by the client.

A Stream call begins with StreamInit; it is answered by an Empty as soon as the stream can be found by its id.  What follows belongs to the
operation that asks for the stream: it reads until the client ends its side, and it ends the call by closing the stream.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from google.protobuf import any_pb2, empty_pb2

from pydock._proto.containerd.services.streaming.v1 import streaming_pb2 as pb
from pydock.base import errors
from pydock.core import containers, plugin, streams
from pydock.services import calls, codec, routing

T = TypeVar("T")

DEPTH = 16  # messages waiting each way; what is more waits in the client (gRPC flow control)
_ACK = any_pb2.Any(type_url=empty_pb2.Empty.DESCRIPTOR.full_name)


class Channel(Generic[T]):
    """A bounded queue between two tasks that can be closed from either side."""

    def __init__(self, depth: int = DEPTH) -> None:
        self._items: collections.deque[T] = collections.deque()
        self._depth, self._closed = depth, False
        self._changed = asyncio.Condition()

    async def put(self, item: T) -> None:
        """Append ``item`` when there is room. Raises Aborted once closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            if self._closed:
                raise errors.Aborted("stream is closed")
            self._items.append(item)
            self._changed.notify_all()

    async def get(self) -> T | None:
        """Return the next item, None when the channel is closed and all its items are taken."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or bool(self._items))
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    async def close(self) -> None:
        """Take no more items."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()


class Stream:
    """One open call (`pydock.core.streams.Stream`), pumped by the task of the call: others only touch its channels."""

    def __init__(self) -> None:
        self._inbox: Channel[containers.Any] = Channel()
        self._outbox: Channel[containers.Any] = Channel()
        self._idle = asyncio.Event()  # nobody pumps it: all is sent, or it was never served
        self._idle.set()

    async def send(self, message: containers.Any) -> None:
        """Send ``message`` to the client. Raises Aborted when the stream is closed or the client gone."""
        await self._outbox.put(message)

    async def __aiter__(self) -> AsyncIterator[containers.Any]:
        while (message := await self._inbox.get()) is not None:
            yield message

    async def close(self) -> None:
        """End the call and return once everything is sent: a client that is answered elsewhere may look no further here."""
        await self._outbox.close()
        await self._idle.wait()

    async def serve(self, requests: calls.Requests, send: calls.Send) -> None:
        """Carry messages both ways until ``close``."""
        self._idle.clear()
        try:
            async with asyncio.TaskGroup() as pumps:
                reading = pumps.create_task(self._read(requests), name="stream-read")
                while (message := await self._outbox.get()) is not None:
                    await send(codec.wire_any(message))
                reading.cancel()
        finally:
            self._idle.set()
            await self._inbox.close()
            await self._outbox.close()

    async def _read(self, requests: calls.Requests) -> None:
        async for message in requests:
            await self._inbox.put(codec.any_of(message))
        await self._inbox.close()


class Streaming:
    """Answers the Streaming service."""

    wire = pb.DESCRIPTOR.services_by_name["Streaming"]
    raw = frozenset[str]()

    def __init__(self, open_streams: streams.Streams) -> None:
        self._streams = open_streams

    async def stream(self, requests: calls.Requests, call: calls.Call, send: calls.Send) -> None:
        """Serve one stream from its StreamInit to its end."""
        id, ns, stream = _id(await anext(aiter(requests), None)), call.ns, Stream()
        self._streams.register(ns, id, stream)
        try:
            await send(_ACK)
            await stream.serve(requests, send)
        finally:
            self._streams.remove(ns, id)


def _id(first: any_pb2.Any | None) -> str:
    """Return the id in the first message. Raises InvalidArgument when it is no StreamInit."""
    if first is None or codec.type_name(codec.any_of(first)) != pb.StreamInit.DESCRIPTOR.full_name:
        raise errors.InvalidArgument("first message must be a containerd.services.streaming.v1.StreamInit")
    return codec.parse(pb.StreamInit, codec.any_of(first)).id


@plugin.plugin("io.containerd.grpc.v1", "streaming")
async def service(open_streams: streams.Streams) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Streaming service."""
    yield routing.Service(Streaming(open_streams))
