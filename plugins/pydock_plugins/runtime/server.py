"""A small ttrpc server on a unix socket: where shims forward their events.

Vocabulary: a *handler* is a plain function from request payload to response payload, registered under (service, method).
Invariants: only root (and the daemon's own user) is served, by SO_PEERCRED; answers come in the order of the requests; a request
larger than a frame is answered ResourceExhausted and thrown away as it arrives; broken framing ends the connection; a peer that does
not read its answers is cut off; a handler's typed error is the answer, any other failure is a bug that ends that connection alone.
Works for pydock's shims and for those of containerd, which send ``Forward`` and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from pydock.base import errors, sockets
from pydock_plugins.runtime import status
from pydock_shim import wire

LOG = logging.getLogger(__name__)

MOST_UNREAD = 8 << 20  # bytes answered to a client that does not read
PEERCRED = struct.Struct("iII")

Handler = Callable[[bytes], bytes]
Handlers = Mapping[tuple[str, str], Handler]


class Server(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, handlers: Handlers, everyone: set[asyncio.Transport]) -> None:
        self._handlers = handlers
        self._everyone = everyone
        self._reader = wire.FrameReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look who it is."""
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid not in (0, os.geteuid()):
            LOG.warning("user %d is not allowed at the events socket", uid)
            cast(asyncio.Transport, transport).abort()
            return
        self._transport = cast(asyncio.Transport, transport)
        self._everyone.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._transport is not None:
            self._everyone.discard(self._transport)
            self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer every whole request, in order."""
        transport = self._transport
        if transport is None:
            return
        try:
            answers = b"".join(self._answer(*frame) for frame in self._reader.feed(data))
        except ValueError as fault:
            LOG.warning("a client of the events socket broke the protocol: %s", fault)
            transport.abort()
            return
        if answers:
            transport.write(answers)
        if transport.get_write_buffer_size() > MOST_UNREAD:
            transport.abort()

    def _answer(self, stream: int, kind: int, flags: int, body: bytes | None) -> bytes:
        if kind != wire.REQUEST:
            raise ValueError(f"a frame of type {kind} where only requests are taken")
        if not stream & 1:
            return wire.response(stream, code=wire.INVALID_ARGUMENT, message="StreamID must be odd for client initiated streams")
        if body is None:
            return wire.response(stream, code=wire.RESOURCE_EXHAUSTED, message=f"a message may have {wire.MAX_DATA} bytes")
        try:
            return wire.response(stream, self._handle(wire.decode("ttrpc.Request", body)))
        except errors.PydockError as error:
            code, message = status.to_status(error)
            return wire.response(stream, code=code, message=message)

    def _handle(self, request: wire.Message) -> bytes:
        handler = self._handlers.get((request["service"], request["method"]))
        if handler is None:
            raise errors.Unimplemented(f"service {request['service']}, method {request['method']}")
        return handler(request["payload"])


def peer_uid(sock: socket.socket) -> int:
    """Return the user at the other end of a connected unix socket (socket(7), SO_PEERCRED)."""
    _, uid, _ = PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEERCRED.size))
    return int(uid)


@asynccontextmanager
async def serve(path: Path, handlers: Handlers) -> AsyncIterator[None]:
    """Listen at ``path`` (0600) for the time of the block; connections end and the socket goes with it."""
    everyone: set[asyncio.Transport] = set()
    listener = sockets.bind(path, sockets.Access(mode=0o600))
    server = await asyncio.get_running_loop().create_unix_server(lambda: Server(handlers, everyone), sock=listener)
    try:
        yield
    finally:
        server.close()
        for transport in tuple(everyone):
            transport.abort()
        await server.wait_closed()
        sockets.remove(path)
