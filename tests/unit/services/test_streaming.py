"""Streams: registered, carried both ways, ended from either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2

from pydock._proto.containerd.services.streaming.v1 import streaming_pb2 as pb
from pydock.base import errors
from pydock.core import containers
from pydock.domain import streams
from pydock.services import codec, streaming

INIT = codec.wire_any(codec.pack(pb.StreamInit(id="s1")))

END: object = getattr(grpc.aio, "EOF")  # noqa: B009 - the stubs lack it


def _any(number: int) -> containers.Any:
    return containers.Any("t", bytes([number]))


@pytest.fixture
def found() -> streams.Streams:
    return streams.Streams()


@pytest.fixture
async def client(dial: Any, found: streams.Streams) -> AsyncIterator[Any]:
    async with dial(streaming.Streaming(found)) as client:
        yield client


async def _opened(client: Any) -> Any:
    call = client.Stream(None)
    await call.write(INIT)
    assert (await call.read()).type_url == "google.protobuf.Empty"
    return call


async def _gone(found: streams.Streams) -> None:
    async with asyncio.timeout(5):
        while found._streams:
            await asyncio.sleep(0)


async def test_a_stream_can_be_found_as_soon_as_it_is_acknowledged(client: Any, found: streams.Streams) -> None:
    call = await _opened(client)
    assert found.get("default", "s1")
    call.cancel()


async def test_messages_go_both_ways_in_order_until_the_client_ends_its_side(client: Any, found: streams.Streams) -> None:
    call = await _opened(client)
    stream = found.get("default", "s1")
    for number in range(50):
        await call.write(codec.wire_any(_any(number)))
        await stream.send(_any(number))
    await call.done_writing()
    assert [item.value[0] async for item in stream] == list(range(50))
    assert [(await call.read()).value[0] for _ in range(50)] == list(range(50))
    await stream.close()
    assert await call.read() is END and await call.code() is grpc.StatusCode.OK
    await _gone(found)


async def test_closing_sends_what_was_handed_over_first(client: Any, found: streams.Streams) -> None:
    call = await _opened(client)
    stream = found.get("default", "s1")
    await stream.send(_any(1))
    await stream.close()
    await stream.close()
    assert (await call.read()).value == b"\x01" and await call.read() is END
    with pytest.raises(errors.Aborted):
        await stream.send(_any(2))


async def test_a_client_that_goes_ends_the_stream_for_whoever_uses_it(client: Any, found: streams.Streams) -> None:
    call = await _opened(client)
    stream = found.get("default", "s1")
    call.cancel()
    async with asyncio.timeout(5):
        assert [item async for item in stream] == []
        with pytest.raises(errors.Aborted):
            for number in range(100):
                await stream.send(_any(number))
    await _gone(found)


async def test_a_client_that_does_not_read_holds_the_sender_back_and_not_the_daemon(client: Any, found: streams.Streams) -> None:
    call = await _opened(client)
    stream = found.get("default", "s1")
    large = containers.Any("t", bytes(1 << 20))

    async def flood() -> None:
        while True:
            await stream.send(large)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(flood(), 0.3)
    assert len(stream._outbox._items) <= streaming.DEPTH  # type: ignore[attr-defined]
    call.cancel()


async def test_an_id_in_use_already_exists(client: Any) -> None:
    first = await _opened(client)
    second = client.Stream(None)
    await second.write(INIT)
    assert await second.code() is grpc.StatusCode.ALREADY_EXISTS
    first.cancel()


@pytest.mark.parametrize("first", [any_pb2.Any(), any_pb2.Any(type_url="other"), any_pb2.Any(type_url=INIT.type_url, value=b"\xff")])
async def test_a_stream_that_does_not_begin_with_its_id_is_refused(client: Any, first: any_pb2.Any) -> None:
    call = client.Stream(None)
    await call.write(first)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
