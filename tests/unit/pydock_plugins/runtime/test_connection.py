"""The ttrpc client against our own ttrpc server and against peers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pydock.base import errors
from pydock_plugins.runtime import connection, server
from pydock_shim import wire

SERVICE = "test.Echo"


def refuse(payload: bytes) -> bytes:
    raise errors.NotFound("task nginx")


HANDLERS: server.Handlers = {(SERVICE, "Echo"): lambda payload: payload[::-1], (SERVICE, "Refuse"): refuse}


@contextlib.asynccontextmanager
async def peer(path: Path, script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[None]:
    """A server that does what ``script`` says with the first connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        finally:
            writer.close()

    listener = await asyncio.start_unix_server(serve, path)
    async with listener:
        yield


async def test_many_calls_run_at_once_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    async with server.serve(tmp_path / "s", HANDLERS):
        client = await connection.connect(tmp_path / "s", "default")
        answers = await asyncio.gather(*(client.call(SERVICE, "Echo", f"call {n}".encode(), 5) for n in range(500)))
        assert answers == [f"call {n}".encode()[::-1] for n in range(500)]
        client.close()


async def test_a_large_payload_goes_through_in_pieces(tmp_path: Path) -> None:
    async with server.serve(tmp_path / "s", HANDLERS):
        client = await connection.connect(tmp_path / "s", "default")
        payload = bytes(range(256)) * 12_000
        assert await client.call(SERVICE, "Echo", payload, 5) == payload[::-1]
        client.close()


async def test_a_request_larger_than_a_frame_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with server.serve(tmp_path / "s", HANDLERS):
        client = await connection.connect(tmp_path / "s", "default")
        with pytest.raises(errors.ResourceExhausted):
            await client.call(SERVICE, "Echo", bytes(wire.MAX_DATA), 5)
        assert await client.call(SERVICE, "Echo", b"ab", 5) == b"ba"
        client.close()


async def test_a_status_becomes_the_typed_error_with_its_words_once(tmp_path: Path) -> None:
    async with server.serve(tmp_path / "s", HANDLERS):
        client = await connection.connect(tmp_path / "s", "default")
        with pytest.raises(errors.NotFound) as caught:
            await client.call(SERVICE, "Refuse", b"", 5)
        assert str(caught.value) == "task nginx: not found"
        client.close()


async def test_an_unknown_method_is_unimplemented(tmp_path: Path) -> None:
    async with server.serve(tmp_path / "s", HANDLERS):
        client = await connection.connect(tmp_path / "s", "default")
        with pytest.raises(errors.Unimplemented):
            await client.call("no.Such", "Method", b"", 5)
        client.close()


async def test_a_peer_that_does_not_answer_costs_the_call_its_bound_and_a_late_answer_is_dropped(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(wire.HEADER.size)
        await release.wait()
        writer.write(wire.response(1, b"late") + wire.response(3, b"in time"))
        await reader.read()

    async with peer(tmp_path / "s", late):
        client = await connection.connect(tmp_path / "s", "default")
        with pytest.raises(errors.DeadlineExceeded):
            await client.call(SERVICE, "Echo", b"", 0.05)
        release.set()
        assert await client.call(SERVICE, "Echo", b"", 5) == b"in time"
        client.close()


async def test_the_end_of_the_connection_fails_all_that_wait_and_tells_the_owner(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(wire.HEADER.size)

    lost = asyncio.Event()
    async with peer(tmp_path / "s", hang_up):
        client = await connection.connect(tmp_path / "s", "default", lost.set)
        results = await asyncio.gather(*(client.call(SERVICE, "Wait", b"", None) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [errors.Unavailable] * 3
        await asyncio.wait_for(lost.wait(), 5)
        with pytest.raises(errors.Unavailable):
            await client.call(SERVICE, "Echo", b"", 5)


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(wire.frame(2, wire.RESPONSE, b""), id="an even stream"),
        pytest.param(wire.frame(99, wire.RESPONSE, b""), id="a stream never opened"),
        pytest.param(wire.frame(1, wire.REQUEST, b""), id="a request to the client"),
        pytest.param(wire.frame(1, wire.DATA, b""), id="stream data"),
        pytest.param(wire.frame(1, wire.RESPONSE, b"\x0a\xff\xff\xff\xff\x0f"), id="a length beyond the frame"),
        pytest.param(b"\xff" * 40, id="noise"),
    ],
)
async def test_a_hostile_frame_closes_the_connection_with_a_typed_error(tmp_path: Path, hostile: bytes) -> None:
    async def attack(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(wire.HEADER.size)
        writer.write(hostile)
        await reader.read()

    async with peer(tmp_path / "s", attack):
        client = await connection.connect(tmp_path / "s", "default")
        with pytest.raises(errors.Unavailable, match="broke the protocol"):
            await client.call(SERVICE, "Echo", b"", 5)
        assert not client.alive


async def test_an_answer_longer_than_a_frame_fails_its_call_only(tmp_path: Path) -> None:
    async def verbose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(wire.HEADER.size)
        writer.write(wire.HEADER.pack(wire.MAX_DATA + 1, 1, wire.RESPONSE, 0) + bytes(wire.MAX_DATA + 1) + wire.response(3, b"fine"))
        await reader.read()

    async with peer(tmp_path / "s", verbose):
        client = await connection.connect(tmp_path / "s", "default")
        first, second = client.request(SERVICE, "Echo", b""), client.request(SERVICE, "Echo", b"")
        with pytest.raises(errors.ResourceExhausted):
            await first
        assert await second == b"fine"
        client.close()


async def test_a_missing_socket_and_a_dead_one_are_unavailable(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable):
        await connection.connect(tmp_path / "none", "default")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    with pytest.raises(errors.Unavailable):
        await connection.connect(tmp_path / "dead", "default")


async def test_a_peer_that_does_not_read_is_not_buffered_for_without_bound(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "s"))
        deaf.listen()
        client = await connection.connect(tmp_path / "s", "default")
        with pytest.raises(errors.Unavailable, match="does not answer"):
            for _ in range(connection.MOST_CALLS + 1):
                client.request(SERVICE, "Echo", bytes(1 << 20))
        client.close()
