"""Bytes over a stream, with windows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pydock._proto.containerd.types.transfer import streaming_pb2 as pb
from pydock.base import errors
from pydock.core import containers
from pydock.services import codec, streambytes, streaming


class Pipe:
    """A stream whose other end is the test: it reads ``sent`` and feeds ``given``."""

    def __init__(self) -> None:
        self.sent: streaming.Channel[containers.Any] = streaming.Channel(1000)
        self.given: streaming.Channel[containers.Any] = streaming.Channel(1000)

    async def send(self, message: containers.Any) -> None:
        await self.sent.put(message)

    async def __aiter__(self) -> AsyncIterator[containers.Any]:
        while (message := await self.given.get()) is not None:
            yield message

    async def close(self) -> None:
        await self.sent.close()

    async def updates(self) -> int:
        """Take all that was sent as window updates; return their sum."""
        total = 0
        await self.sent.close()
        while (message := await self.sent.get()) is not None:
            total += codec.parse(pb.WindowUpdate, message).update
        return total


async def test_what_a_client_sends_is_received_and_the_stream_closed() -> None:
    pipe = Pipe()
    for part in (b"abc", b"", b"def"):
        await pipe.given.put(codec.pack(pb.Data(data=part)))
    await pipe.given.close()
    assert [part async for part in streambytes.received(pipe)] == [b"abc", b"def"]
    with pytest.raises(errors.Aborted):
        await pipe.send(containers.Any("t", b""))


async def test_the_window_is_filled_up_as_bytes_are_read() -> None:
    pipe, part, count = Pipe(), bytes(100_000), 50
    for _ in range(count):
        await pipe.given.put(codec.pack(pb.Data(data=part)))
    await pipe.given.close()
    assert sum([len(item) async for item in streambytes.received(pipe)]) == len(part) * count
    granted = await pipe.updates()
    assert len(part) * count < granted <= len(part) * count + streambytes.WINDOW


@pytest.mark.parametrize("message", [containers.Any("other", b""), codec.pack(pb.Data(data=bytes(streambytes.WINDOW + 1)))])
async def test_what_is_not_data_or_was_not_granted_is_refused(message: containers.Any) -> None:
    pipe = Pipe()
    await pipe.given.put(message)
    with pytest.raises(errors.InvalidArgument):
        async for _ in streambytes.received(pipe):
            pass


async def test_nothing_is_sent_beyond_the_window() -> None:
    pipe = Pipe()
    sink, data = streambytes.Sink(pipe), bytes(range(256)) * 400
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(sink.write(data))
        received = b""
        while len(received) < len(data):
            granted = min(40_000, len(data) - len(received))
            await pipe.given.put(codec.pack(pb.WindowUpdate(update=granted)))
            part = b""
            while len(part) < granted:
                message = await pipe.sent.get()
                assert message is not None
                part += codec.parse(pb.Data, message).data
            assert len(part) == granted and not pipe.sent._items
            received += part
    assert received == data and writing.done()


async def test_a_reader_that_goes_aborts_the_writer() -> None:
    pipe = Pipe()
    await pipe.given.close()
    with pytest.raises(errors.Aborted):
        await streambytes.Sink(pipe).write(b"abc")
