"""PAX extended header records: their grammar, numbers and times.

Vocabulary: a *record* is ``"<length> <key>=<value>\\n"``, length counting all of it; an empty value takes the key back to the plain header.
Invariant: keys and values stay bytes. Source: POSIX.1-2017 pax, section "pax Extended Header".
"""

from __future__ import annotations

from typing import Final

from pydock_plugins.diff import limits

SECOND: Final = 1_000_000_000
_NO_NUL: Final = (b"path", b"linkpath", b"uname", b"gname")
_LONGEST_NUMBER: Final = 20
XATTR: Final = b"SCHILY.xattr."


def records(data: bytes, name: bytes) -> list[tuple[bytes, bytes]]:
    """All records of ``data`` in order; InvalidArgument, naming the entry ``name``, for a broken one."""
    found: list[tuple[bytes, bytes]] = []
    pos, end = 0, len(data)
    while pos < end:
        space = data.find(b" ", pos, pos + _LONGEST_NUMBER)
        length = data[pos:space] if space > pos else b""
        if not length.isdigit():
            raise limits.invalid(name, "PAX record without a length")
        stop = pos + int(length)
        if stop > end or stop < space + 3 or data[stop - 1 : stop] != b"\n":
            raise limits.invalid(name, "PAX record with a wrong length")
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals or not key or b"\0" in key or (key in _NO_NUL and b"\0" in value):
            raise limits.invalid(name, "PAX record that is no key=value")
        found.append((key, value))
        pos = stop
    return found


def number(value: bytes, key: str, name: bytes) -> int:
    """A decimal integer of at most 19 digits."""
    digits = value[1:] if value[:1] == b"-" else value
    if not digits.isdigit() or len(digits) >= _LONGEST_NUMBER:
        raise limits.invalid(name, f"PAX {key} is no number")
    return int(value)


def nanoseconds(value: bytes, name: bytes) -> int:
    """A time in decimal seconds, perhaps negative or with a fraction, as nanoseconds; digits past the ninth are dropped."""
    whole, _, fraction = value.partition(b".")
    seconds = number(whole if whole not in (b"", b"-") else whole + b"0", "time", name)
    if fraction and not fraction.isdigit():
        raise limits.invalid(name, "PAX time is no number")
    nanos = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    return seconds * SECOND + (-nanos if value[:1] == b"-" else nanos)
