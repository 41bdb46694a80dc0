"""Digests: ``<algorithm>:<lower case hex>`` names of bytes.

Invariant: a text that passes `parse` is safe as a path component on both sides of its colon.
Source: OCI image-spec descriptor.md, "Digests"; the wording of the errors is that of the Go digest package clients know.
"""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from pydock.base import errors

SIZES = {"sha256": 64, "sha384": 96, "sha512": 128}
DEFAULT = "sha256"
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

_FORM = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)
_HEX = re.compile(r"[a-f0-9]+", re.ASCII)


class Hasher(Protocol):
    """What hashlib returns; ``update`` releases the GIL for more than 2047 bytes."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Feed ``data``."""

    def hexdigest(self) -> str:
        """Return the hash so far in lower case hex."""


def parse(text: str) -> tuple[str, str]:
    """Return (algorithm, hex) of a valid digest. Raises InvalidArgument."""
    algorithm, colon, encoded = text.partition(":")
    if not colon or not _FORM.fullmatch(text):
        raise errors.InvalidArgument(_detail(text, "invalid checksum digest format"))
    size = SIZES.get(algorithm)
    if size is None:
        raise errors.InvalidArgument(_detail(text, "unsupported digest algorithm"))
    if len(encoded) != size:
        raise errors.InvalidArgument(_detail(text, "invalid checksum digest length"))
    if not _HEX.fullmatch(encoded):
        raise errors.InvalidArgument(_detail(text, "invalid checksum digest format"))
    return algorithm, encoded


def validate(text: str) -> str:
    """Return ``text`` when it is a digest. Raises InvalidArgument."""
    parse(text)
    return text


def is_valid(text: str) -> bool:
    """Tell whether ``text`` is a digest of an algorithm pydock knows."""
    try:
        parse(text)
    except errors.InvalidArgument:
        return False
    return True


def hasher(algorithm: str = DEFAULT) -> Hasher:
    """Return a fresh hash. Raises InvalidArgument for an algorithm not in `SIZES`."""
    if algorithm not in SIZES:
        raise errors.InvalidArgument("unsupported digest algorithm")
    return hashlib.new(algorithm, usedforsecurity=True)


def compute(data: bytes | memoryview, algorithm: str = DEFAULT) -> str:
    """Return the digest of ``data``."""
    state = hasher(algorithm)
    state.update(data)
    return f"{algorithm}:{state.hexdigest()}"


def _detail(text: str, problem: str) -> str:
    return f"{problem}: {text[:160]!r}" if text else problem
