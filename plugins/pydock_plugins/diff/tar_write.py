"""Layer archives to the byte: ustar blocks, with PAX records before an entry for whatever those blocks cannot say.

Vocabulary: a *block* is 512 bytes; a *record* is PAX's ``"<length> <key>=<value>\\n"``.
Invariants: equal entries give equal bytes (records come in one order, no names of users, no process id, no access or change times);
names, links and attributes are bytes and stay so. Sources: POSIX.1-2017 pax; ``SCHILY.xattr.`` from star(1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydock_plugins.diff import headers, pax

BLOCK: Final = headers.BLOCK
END: Final = bytes(2 * BLOCK)

_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_NAME: Final = 100
_SEVEN: Final = 8**7
_ELEVEN: Final = 8**11
_EXTENSION: Final = b"x"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file to be written: ``kind`` as in `headers`, ``mtime`` in ns, ``size`` of the data that follows, ``device`` (major, minor)."""

    name: bytes
    kind: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Sequence[tuple[bytes, bytes]] = ()


def header(entry: Entry) -> bytes:
    """The blocks before an entry's data."""
    records = b"".join(_record(key, value) for key, value in _records(entry))
    block = _block(entry)
    if not records:
        return block
    base = entry.name.rstrip(b"/").rpartition(b"/")[2]
    extension = Entry(b"PaxHeaders.0/" + base, _EXTENSION, 0o644, size=len(records))
    return _block(extension) + records + padding(len(records)) + block


def padding(size: int) -> bytes:
    """The zeros that fill the last block of ``size`` bytes of data."""
    return bytes(-size % BLOCK)


def _records(entry: Entry) -> Iterator[tuple[bytes, bytes]]:
    seconds, nanos = divmod(entry.mtime, pax.SECOND)
    if nanos or not 0 <= seconds < _ELEVEN:
        yield b"mtime", _time(entry.mtime)
    if len(entry.name) > _NAME:
        yield b"path", entry.name
    if len(entry.link) > _NAME:
        yield b"linkpath", entry.link
    for key, value, bound in ((b"uid", entry.uid, _SEVEN), (b"gid", entry.gid, _SEVEN), (b"size", entry.size, _ELEVEN)):
        if value >= bound:
            yield key, b"%d" % value
    for key, attribute in entry.xattrs:
        yield pax.XATTR + key, attribute


def _time(ns: int) -> bytes:
    """Decimal seconds; the sign stands before whole seconds and fraction alike."""
    seconds, nanos = divmod(abs(ns), pax.SECOND)
    fraction = (b".%09d" % nanos).rstrip(b"0") if nanos else b""
    return (b"-" if ns < 0 else b"") + b"%d" % seconds + fraction


def _record(key: bytes, value: bytes) -> bytes:
    """A record says its own length, digits included."""
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    if length != rest + len(b"%d" % length):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _block(entry: Entry) -> bytes:
    seconds = entry.mtime // pax.SECOND
    fields = [
        entry.name[:_NAME], _octal(entry.mode, 8), _octal(entry.uid, 8), _octal(entry.gid, 8), _octal(entry.size, 12), _octal(seconds, 12),
        b" " * 8, entry.kind, entry.link[:_NAME], b"ustar\x0000", b"", b"", _octal(entry.device[0], 8), _octal(entry.device[1], 8), b"",
    ]  # fmt: skip
    fields[6] = b"%06o\0 " % sum(_FIELDS.pack(*fields))
    return _FIELDS.pack(*fields)


def _octal(value: int, width: int) -> bytes:
    """A number in octal; zero where a record before the block has it, since there is no room here."""
    if not 0 <= value < 8 ** (width - 1):
        value = 0
    return b"%0*o\0" % (width - 1, value)
