"""Sparse files in their four archive forms (GNU old, PAX 0.0, 0.1 and 1.0), as a list of pieces.

Vocabulary: a *map* is pairs of (offset in the file, length); what lies between is a hole; the *real size* is that of the file with its
holes.
Invariants: a map is sorted, does not overlap, ends inside the real size, and its lengths add up to the data in the archive.
Source: GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pydock_plugins.diff import fields, limits, pax, tape

if TYPE_CHECKING:
    from pydock_plugins.diff import headers

Map = list[tuple[int, int]]
_PAIR: Final = 24


def from_gnu(block: bytes, source: tape.Tape, bounds: limits.Limits, name: bytes) -> tuple[Map, int]:
    """Map and real size of an old GNU sparse header: four pairs in it, 21 in each block that extends it."""
    real, size = fields.number(block[483:495], name), fields.number(block[124:136], name)
    pieces = list(_pairs(block[386:482], name))
    more = block[482]
    while more:
        source.begin(0)
        following = source.block()
        if following is None:
            raise limits.invalid(name, "sparse map is cut short")
        pieces += _pairs(following[:504], name)
        more = following[504]
        if len(pieces) > bounds.sparse_pieces:
            raise limits.exhausted(name, f"more than {bounds.sparse_pieces} pieces in a sparse file")
    return check(pieces, real, size, name), real


def _pairs(table: bytes, name: bytes) -> Iterator[tuple[int, int]]:
    for pos in range(0, len(table), _PAIR):
        if table[pos]:
            yield fields.number(table[pos : pos + 12], name), fields.number(table[pos + 12 : pos + _PAIR], name)


def from_pax(entry: headers.Entry, records: list[tuple[bytes, bytes]], source: tape.Tape, bounds: limits.Limits) -> None:
    """Give ``entry`` the name, real size and map its GNU.sparse records say."""
    values = {key[11:]: value for key, value in records if key.startswith(b"GNU.sparse.")}
    if entry.kind not in (b"0", b"\0"):
        raise limits.invalid(entry.name, "only a regular file can be sparse")
    entry.name = values.get(b"name") or entry.name
    real = pax.number(values.get(b"realsize") or values.get(b"size") or b"", "sparse size", entry.name)
    if values.get(b"major") == b"1" and values.get(b"minor") == b"0":
        pieces, used = _leading_map(entry, source, bounds)
        entry.size -= used
    else:
        pieces = _record_map(entry.name, values, records, bounds)
    entry.map, entry.real_size = check(pieces, real, entry.size, entry.name), real


def _record_map(name: bytes, values: dict[bytes, bytes], records: list[tuple[bytes, bytes]], bounds: limits.Limits) -> Map:
    if b"map" in values:
        numbers = values[b"map"].split(b",") if values[b"map"] else []
    else:
        numbers = [value for key, value in records if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")]
    if len(numbers) % 2:
        raise limits.invalid(name, "sparse map with an odd number of fields")
    if len(numbers) > 2 * bounds.sparse_pieces:
        raise limits.exhausted(name, f"more than {bounds.sparse_pieces} pieces in a sparse file")
    ints = [pax.number(value, "sparse map", name) for value in numbers]
    return list(zip(ints[::2], ints[1::2], strict=True))


def _leading_map(entry: headers.Entry, source: tape.Tape, bounds: limits.Limits) -> tuple[Map, int]:
    """The map of form 1.0: decimal lines in whole blocks before the data. Also the bytes it took."""
    text, used, wanted = b"", 0, 1
    lines: list[bytes] = []
    while len(lines) < wanted:
        block = source.block() if used < entry.size else None
        if block is None:
            raise limits.invalid(entry.name, "sparse map is cut short")
        used += tape.BLOCK
        *whole, text = (text + block).split(b"\n")
        lines += whole
        if lines and wanted == 1:
            count = pax.number(lines[0], "sparse map", entry.name)
            if not 0 <= count <= bounds.sparse_pieces:
                raise limits.exhausted(entry.name, f"more than {bounds.sparse_pieces} pieces in a sparse file")
            wanted = 1 + 2 * count
        if len(text) > tape.BLOCK:
            raise limits.invalid(entry.name, "sparse map is no list of numbers")
    ints = [pax.number(line, "sparse map", entry.name) for line in lines[1:wanted]]
    return list(zip(ints[::2], ints[1::2], strict=True)), used


def check(pieces: Map, real: int, size: int, name: bytes) -> Map:
    """``pieces`` when they keep the invariants for a file of ``real`` bytes with ``size`` bytes of data."""
    last = total = 0
    for offset, length in pieces:
        if offset < last or length < 0 or offset + length > real:
            raise limits.invalid(name, "sparse map overlaps or leaves the file")
        last, total = offset + length, total + length
    if total != size or real < 0:
        raise limits.invalid(name, "sparse map does not add up to the data")
    return pieces
