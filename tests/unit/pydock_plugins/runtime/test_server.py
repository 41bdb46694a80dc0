"""The ttrpc server against clients that misbehave."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from pydock_plugins.runtime import server
from pydock_shim import wire

HANDLERS: server.Handlers = {("s", "Echo"): lambda payload: payload}


async def exchange(path: Path, data: bytes, answers: int) -> list[tuple[int, wire.Message]]:
    """Send ``data`` and return the decoded answers, until there are enough or the server hangs up."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    frames, found = wire.FrameReader(), []
    while len(found) < answers and (chunk := await reader.read(65536)):
        found += [(stream, wire.decode("ttrpc.Response", body or b"")) for stream, _, _, body in frames.feed(chunk)]
    writer.close()
    return found


async def test_the_socket_is_for_root_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    async with server.serve(tmp_path / "s", HANDLERS):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    assert not (tmp_path / "s").exists()


async def test_a_frame_over_the_limit_is_answered_and_the_connection_goes_on(tmp_path: Path) -> None:
    large = wire.HEADER.pack(wire.MAX_DATA + 5, 1, wire.REQUEST, 0) + bytes(wire.MAX_DATA + 5)
    async with server.serve(tmp_path / "s", HANDLERS):
        answers = await exchange(tmp_path / "s", large + wire.request(3, "s", "Echo", b"next"), 2)
    assert [(stream, (answer["status"] or {}).get("code"), answer["payload"]) for stream, answer in answers] == [
        (1, wire.RESOURCE_EXHAUSTED, b""),
        (3, None, b"next"),
    ]


async def test_an_even_stream_id_is_an_invalid_argument(tmp_path: Path) -> None:
    async with server.serve(tmp_path / "s", HANDLERS):
        answers = await exchange(tmp_path / "s", wire.request(2, "s", "Echo", b""), 1)
    assert answers[0][1]["status"]["code"] == wire.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "hostile", [wire.frame(1, wire.RESPONSE, b""), wire.frame(1, wire.DATA, b"x"), wire.frame(1, wire.REQUEST, b"\xff")]
)
async def test_broken_framing_ends_that_connection_alone(tmp_path: Path, hostile: bytes) -> None:
    async with server.serve(tmp_path / "s", HANDLERS):
        assert await exchange(tmp_path / "s", hostile, 1) == []
        assert len(await exchange(tmp_path / "s", wire.request(1, "s", "Echo", b"x"), 1)) == 1


async def test_a_frame_that_arrives_byte_by_byte_is_answered(tmp_path: Path) -> None:
    async with server.serve(tmp_path / "s", HANDLERS):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        for byte in wire.request(1, "s", "Echo", b"slow"):
            writer.write(bytes([byte]))
            await writer.drain()
        head = await reader.readexactly(wire.HEADER.size)
        assert head[8] == wire.RESPONSE
        writer.close()
