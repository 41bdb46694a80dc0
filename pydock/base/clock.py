"""Time as pydock keeps it: integer nanoseconds since the epoch, and RFC 3339 text at the edges.

Invariants: stored times come from `now`; deadlines never do (they use the event loop's monotonic clock).
Source: RFC 3339 section 5.6, with Go's layout ``RFC3339Nano`` for writing.
"""

from __future__ import annotations

import calendar
import re
import time

SECOND = 1_000_000_000

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,18}))?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


def now() -> int:
    """Return the wall clock in ns since the epoch."""
    return time.time_ns()


def format_rfc3339(moment: int) -> str:
    """Return ``moment`` (ns) in UTC, without trailing zeros in the fraction."""
    seconds, fraction = divmod(moment, SECOND)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def parse_rfc3339(text: str) -> int:
    """Return ns since the epoch. Raises ValueError for anything but an RFC 3339 time that exists."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    year, month, day, hour, minute, second = (int(match[n]) for n in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(max(year, 1), month)[1] and hour < 24 and minute < 60 and second <= 60):
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    if match[8]:
        if int(match[9]) > 23 or int(match[10]) > 59:
            raise ValueError(f"{text!r} has no such time zone")
        seconds -= (1 if match[8] == "+" else -1) * (int(match[9]) * 3600 + int(match[10]) * 60)
    return seconds * SECOND + int((match[7] or "0")[:9].ljust(9, "0"))
