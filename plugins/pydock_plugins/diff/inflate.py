"""Decompression of a layer as it arrives: gzip, zstd or none, told apart by the first bytes.

Vocabulary: a *piece* is up to about 1 MiB of uncompressed bytes; a *member* or *frame* is one self-contained compressed unit, of which a
stream may hold several. A *pull* is a function that returns the next compressed bytes, b"" at the end of the blob.
Invariants: one call never makes more than a bounded amount of output, whatever the ratio; a stream that ends inside a member or frame,
fails its checksum or carries other bytes after its last member is InvalidArgument. Sources: RFC 1952, RFC 8878 section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, cast

import zstandard
from isal import igzip_lib

from pydock.base import errors

PIECE: Final = 256 * 1024
GZIP_MAGIC: Final = b"\x1f\x8b\x08"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK: Final = 128 * 1024
_WHOLE_BLOCKS: Final = 4

_GZIP_ERROR: Final = cast("type[Exception]", igzip_lib.IsalError)

Pull = Callable[[], bytes]


def kind(start: bytes) -> str:
    """``gzip``, ``zstd`` or ``tar`` for a stream that begins with ``start`` (at least four bytes unless it is shorter)."""
    if start[:3] == GZIP_MAGIC:
        return "gzip"
    if start[:4] == ZSTD_MAGIC or _is_skippable(start[:4]):
        return "zstd"
    return "tar"


def pieces(pull: Pull, window: int) -> Iterator[bytes]:
    """The uncompressed bytes of the stream ``pull`` reads, in pieces; zstd windows over ``window`` bytes are refused.

    The first bytes decide, not the media type: images with a wrong one are common and containerd takes them too.
    """
    start = b""
    while len(start) < 4 and (more := pull()):
        start += more
    match kind(start):
        case "gzip":
            yield from _gzip(start, pull)
        case "zstd":
            yield from _zstd(start, pull, window)
        case _:
            yield from _plain(start, pull)


def _plain(start: bytes, pull: Pull) -> Iterator[bytes]:
    data = start
    while data:
        yield data
        data = pull()


def _gzip(data: bytes, pull: Pull) -> Iterator[bytes]:
    member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    while True:
        try:
            piece = member.decompress(data, PIECE)
        except _GZIP_ERROR as error:
            raise errors.InvalidArgument(f"layer is not valid gzip: {error}") from error
        data = b""
        if piece:
            yield piece
        if member.eof:
            data = member.unused_data or pull()
            if not data:
                return
            while len(data) < 3 and (more := pull()):
                data += more
            if data[:3] != GZIP_MAGIC:
                raise errors.InvalidArgument("layer is not valid gzip: other bytes follow its last member")
            member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        elif member.needs_input:
            data = pull()
            if not data:
                raise errors.InvalidArgument("layer is not valid gzip: it is cut short")


def _is_skippable(magic: bytes) -> bool:
    return len(magic) == 4 and magic[0] & 0xF0 == 0x50 and magic[1:] == b"\x2a\x4d\x18"


def _zstd(start: bytes, pull: Pull, window: int) -> Iterator[bytes]:
    """Feed the decoder a few blocks at a time: each holds at most 128 KiB, so the output of one call is bounded."""
    source = _Bytes(start, pull)
    while magic := source.upto(4):
        if _is_skippable(magic):
            source.skip(int.from_bytes(source.exactly(4), "little"))
        elif magic == ZSTD_MAGIC:
            yield from _frame(source, window)
        else:
            raise errors.InvalidArgument("layer is not valid zstd: other bytes follow its last frame")


def _frame(source: _Bytes, window: int) -> Iterator[bytes]:
    header, checksum = _frame_header(source, window)
    decoder = zstandard.ZstdDecompressor(max_window_size=max(window, 1024)).decompressobj()
    fed, last = [ZSTD_MAGIC + header], False
    try:
        while not last:
            for _ in range(_WHOLE_BLOCKS):
                block = source.exactly(3)
                head = int.from_bytes(block, "little")
                last, size = bool(head & 1), head >> 3
                if size > _ZSTD_BLOCK:
                    raise errors.InvalidArgument("layer is not valid zstd: a block is larger than 128 KiB")
                fed.append(block + source.exactly(1 if head >> 1 & 3 == 1 else size))
                if last:
                    fed.append(source.exactly(4) if checksum else b"")
                    break
            if piece := decoder.decompress(b"".join(fed)):
                yield piece
            fed.clear()
    except zstandard.ZstdError as error:
        raise errors.InvalidArgument(f"layer is not valid zstd: {error}") from error
    if not decoder.eof:
        raise errors.InvalidArgument("layer is not valid zstd: a frame does not end where its last block does")


def _frame_header(source: _Bytes, window: int) -> tuple[bytes, bool]:
    """Frame header without magic, and whether a checksum follows the frame (RFC 8878 section 3.1.1.1)."""
    first = source.exactly(1)
    flags = first[0]
    single, dictionary = bool(flags & 0x20), (0, 1, 2, 4)[flags & 3]
    content = (1 if single else 0, 2, 4, 8)[flags >> 6]
    rest = source.exactly((0 if single else 1) + dictionary + content)
    if single:
        field = rest[dictionary : dictionary + content]
        needed = int.from_bytes(field, "little") + (256 if content == 2 else 0)
        needed = min(needed, 1 << 62)
    else:
        base = 1 << (10 + (rest[0] >> 3))
        needed = base + base // 8 * (rest[0] & 7)
    if needed > window:
        raise errors.ResourceExhausted(f"layer needs a zstd window of {needed} bytes, the limit is {window}")
    return first + rest, bool(flags & 4)


class _Bytes:
    """The pulled stream as counted reads."""

    def __init__(self, start: bytes, pull: Pull) -> None:
        self._data, self._pos, self._pull = start, 0, pull

    def upto(self, size: int) -> bytes:
        """The next ``size`` bytes, or b"" when the stream is at its end; InvalidArgument between the two."""
        while len(self._data) - self._pos < size:
            more = self._pull()
            if not more:
                if self._pos == len(self._data):
                    return b""
                raise errors.InvalidArgument("layer is not valid zstd: it is cut short")
            self._data, self._pos = self._data[self._pos :] + more, 0
        start = self._pos
        self._pos = start + size
        return self._data[start : self._pos]

    def exactly(self, size: int) -> bytes:
        """The next ``size`` bytes; InvalidArgument when there are fewer."""
        data = self.upto(size)
        if len(data) != size:
            raise errors.InvalidArgument("layer is not valid zstd: it is cut short")
        return data

    def skip(self, size: int) -> None:
        """Drop ``size`` bytes without holding them."""
        while size:
            here = min(size, len(self._data) - self._pos)
            if not here:
                self._data, self._pos = self._pull(), 0
                if not self._data:
                    raise errors.InvalidArgument("layer is not valid zstd: it is cut short")
                continue
            self._pos += here
            size -= here
