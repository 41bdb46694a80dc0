"""Names pydock makes up itself: random, so that nobody can guess or collide with one."""

from __future__ import annotations

import secrets

from pydock.base import clock


def lease() -> str:
    """Return a new lease id: time and randomness, sortable by eye as the ids other clients make."""
    return f"{clock.now() // clock.SECOND}-{secrets.token_urlsafe(6).replace('-', 'x').replace('_', 'y')}"


def hex(size: int = 16) -> str:
    """Return ``size`` random bytes as lower case hex."""
    return secrets.token_hex(size)
