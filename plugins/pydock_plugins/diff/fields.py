"""Numbers in tar header blocks.

Invariant: a field outside its grammar is InvalidArgument; Python's own leniency (signs, underscores, ``0o``) is kept out.
Source: GNU tar manual "Basic Tar Format" (octal, and base 256 when the first bit is set).
"""

from __future__ import annotations

from pydock_plugins.diff import limits


def number(field: bytes, name: bytes = b"") -> int:
    """A numeric header field: octal digits between spaces and NULs (none is 0), or a signed number in base 256."""
    if field[0] & 0x80:
        bits = len(field) * 8 - 1
        # The flag bit is not part of the number; the bit after it is the sign.
        return (int.from_bytes(field, "big") & ((1 << bits) - 1)) - ((1 << bits) if field[0] & 0x40 else 0)
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise limits.invalid(name, "header field is no octal number")
    return int(digits, 8)
