"""The shim's ttrpc server: connections, frames, calls.

A call is a function of the decoded request that returns the response, or a routine that will.  Nothing a client does holds up another:
replies wait in the connection they belong to, and a client that does not read them is not read from.  A client that leaves takes its
replies with it, not its calls.
"""

from __future__ import annotations

import errno
import os
import struct

from pydock_shim import loop, std, wire
from pydock_shim.std import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Handler = Callable[[dict[str, Any]], Any]

CHUNK = 65536
UNREAD_LIMIT = 1 << 20  # bytes of replies a client may leave unread before it is no longer read from
CONNECTIONS = 64
PARTIAL = 10.0  # seconds for the rest of a frame that has begun


class Connection:
    """One client."""

    def __init__(self, server: Server, peer: socket.socket) -> None:
        self.server, self.socket = server, peer
        self.fd = peer.fileno()
        self.reader = wire.FrameReader()
        self.unsent = bytearray()
        self.last_stream = 0
        self.waits: dict[int, dict[str, Any]] = {}  # by stream: Waits not answered yet
        self.timer: loop.Timer | None = None
        self.closed = False
        self._watch()

    def _watch(self) -> None:
        events = (loop.IN if len(self.unsent) < UNREAD_LIMIT else 0) | (loop.OUT if self.unsent else 0)
        self.server.loop.watch(self.fd, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & loop.OUT:
            self._flush()
        if not self.closed and events & (loop.IN | loop.GONE):
            self._receive()

    def _receive(self) -> None:
        try:
            data = self.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        for stream, kind, _flags, body in self.reader.feed(data):
            self._frame(stream, kind, body)
            if self.closed:
                return
        self._mind_partial()

    def _mind_partial(self) -> None:
        """A frame that has begun must end in time, however its bytes trickle in."""
        if not self.reader.partial:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
        elif self.timer is None:
            self.timer = self.server.loop.after(PARTIAL, self.close)

    def _frame(self, stream: int, kind: int, body: bytes | None) -> None:
        if kind not in (wire.REQUEST, wire.DATA):
            self.close()  # a client that answers is out of step for good
        elif body is None:
            self.reply(stream, wire.RESOURCE_EXHAUSTED, f"message length exceed maximum message size of {wire.MAX_DATA}")
        elif kind == wire.DATA:
            self.reply(stream, wire.INVALID_ARGUMENT, "StreamID is not of a stream: no method here is streaming")
        elif stream % 2 == 0:
            self.reply(stream, wire.INVALID_ARGUMENT, "StreamID must be odd for client initiated streams")
        elif stream <= self.last_stream:
            self.reply(stream, wire.INVALID_ARGUMENT, "StreamID cannot be re-used and must increment")
        else:
            self.last_stream = stream
            self.server.call(self, stream, body)

    def reply(self, stream: int, code: int, message: str = "", payload: bytes = b"") -> None:
        if self.closed:
            return
        self.unsent += wire.response(stream, payload, code, message)
        self._flush()

    def _flush(self) -> None:
        try:
            while self.unsent:
                del self.unsent[: self.socket.send(self.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._watch()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.timer is not None:
            self.timer.cancel()
        self.server.loop.forget(self.fd)
        self.server.connections.discard(self)
        self.socket.close()


class Server:
    """Listens; ``handlers`` maps a method name to what answers it; ``on_connect`` hears of each new client."""

    def __init__(self, main: loop.Loop, listener: socket.socket, handlers: dict[str, Handler], on_connect: Callable[[], None]) -> None:
        self.loop, self.listener, self.handlers, self.on_connect = main, listener, handlers, on_connect
        self.connections: set[Connection] = set()
        self.busy = 0  # calls under way, but for Waits without a deadline
        self.activity = 0  # calls ever begun
        listener.setblocking(False)
        main.watch(listener.fileno(), loop.IN, self._accept)

    def _accept(self, _: int) -> None:
        try:
            peer = std.accept(self.listener)
        except BlockingIOError:
            return
        except OSError as error:
            # Out of descriptors: the client stays in the queue, and so must not keep the loop busy.
            self.loop.log(f"accept: {error}")
            self.loop.forget(self.listener.fileno())
            self.loop.after(0.1, lambda: self.loop.watch(self.listener.fileno(), loop.IN, self._accept))
            return
        _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()) or len(self.connections) >= CONNECTIONS:
            peer.close()
            return
        self.adopt(peer, 0)
        self.on_connect()

    def adopt(self, peer: socket.socket, last_stream: int) -> Connection:
        """Serve a client that is connected."""
        connection = Connection(self, peer)
        connection.last_stream = last_stream
        self.connections.add(connection)
        return connection

    def call(self, connection: Connection, stream: int, body: bytes) -> None:
        """Answer one request, now or later."""
        try:
            request = wire.decode("ttrpc.Request", body)
            method = request["method"]
            self._check(request["service"], method)
            message = wire.decode(wire.TASK_METHODS[method][0], request["payload"])
        except ValueError as error:
            connection.reply(stream, wire.INVALID_ARGUMENT, str(error))
        except loop.RpcError as error:
            connection.reply(stream, error.code, error.message)
        else:
            self.handle(connection, stream, method, message, request["timeout_nano"])

    def handle(self, connection: Connection, stream: int, method: str, message: dict[str, Any], limit: int) -> None:
        """Have ``message`` answered on ``stream``, within ``limit`` ns if that is not 0."""
        self.activity += 1
        lasting = method == "Wait" and limit <= 0
        if lasting:
            connection.waits[stream] = message
        else:
            self.busy += 1

        def done(_: loop.Promise) -> None:
            if lasting:
                connection.waits.pop(stream, None)
            else:
                self.busy -= 1

        def answer(promise: loop.Promise) -> None:
            error = promise.error
            if error is None:
                connection.reply(stream, wire.OK, payload=wire.encode(wire.TASK_METHODS[method][1], promise.value or {}))
            elif isinstance(error, loop.RpcError):
                connection.reply(stream, error.code, error.message)

        result = self.loop.start(_routine(self.handlers[method], message))
        result.then(done)
        (self._limited(result, limit) if limit > 0 and not result.done else result).then(answer)

    def _limited(self, result: loop.Promise, limit: int) -> loop.Promise:
        """``result``, or the end of the client's patience after ``limit`` ns."""
        answered = loop.Promise()
        late = loop.RpcError(wire.DEADLINE_EXCEEDED, "context deadline exceeded")
        timer = self.loop.after(limit / 1e9, lambda: answered.fail(late))
        result.then(answered.follow)
        answered.then(lambda _: timer.cancel())
        return answered

    def _check(self, service: str, method: str) -> None:
        if service not in wire.TASK_SERVICES:
            raise loop.RpcError(wire.UNIMPLEMENTED, f"service {service}")
        if method not in self.handlers:
            raise loop.RpcError(wire.UNIMPLEMENTED, f"method {method}")

    def close(self) -> None:
        """Stop listening; clients that are connected stay."""
        self.loop.forget(self.listener.fileno())
        self.listener.close()


def _routine(handler: Handler, message: dict[str, Any]) -> loop.Routine:
    result: Any = handler(message)
    if not isinstance(result, loop.GENERATOR):
        return result
    return (yield from result)


def listen(path: str) -> socket.socket:
    """A listening unix socket at ``path``, for its owner alone.  A dead one that is in the way is replaced.  ``OSError``."""
    if len(os.fsencode(path)) > 106:
        raise OSError(errno.ENAMETOOLONG, "socket path is longer than 106 bytes", path)
    listener = std.stream_socket()
    try:
        before = os.umask(0o177)
        try:
            _bind(listener, path)
        finally:
            os.umask(before)
        listener.listen(CONNECTIONS)
    except OSError:
        listener.close()
        raise
    return listener


def _bind(listener: socket.socket, path: str) -> None:
    try:
        listener.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            error.filename = path
            raise
        other = std.stream_socket()
        result = other.connect_ex(path)
        other.close()
        if result != errno.ECONNREFUSED:  # refused: nobody listens there any more
            error.filename = path
            raise
        os.unlink(path)
        listener.bind(path)
