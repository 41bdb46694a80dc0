"""Bytes over a stream: Data messages one way, WindowUpdate messages the other.

The reader grants the writer a window of bytes and more of them as it reads on; the writer, who begins with none, never sends beyond.
Source: containerd.types.transfer.Data and WindowUpdate, containerd's core/transfer/streaming.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from pydock._proto.containerd.types.transfer import streaming_pb2 as pb
from pydock.base import errors
from pydock.core import streams
from pydock.services import codec

WINDOW = 1 << 20  # bytes a client may send ahead of the reader here
PIECE = 32 << 10  # bytes in one message to a client, whose windows are twice that


async def received(stream: streams.Stream) -> AsyncIterator[bytes]:
    """Yield the bytes a client sends until it ends its side; close the stream when done with, however that comes.

    Raises InvalidArgument for a message that is not Data, or for more than was granted.
    """
    window = 0
    try:
        window = await _grant(stream, window)
        async for message in stream:
            data = codec.parse(pb.Data, message).data
            window -= len(data)
            if window < 0:
                raise errors.InvalidArgument(f"stream data exceeds its window by {-window} bytes")
            if data:
                yield data
            if window <= WINDOW // 2:
                window = await _grant(stream, window)
    finally:
        await stream.close()


async def _grant(stream: streams.Stream, window: int) -> int:
    """Fill the window up. A client that has ended its side may be past hearing it."""
    with contextlib.suppress(errors.Aborted):
        await stream.send(codec.pack(pb.WindowUpdate(update=WINDOW - window)))
    return WINDOW


class Sink:
    """Sends bytes to a client (`pydock.core.transfer.ByteSink`)."""

    def __init__(self, stream: streams.Stream) -> None:
        self._stream, self._updates = stream, aiter(stream)
        self._window = 0

    async def write(self, data: bytes | memoryview) -> None:
        """Send ``data`` as fast as the client grants it. Raises Aborted when the client is gone."""
        rest = memoryview(data)
        while rest:
            await self._open()
            piece = rest[: min(PIECE, self._window)]
            await self._stream.send(codec.pack(pb.Data(data=bytes(piece))))
            self._window -= len(piece)
            rest = rest[len(piece) :]

    async def close(self) -> None:
        """Say that this was all."""
        await self._stream.close()

    async def _open(self) -> None:
        """Wait until the window is open."""
        while self._window <= 0:
            update = await anext(self._updates, None)
            if update is None:
                raise errors.Aborted("the reader of the stream is gone")
            self._window += codec.parse(pb.WindowUpdate, update).update
