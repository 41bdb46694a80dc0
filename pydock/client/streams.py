"""Named streams (the Streaming service) and byte pipes with a window over them.

Vocabulary: a *stream* carries packed messages both ways under an id the client chose; a *byte pipe* carries ``Data`` one way and
``WindowUpdate`` the other, so that the receiver bounds what is in flight.
Invariants: a sender never has more bytes under way than the receiver granted; a stream is named to the daemon
only after its acknowledgement.
Source: containerd's transfer streaming protocol (64 KiB window, 32 KiB messages).
"""

from __future__ import annotations

import base64
import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from google.protobuf import any_pb2

from pydock._proto.containerd.services.streaming.v1 import streaming_pb2 as api
from pydock._proto.containerd.types.transfer import streaming_pb2 as wire
from pydock.base import errors
from pydock.client import anys
from pydock.client.connection import Connection, Talk

LARGEST_DATA = 32 << 10
WINDOW = 2 * LARGEST_DATA


class Sink(Protocol):
    """Takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Take ``data``."""


class Stream:
    """One open stream. ``receive`` may be used by one thread while others ``send``."""

    def __init__(self, conn: Connection, kind: str) -> None:
        """Open a stream whose id begins with ``kind``. Raises the PydockError the daemon answers with."""
        self.id = f"{kind}-{time.time_ns() % 1_000_000_000}-{base64.urlsafe_b64encode(secrets.token_bytes(3)).decode()}"
        self._outbox: queue.SimpleQueue[any_pb2.Any | None] = queue.SimpleQueue()
        self._outbox.put(anys.pack(api.StreamInit(id=self.id)))
        self._talk: Talk[any_pb2.Any] = conn.converse(
            "/containerd.services.streaming.v1.Streaming/Stream", iter(self._outbox.get, None), any_pb2.Any
        )
        if self.receive() is None:
            raise errors.Unavailable(f"stream {self.id} was not acknowledged")

    def send(self, message: any_pb2.Any) -> None:
        """Queue one message."""
        self._outbox.put(message)

    def receive(self) -> any_pb2.Any | None:
        """Wait for the next message; None when the stream has ended, however it ended well or by our `cancel`."""
        try:
            return next(self._talk)
        except (StopIteration, errors.Canceled):
            return None

    def close(self) -> None:
        """End our direction."""
        self._outbox.put(None)

    def cancel(self) -> None:
        """End both directions now."""
        self._outbox.put(None)
        self._talk.cancel()


class Worker(threading.Thread):
    """A helper thread that keeps the error it ended with for `finish`."""

    def __init__(self, body: Callable[[], object], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._body = body
        self._error: Exception | None = None

    def run(self) -> None:
        """Do the work."""
        try:
            self._body()
        except (OSError, errors.PydockError) as error:
            self._error = error

    def finish(self, seconds: float | None = None) -> bool:
        """Wait for the end (at most ``seconds``), raise what went wrong, tell whether it has ended."""
        self.join(seconds)
        if self._error is not None:
            raise self._error
        return not self.is_alive()


def send_bytes(stream: Stream, source: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
    """Send all of ``source`` down ``stream`` within the receiver's window, then end our direction."""
    granted = 0
    try:
        while True:
            while granted <= 0:
                update = stream.receive()
                if update is None:
                    return
                window = anys.unpack(update, wire.WindowUpdate)
                granted += window.update if window is not None else 0
            data = source.read(min(LARGEST_DATA, granted))
            if not data:
                return
            granted -= len(data)
            stream.send(anys.pack(wire.Data(data=data)))
            if progress is not None:
                progress(len(data))
    finally:
        stream.close()


def receive_bytes(stream: Stream, sink: Sink) -> int:
    """Write all that comes up ``stream`` to ``sink``; return how many bytes it was. Raises OSError of the sink."""
    total, granted = 0, 0
    try:
        while True:
            if granted < WINDOW:
                stream.send(anys.pack(wire.WindowUpdate(update=WINDOW)))
                granted += WINDOW
            packed = stream.receive()
            if packed is None:
                return total
            data = anys.unpack(packed, wire.Data)
            if data is not None:
                sink.write(data.data)
                total += len(data.data)
                granted -= len(data.data)
    except OSError:
        stream.cancel()
        raise
    finally:
        stream.close()


@contextlib.contextmanager
def opened(conn: Connection, kind: str) -> Iterator[Stream]:
    """Open a stream for the block; what is still under way at its end is cancelled."""
    stream = Stream(conn, kind)
    try:
        yield stream
    finally:
        stream.cancel()
