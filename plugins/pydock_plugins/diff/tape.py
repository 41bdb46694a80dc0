"""The uncompressed archive as a reader sees it: a window of bytes over a queue of pieces.

Vocabulary: a *block* is the archive's unit of 512 bytes; the *data* of an entry are the bytes after its header, padded to whole blocks.
Invariants: bytes are taken in order and once; a piece is copied only when a header or a small file straddles two; the end of the
stream inside a block or an entry's data is InvalidArgument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from pydock.base import errors

BLOCK: Final = 512
CUT: Final = "layer archive is cut short"


class Tape:
    """Reads pieces from ``pull`` (b"" at the end) and hands out blocks and data."""

    __slots__ = ("_buf", "_left", "_pad", "_pos", "_pull", "_view")

    def __init__(self, pull: Callable[[], bytes]) -> None:
        self._pull = pull
        self._buf = b""
        self._view = memoryview(b"")
        self._pos = self._left = self._pad = 0

    def block(self) -> bytes | None:
        """The next 512 bytes after what the last entry left unread, None at the end of the stream."""
        if self._left or self._pad:
            self._skip(self._left + self._pad)
            self._left = self._pad = 0
        pos = self._pos
        if pos + BLOCK > len(self._buf):
            if not self._gather(BLOCK):
                return None
            pos = 0
        self._pos = pos + BLOCK
        return self._buf[pos : pos + BLOCK]

    def begin(self, size: int) -> None:
        """An entry with ``size`` bytes of data begins here."""
        self._left, self._pad = size, -size % BLOCK

    def small(self) -> memoryview | None:
        """All data of the entry when it lies in one window, else None; taken if returned."""
        end = self._pos + self._left
        if end > len(self._buf):
            return None
        view = self._view[self._pos : end]
        self._pos, self._left = end, 0
        return view

    def pieces(self) -> Iterator[memoryview]:
        """The data of the entry that are left, as they come."""
        while self._left:
            yield self.upto(self._left)

    def upto(self, size: int) -> memoryview:
        """At least one and at most ``size`` bytes of the entry's data."""
        size = min(size, self._left)
        if self._pos == len(self._buf):
            self._refill()
        end = min(self._pos + size, len(self._buf))
        view = self._view[self._pos : end]
        self._pos, self._left = end, self._left - len(view)
        return view

    def read_all(self) -> bytes:
        """The data of the entry that are left, in one; for extension headers, whose size is bounded."""
        return b"".join(self.pieces())

    def _refill(self) -> None:
        self._buf = self._pull()
        if not self._buf:
            raise errors.InvalidArgument(CUT)
        self._view, self._pos = memoryview(self._buf), 0

    def _gather(self, size: int) -> bool:
        """Make ``size`` bytes contiguous; False at the very end of the stream."""
        parts = [self._buf[self._pos :]]
        have = len(parts[0])
        while have < size:
            piece = self._pull()
            if not piece:
                break
            parts.append(piece)
            have += len(piece)
        self._buf = b"".join(parts)
        self._view, self._pos = memoryview(self._buf), 0
        if 0 < have < size:
            raise errors.InvalidArgument(CUT)
        return have > 0

    def _skip(self, size: int) -> None:
        while size > len(self._buf) - self._pos:
            size -= len(self._buf) - self._pos
            self._refill()
        self._pos += size
