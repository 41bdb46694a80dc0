"""Names clients choose, checked once at every entry.

Vocabulary: an *identifier* names a container, an exec, a sandbox or a namespace and becomes a path component; an *opaque* name (image
name, snapshot key, ingest ref, lease id) has no grammar, only bounds, and never becomes a path component by itself.
Invariants: both are ASCII- or UTF-8-clean text without control characters; nothing that passes `identifier` can be ``.``, ``..``, hold a
slash or begin with a dash.
Source: containerd's identifier package (grammar and the wording clients see).
"""

from __future__ import annotations

import re

from pydock.base import errors

LONGEST_IDENTIFIER = 76
LONGEST_OPAQUE = 1024

PATTERN = "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$"
_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", re.ASCII)
_PLAIN_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", '"': '\\"', "\\": "\\\\"}


def identifier(text: str) -> str:
    """Return ``text`` when it is an identifier. Raises InvalidArgument worded as containerd words it."""
    if not text:
        raise errors.InvalidArgument("identifier must not be empty")
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST_IDENTIFIER:
        raise errors.InvalidArgument(f"identifier {quote(text[:200])} greater than maximum length ({LONGEST_IDENTIFIER} characters)")
    if not _IDENTIFIER.fullmatch(text):
        raise errors.InvalidArgument(f"identifier {quote(text)} must match {PATTERN}")
    return text


def namespace(text: str) -> str:
    """Return the namespace a request is bound to. Raises FailedPrecondition without one, InvalidArgument for a bad one."""
    if not text:
        raise errors.FailedPrecondition("namespace is required")
    try:
        return identifier(text)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"namespace validation: {error.detail}") from None


def opaque(kind: str, text: str) -> str:
    """Return ``text`` when it may name a ``kind`` ("image name", "snapshot key"): 1 to 1024 bytes, no control characters."""
    if not text:
        raise errors.InvalidArgument(f"{kind} must not be empty")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise errors.InvalidArgument(f"{kind} {quote(text[:200])} is not UTF-8") from None
    if size > LONGEST_OPAQUE:
        raise errors.InvalidArgument(f"{kind} {quote(text[:200])} greater than maximum length ({LONGEST_OPAQUE} bytes)")
    if not text.isprintable() and any(_is_control(char) for char in text):
        raise errors.InvalidArgument(f"{kind} {quote(text)} holds a control character")
    return text


def quote(text: str) -> str:
    """Return ``text`` in double quotes with escapes, as Go's %q verb prints it in the messages clients parse."""
    return '"' + "".join(_escape(char) for char in text) + '"'


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f"


def _escape(char: str) -> str:
    if char in _PLAIN_ESCAPES:
        return _PLAIN_ESCAPES[char]
    if char.isprintable():
        return char
    number = ord(char)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
