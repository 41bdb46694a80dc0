"""Task events on their way to the daemon, in order, over one kept ttrpc connection.

An event leaves the queue when the daemon has answered for it, so each arrives at least once, and one after the other.  While the daemon is
away events wait: exits always (there is at most one for a process), of the others the newest ``LIMIT``.  Another try is made after a
growing pause, and at once when somebody connects to the shim, which is what a daemon that came back does.
"""

from __future__ import annotations

import errno
import time

from pydock_shim import loop, std, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pydock_shim.std import socket

LIMIT = 1024  # events that wait, exits not counted
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0  # seconds
ANSWER = 20.0  # seconds for the daemon to answer before the connection is given up
TEMPORARY = (wire.UNAVAILABLE, wire.DEADLINE_EXCEEDED, wire.RESOURCE_EXHAUSTED, wire.CANCELLED)
EXIT = "/tasks/exit"


class Events:
    """The queue and its connection; ``address`` is the path of the daemon's ttrpc socket, "" to tell nobody."""

    def __init__(self, main: loop.Loop, namespace: str, address: str) -> None:
        self.loop, self.namespace, self.address = main, namespace, address
        self.empty = loop.Promise()
        self.empty.resolve()
        self._queue: list[tuple[str, bytes]] = []
        self._socket: socket.socket | None = None
        self._reader = wire.FrameReader()
        self._unsent = b""
        self._stream = 1
        self._waiting = False  # for the answer to the first of the queue
        self._pause = FIRST_PAUSE
        self._timer: loop.Timer | None = None

    def publish(self, topic: str, table: str, event: dict[str, Any]) -> None:
        """Queue ``event``, a message of ``containerd.events.<table>``."""
        if not self.address:
            return
        name = "containerd.events." + table
        envelope = {
            "timestamp": time.time_ns(),
            "namespace": self.namespace,
            "topic": topic,
            "event": {"type_url": name, "value": wire.encode(name, event)},
        }
        self._queue.append((topic, wire.encode("containerd.services.events.ttrpc.v1.ForwardRequest", {"envelope": envelope})))
        self._drop_surplus()
        if self.empty.done:
            self.empty = loop.Promise()
        if self._timer is None:
            self.loop.soon(self._go_on)

    def retry(self) -> None:
        """Somebody is there again: try now."""
        if self._queue and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._pause = FIRST_PAUSE
            self._go_on()

    def _drop_surplus(self) -> None:
        if len(self._queue) <= LIMIT:
            return
        # The first may be on its way already.
        others = [entry for entry in self._queue[1:] if entry[0] != EXIT]
        if len(others) > LIMIT:
            self._queue.remove(others[0])

    def _go_on(self) -> None:
        """Send the first of the queue, unless it is under way."""
        if self._waiting or not self._queue or self._timer is not None:
            return
        if self._socket is None and not self._connect():
            return
        self._unsent = wire.request(self._stream, wire.EVENTS_SERVICE, "Forward", self._queue[0][1])
        self._waiting = True
        self._timer = self.loop.after(ANSWER, self._fail)
        self._send()

    def _connect(self) -> bool:
        peer = std.stream_socket()
        result = peer.connect_ex(self.address)
        if result:
            peer.close()
            # EAGAIN: its queue of connections is full
            self._later()
            if result not in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
                self.loop.log(f"events: connect to {self.address}: {errno.errorcode.get(result, result)}")
            return False
        self._socket, self._reader, self._stream = peer, wire.FrameReader(), 1
        self.loop.watch(peer.fileno(), loop.IN, self._ready)
        return True

    def close(self) -> None:
        """Give up the connection and what waits."""
        self._queue.clear()
        self._fail()

    def _later(self) -> None:
        self._timer = self.loop.after(self._pause, self._again)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _again(self) -> None:
        self._timer = None
        self._go_on()

    def _fail(self) -> None:
        """Give up the connection; the first of the queue will be sent again."""
        if self._socket is not None:
            self.loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting, self._unsent = False, b""
        if self._queue:
            self._later()

    def _send(self) -> None:
        if self._socket is None:
            return
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._fail()
            return
        self.loop.watch(self._socket.fileno(), loop.IN | (loop.OUT if self._unsent else 0), self._ready)

    def _ready(self, events: int) -> None:
        if events & (loop.IN | loop.GONE):
            self._receive()
        if self._unsent and events & loop.OUT:
            self._send()

    def _receive(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(65536)
            frames = list(self._reader.feed(data))
        except BlockingIOError:
            return
        except OSError:
            data, frames = b"", []
        if not data:
            self._fail()
            return
        for stream, kind, _flags, body in frames:
            if stream == self._stream and kind == wire.RESPONSE and self._waiting:
                self._answered(body)

    def _answered(self, body: bytes | None) -> None:
        try:
            status = wire.decode("ttrpc.Response", body or b"")["status"]
        except ValueError as error:
            status = {"code": wire.INTERNAL, "message": str(error)}
        if status is not None and status["code"] in TEMPORARY:
            self._fail()
            return
        if status is not None and status["code"]:
            self.loop.log(f"events: {self._queue[0][0]} refused: {status['message']}")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queue.pop(0)
        self._waiting = False
        self._stream += 2
        self._pause = FIRST_PAUSE
        if self._queue:
            self._go_on()
        else:
            self.empty.resolve()
