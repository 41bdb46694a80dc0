"""Archives as clients send them, plain or compressed: the magic of the first bytes tells gzip and zstd from a tar.

Invariant: what is held is bounded, whatever the archive says of itself: input is fed in small pieces, and a piece that becomes thousands
of times larger is a bomb (ResourceExhausted).  Sources: RFC 1952 (gzip), RFC 8878 (zstd).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from pydock.base import errors

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PIECE = 4 << 10  # bytes of input at a time
_BURST = 16 << 20  # bytes a piece may become
_STEP = 1 << 20
_WINDOW = 128 << 20  # bytes zstd may look back


async def inflated(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the bytes of a stream without its compression.  InvalidArgument for one that is damaged or cut short."""
    head = b""
    async for part in data:
        head += part
        if len(head) >= len(ZSTD):
            break
    engine = _Gzip() if head.startswith(GZIP) else _Zstd() if head.startswith(ZSTD) else None
    if engine is None:
        if head:
            yield head
        async for part in data:
            yield part
        return
    for piece in _pieces(head):
        for out in engine.feed(piece):
            yield out
    async for part in data:
        for piece in _pieces(part):
            for out in engine.feed(piece):
                yield out
    engine.end()


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), _PIECE):
        yield data[at : at + _PIECE]


class _Gzip:
    """Members of gzip, one after the other."""

    def __init__(self) -> None:
        from isal import isal_zlib

        self._kind: Any = isal_zlib
        self._member: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        grown = 0
        while data:
            if self._member is None:
                if not data.strip(b"\0"):
                    return  # padding behind the last member
                self._member = self._kind.decompressobj(31)
            try:
                out = self._member.decompress(data, _STEP)
            except self._kind.error as error:
                raise errors.InvalidArgument(f"compressed archive is damaged: {error}") from error
            grown = _checked(grown + len(out))
            if out:
                yield out
            ended = self._member.eof
            data = self._member.unused_data if ended else self._member.unconsumed_tail
            self._member = None if ended else self._member

    def end(self) -> None:
        if self._member is not None:
            raise errors.InvalidArgument("compressed archive is cut short")


class _Zstd:
    """Frames of zstd, one after the other."""

    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._frames = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._frame: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        grown = 0
        while data:
            self._frame = self._frame or self._frames.decompressobj(write_size=_STEP)
            # Pieces of a few bytes: a block of four may stand for 128 KiB, and this engine knows no limit of its own.
            piece, data = data[:256], data[256:]
            try:
                out = self._frame.decompress(piece)
            except self._error as error:
                raise errors.InvalidArgument(f"compressed archive is damaged: {error}") from error
            grown = _checked(grown + len(out))
            if out:
                yield out
            if self._frame.eof:
                data = self._frame.unused_data + data
                self._frame = None

    def end(self) -> None:
        if self._frame is not None:
            raise errors.InvalidArgument("compressed archive is cut short")


def _checked(grown: int) -> int:
    if grown > _BURST:
        raise errors.ResourceExhausted(f"compressed archive grows more than {_BURST // _PIECE} times")
    return grown
