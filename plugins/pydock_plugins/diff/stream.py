"""From compressed bytes to counted, hashed pieces of archive, in a thread beside the one that writes files.

Vocabulary: a *blob* is a descriptor and a watermark: bytes up to it may be read now, more may come until it is *final*.
Invariants: every byte of the uncompressed stream is hashed, those after the end-of-archive mark too, so the diff id is that of the whole
stream; what the thread holds is bounded by the queue; an error in the thread is raised to whoever pulls next.
Inflating and hashing release the GIL, so on two cores the work overlaps with the system calls of unpacking.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from typing import Final

from pydock.base import errors
from pydock_plugins.diff import inflate, limits

READ: Final = 256 * 1024
QUEUED: Final = 16

Wait = Callable[[int], tuple[int, bool]]


class Blob:
    """Compressed bytes of ``fd`` from offset 0; ``wait(beyond)`` returns (bytes available now, whether that is all)."""

    def __init__(self, fd: int, available: int, *, final: bool, wait: Wait | None = None) -> None:
        self.fd, self.available, self.final = fd, available, final
        self.offset = 0
        self._wait = wait

    def pull(self) -> bytes:
        """The next bytes, b"" at the end; DataLoss when the file is shorter than it was said to be."""
        while self.offset >= self.available:
            if self.final or self._wait is None:
                return b""
            self.available, self.final = self._wait(self.offset)
        data = os.pread(self.fd, min(READ, self.available - self.offset), self.offset)
        if not data:
            raise errors.DataLoss(f"layer blob ends at {self.offset} bytes of {self.available}")
        self.offset += len(data)
        return data


class Stream:
    """The pieces of the uncompressed archive; ``size`` and ``diff_id`` are complete when ``pull`` has returned b""."""

    def __init__(self, blob: Blob, bounds: limits.Limits) -> None:
        self._blob, self._bounds = blob, bounds
        self._hash = hashlib.sha256()
        self.size = 0
        self._pieces = inflate.pieces(blob.pull, bounds.window)

    @property
    def diff_id(self) -> str:
        """The digest of the uncompressed stream."""
        return "sha256:" + self._hash.hexdigest()

    def pull(self) -> bytes:
        """The next piece, b"" at the end; ResourceExhausted over the limits of size or ratio."""
        piece = next(self._pieces, b"")
        if piece:
            self._hash.update(piece)
            self.size += len(piece)
            if self.size > self._bounds.bytes:
                raise errors.ResourceExhausted(f"layer is over {self._bounds.bytes} bytes uncompressed")
            if self.size > self._bounds.ratio_floor and self.size > self._blob.offset * self._bounds.ratio:
                raise errors.ResourceExhausted(f"layer grows more than {self._bounds.ratio} times when uncompressed")
        return piece


class Ahead:
    """A ``Stream`` pulled by a thread of its own, at most ``QUEUED`` pieces ahead."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(QUEUED)
        self._stop = self._ended = False
        self._thread = threading.Thread(target=self._work, name="inflate", daemon=True)

    def start(self) -> None:
        """Begin to pull."""
        self._thread.start()

    def __enter__(self) -> Ahead:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._stop:
                piece = self._stream.pull()
                self._queue.put(piece)
                if not piece:
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the thread that pulls
            self._queue.put(error)

    def pull(self) -> bytes:
        """The next piece, b"" at the end, however often; raises what the thread raised."""
        if self._ended:
            return b""
        piece = self._queue.get()
        if isinstance(piece, BaseException):
            raise piece
        self._ended = not piece
        return piece
