"""Labels: small key/value pairs on every kind of object.

Invariants: key and value together have at most 4096 bytes, so that one object cannot fill the store; no label is empty: to store one is
to remove it, which is what ``ctr ... label X key=`` counts on.
Source: containerd's labels package (bound and wording).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydock.base import errors

LONGEST = 4096
MOST = 4096
_SHOWN_KEY = 64


def validate(labels: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of ``labels``, without those of no value, when each pair is within bounds. Raises InvalidArgument naming the key."""
    if len(labels) > MOST:
        raise errors.InvalidArgument(f"{len(labels)} labels on one object are more than {MOST}")
    for key, value in labels.items():
        check_pair(key, value)
    return {key: value for key, value in labels.items() if value}


def check_pair(key: str, value: str) -> None:
    """Raise InvalidArgument when one pair is out of bounds or has no key."""
    if not key:
        raise errors.InvalidArgument(f"label key required for value {value[:_SHOWN_KEY]!r}")
    size = len(key.encode("utf-8", "surrogatepass")) + len(value.encode("utf-8", "surrogatepass"))
    if size > LONGEST:
        shown = key[:_SHOWN_KEY]
        raise errors.InvalidArgument(f"label key and value length ({size} bytes) greater than maximum size ({LONGEST} bytes), key: {shown}")
