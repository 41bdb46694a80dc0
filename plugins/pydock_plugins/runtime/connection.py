"""A ttrpc client on a unix socket: many calls at once over one connection.

Vocabulary: a *call* is one unary request and its answer under an odd, growing stream id; a *method* is a full service name and a
method name.  Invariants: every call ends: by its answer, by its time bound (DeadlineExceeded) or by the end of the connection
(Unavailable for all that wait); a peer that breaks the framing, answers what was not asked or does not read is cut off, never trusted
and never buffered for without bound; an answer that comes after its call was given up is dropped.
Source: the ttrpc protocol description in containerd/ttrpc.
"""

from __future__ import annotations

import asyncio
import functools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

from pydock.base import errors
from pydock_plugins.runtime import status
from pydock_shim import wire

NAMESPACE_KEY = "containerd-namespace-ttrpc"
MOST_CALLS = 4096
MOST_UNREAD = 8 << 20  # bytes written to a peer that does not read
CONNECT_SECONDS = 5.0
LAST_STREAM = (1 << 32) - 1

OnLost = Callable[[], None]


@functools.lru_cache(maxsize=256)
def _opening(service: str, method: str, namespace: str, timeout: float | None) -> bytes:
    """The part of a request that is the same for every call of a method; protobuf messages are joined by concatenation."""
    head = {
        "service": service,
        "method": method,
        "timeout_nano": int(timeout * 1_000_000_000) if timeout else 0,
        "metadata": [{"key": NAMESPACE_KEY, "value": namespace}] if namespace else [],
    }
    return wire.encode("ttrpc.Request", head)


class Connection(asyncio.Protocol):
    """One connection to a shim; made by ``connect``."""

    def __init__(self, namespace: str, on_lost: OnLost | None = None) -> None:
        self._namespace = namespace
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._reader = wire.FrameReader()
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._next = 1
        self._why = "the shim closed its connection"

    # what callers use

    @property
    def alive(self) -> bool:
        """Tell whether calls can be made."""
        return self._transport is not None and not self._transport.is_closing()

    def request(self, service: str, method: str, payload: bytes, timeout: float | None = None) -> asyncio.Future[bytes]:
        """Send a call and return the future of its answer; cancelling the future gives the call up.

        Raises Unavailable when the connection is closed or full, ResourceExhausted for a payload of more than a frame.
        """
        transport = self._usable()
        stream, self._next = self._next, self._next + 2
        opening = _opening(service, method, self._namespace, timeout)
        body = opening + wire.encode("ttrpc.Request", {"payload": payload})
        if len(body) > wire.MAX_DATA:
            raise errors.ResourceExhausted(f"a request of {len(body)} bytes to a shim; {wire.MAX_DATA} are allowed")
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._pending[stream] = future
        future.add_done_callback(lambda _: self._pending.pop(stream, None))
        transport.write(wire.HEADER.pack(len(body), stream, wire.REQUEST, 0) + body)
        return future

    async def call(self, service: str, method: str, payload: bytes, timeout: float | None) -> bytes:
        """Return the answer of a call within ``timeout`` seconds (None: however long it takes).

        Raises what ``request`` raises, DeadlineExceeded, and the error the peer answers with.
        """
        future = self.request(service, method, payload, timeout)
        timer = self._loop.call_later(timeout, _expire, future, method, timeout) if timeout else None
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Close the connection without telling ``on_lost``; calls that wait get Unavailable."""
        self._on_lost = None
        self._why = "the daemon closed the connection to the shim"
        if self._transport is not None:
            self._transport.abort()

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Give every whole frame to the call it answers; a fault ends the connection."""
        try:
            for stream, kind, _, body in self._reader.feed(data):
                self._frame(stream, kind, body)
        except (ValueError, struct.error) as fault:
            self._why = f"the shim broke the protocol: {fault}"
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail all that wait, then tell the owner."""
        self._transport = None
        waiting, self._pending = self._pending, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(errors.Unavailable(self._why))
        if self._on_lost is not None:
            self._on_lost()

    def _usable(self) -> asyncio.Transport:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise errors.Unavailable(self._why)
        if len(self._pending) >= MOST_CALLS or transport.get_write_buffer_size() > MOST_UNREAD:
            raise errors.Unavailable(f"the shim does not answer: {len(self._pending)} calls wait")
        if self._next > LAST_STREAM:
            self._why = "the connection ran out of stream ids"
            transport.abort()
            raise errors.Unavailable(self._why)
        return transport

    def _frame(self, stream: int, kind: int, body: bytes | None) -> None:
        if kind != wire.RESPONSE or not stream & 1 or stream >= self._next:
            raise ValueError(f"a frame of type {kind} on stream {stream} answers nothing")
        future = self._pending.get(stream)
        if future is None or future.done():
            return
        if body is None:
            future.set_exception(errors.ResourceExhausted(f"the shim's answer is larger than {wire.MAX_DATA} bytes"))
            return
        answer = wire.decode("ttrpc.Response", body)
        failure = answer["status"]
        if failure is not None and failure["code"]:
            future.set_exception(status.to_error(failure["code"], failure["message"]))
        else:
            future.set_result(answer["payload"])


def _expire(future: asyncio.Future[bytes], method: str, seconds: float) -> None:
    if not future.done():
        future.set_exception(errors.DeadlineExceeded(f"the shim did not answer {method} within {seconds:g} s"))


async def connect(address: Path | str, namespace: str, on_lost: OnLost | None = None, timeout: float = CONNECT_SECONDS) -> Connection:
    """Connect to the socket at ``address``; calls carry ``namespace``.  Raises Unavailable."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            _, protocol = await loop.create_unix_connection(lambda: Connection(namespace, on_lost), str(address))
    except TimeoutError:
        raise errors.Unavailable(f"nobody took the connection to {address} within {timeout:g} s") from None
    except OSError as error:
        raise errors.Unavailable(f"{address}: {error.strerror or error}") from error
    return protocol
