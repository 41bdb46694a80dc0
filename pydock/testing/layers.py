"""Layer archives to the byte, right ones and wrong ones, for tests of whatever reads them.

Vocabulary: an *entry* is a header block with its padded data; an *extension* an entry that describes the next one.
Invariant: nothing is checked or put right here: what a test asks for is what the archive says; only the checksum is made true.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR = b"ustar\x0000"
GNU = b"ustar  \0"


@dataclass(frozen=True, slots=True)
class Meta:
    """Header fields with a default; ``raw`` puts bytes at offsets of the header block, before its checksum is made."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_600_000_000
    major: int = 0
    minor: int = 0
    magic: bytes = USTAR
    size: int | None = None
    raw: Mapping[int, bytes] = field(default_factory=dict)


def number(value: int, width: int) -> bytes:
    """``value`` as octal, or in base 256 where octal has no room or it is negative."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return bytes([0x80 if value >= 0 else 0xFF]) + value.to_bytes(width - 1, "big", signed=value < 0)


def entry(name: bytes, kind: bytes, data: bytes = b"", link: bytes = b"", meta: Meta = Meta()) -> bytes:
    """One entry; a name or link over 100 bytes gets a GNU extension."""
    before = b""
    if len(name) > 100:
        before += entry(b"././@LongLink", b"L", name + b"\0", meta=Meta(magic=GNU))
    if len(link) > 100:
        before += entry(b"././@LongLink", b"K", link + b"\0", meta=Meta(magic=GNU))
    block = bytearray(BLOCK)
    size = len(data) if meta.size is None else meta.size
    fields = (
        (0, name[:100]), (100, number(meta.mode, 8)), (108, number(meta.uid, 8)), (116, number(meta.gid, 8)), (124, number(size, 12)),
        (136, number(meta.mtime, 12)), (148, b" " * 8), (156, kind), (157, link[:100]), (257, meta.magic),
        (329, number(meta.major, 8)), (337, number(meta.minor, 8)), *meta.raw.items(),
    )  # fmt: skip
    for offset, value in fields:
        block[offset : offset + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return before + bytes(block) + data + bytes(-len(data) % BLOCK)


def file(name: bytes, data: bytes = b"", meta: Meta = Meta()) -> bytes:
    """A regular file."""
    return entry(name, b"0", data, meta=meta)


def directory(name: bytes, mode: int = 0o755, meta: Meta | None = None) -> bytes:
    """A directory."""
    return entry(name, b"5", meta=meta or Meta(mode=mode))


def symlink(target: bytes, name: bytes, meta: Meta = Meta(mode=0o777)) -> bytes:
    """A symbolic link ``name`` to ``target``."""
    return entry(name, b"2", link=target, meta=meta)


def hardlink(target: bytes, name: bytes, meta: Meta = Meta()) -> bytes:
    """A further name for ``target``."""
    return entry(name, b"1", link=target, meta=meta)


def pax(records: Mapping[bytes, bytes] | Sequence[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """A PAX extension (``kind`` b"g": a global one)."""
    pairs = records.items() if isinstance(records, Mapping) else records
    return raw_pax(b"".join(record(key, value) for key, value in pairs), kind)


def raw_pax(data: bytes, kind: bytes = b"x") -> bytes:
    """A PAX extension with ``data`` whatever it is."""
    return entry(b"PaxHeaders/x", kind, data)


def record(key: bytes, value: bytes) -> bytes:
    """One PAX record, its length counted in."""
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    size = rest + len(str(size))
    return b"%d %s=%s\n" % (size, key, value)


def tar(*entries: bytes) -> bytes:
    """A whole archive."""
    return b"".join(entries) + END


def gzipped(archive: bytes) -> bytes:
    """``archive`` as one gzip member, the same bytes in every run."""
    return gzip.compress(archive, 1, mtime=0)
