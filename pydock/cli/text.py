"""How values look in a terminal: tables, sizes, ages, labels, times.

Invariant: no control character of a daemon's answer reaches the terminal as such.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydock.base import clock, errors

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGES = ((365 * 86400, "year"), (30 * 86400, "month"), (7 * 86400, "week"), (86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def safe(value: str) -> str:
    """Return ``value`` with control characters written as escapes."""
    if value.isprintable():
        return value
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in value)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], gap: int = 1) -> str:
    """Return lines with columns as wide as their widest cell and ``gap`` more."""
    widths = [max((len(row[number]) for row in (titles, *rows)), default=0) + gap for number in range(len(titles))]
    lines = ("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (titles, *rows))
    return "".join(f"{line}\n" for line in lines)


def size(value: int) -> str:
    """Return bytes with a binary unit: "1.0 MiB"."""
    number, unit = float(value), 0
    while abs(number) >= 1024 and unit < len(_UNITS) - 1:
        number /= 1024
        unit += 1
    return f"{number:.1f} {_UNITS[unit]}"


def labels(value: Mapping[str, str]) -> str:
    """Return labels sorted, "a=b,c=d"; "-" for none."""
    return ",".join(f"{key}={value[key]}" for key in sorted(value)) or "-"


def age(moment: int) -> str:
    """Return how long ago ``moment`` (ns) was, in its largest unit."""
    seconds = max(0, (clock.now() - moment) // clock.SECOND)
    for unit, name in _AGES:
        if seconds >= unit:
            count = seconds // unit
            return f"{count} {name}{'s' * (count != 1)}"
    return "less than a second"


def moment(value: int) -> str:
    """Return a time in ns since the epoch as RFC 3339; "-" for none."""
    return clock.format_rfc3339(value) if value > 0 else "-"


def now() -> str:
    """Return the present as RFC 3339."""
    return clock.format_rfc3339(clock.now())


def duration(value: str) -> float:
    """Return the seconds of "24h", "1m30s" or a plain number. Raises InvalidArgument."""
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", value, re.ASCII):
        return float(value)
    parts = _DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise errors.InvalidArgument(f"{value!r} is not a duration such as 24h or 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def pairs(values: Sequence[str]) -> dict[str, str]:
    """Return {"a": "b"} of "a=b"; a word without "=" gets "" (which clears a label). Raises InvalidArgument for an empty key."""
    found: dict[str, str] = {}
    for value in values:
        key, _, content = value.partition("=")
        if not key:
            raise errors.InvalidArgument(f"{value!r} has no key")
        found[key] = content
    return found
