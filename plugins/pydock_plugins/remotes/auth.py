"""Registry authorization: challenges, tokens, and to whom credentials may go.

Sources: RFC 9110 section 11 (challenges), the distribution project's token and OAuth2 specifications.
Invariants: credentials go to the registry they were given for and to a token realm of the same site over no weaker a scheme, nowhere else;
nothing a registry says makes pydock ask an address of another kind; every answer read is bounded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydock.base import errors
from pydock.core import remotes
from pydock_plugins.remotes import hosts

HEADER_LIMIT = 8 << 10  # of a WWW-Authenticate header
TOKEN_LIMIT = 64 << 10  # of a token answer
_DEFAULT_LIFE = 60  # seconds a token lasts when its server does not say (token specification)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SPACE = re.compile(r"[ \t]*")
_COMMAS = re.compile(r"[ \t,]*")


@dataclass(frozen=True)
class Challenge:
    """One scheme (lower case) with its parameters (names lower case)."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Token:
    """A bearer token and the monotonic time it must not be used after."""

    value: str
    expires: float

    @property
    def fresh(self) -> bool:
        """Tell whether it may still be sent."""
        return time.monotonic() < self.expires


def parse_challenges(header: str) -> Sequence[Challenge]:
    """Parse a WWW-Authenticate header.  InvalidArgument where it is not of RFC 9110's grammar or too long."""
    if len(header) > HEADER_LIMIT:
        raise errors.InvalidArgument(f"WWW-Authenticate header of {len(header)} bytes")
    found: list[Challenge] = []
    at = _skip(_COMMAS, header, 0)
    while at < len(header):
        name = _TOKEN.match(header, at)
        if name is None:
            raise errors.InvalidArgument(f"WWW-Authenticate header {header!r} at {at}")
        at = _skip(_SPACE, header, name.end())
        if header[at : at + 1] == "=" and found:
            value, at = _value(header, _skip(_SPACE, header, at + 1))
            found[-1].parameters[name.group().lower()] = value
        else:
            found.append(Challenge(name.group().lower()))
        at = _skip(_COMMAS, header, at)
    return found


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _value(header: str, at: int) -> tuple[str, int]:
    if quoted := _QUOTED.match(header, at):
        return re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    if plain := _TOKEN.match(header, at):
        return plain[0], plain.end()
    raise errors.InvalidArgument(f"WWW-Authenticate header {header!r} at {at}")


def choose(challenges: Sequence[Challenge]) -> Challenge | None:
    """Return the challenge to answer: bearer before basic; None when neither is offered."""
    for scheme in ("bearer", "basic"):
        for challenge in challenges:
            if challenge.scheme == scheme:
                return challenge
    return None


def check_realm(registry_base: str, realm: str) -> bool:
    """Check a token realm; return whether the registry's credentials may go there.

    InvalidArgument: not an http(s) URL, weaker than the registry's scheme, or a literal address that is not the registry's own.
    """
    registry, target = hosts.split(registry_base), hosts.split(realm)
    if target.username is not None:
        raise errors.InvalidArgument(f"token realm {realm[:200]!r} holds credentials")
    if registry.scheme == "https" and target.scheme != "https":
        raise errors.InvalidArgument(f"token realm {realm[:200]!r} would leave TLS")
    ours, theirs = (registry.hostname or "").lower(), (target.hostname or "").lower()
    if ours == theirs:
        return True
    if _is_address(theirs) or hosts.is_local(theirs):
        raise errors.InvalidArgument(f"token realm {realm[:200]!r} is an address that is not the registry's")
    return not _is_address(ours) and _site(ours) == _site(theirs)


def check_redirect(origin: str, target: str) -> None:
    """Check where a registry sends us on.

    PermissionDenied: not an http(s) URL, out of TLS, or from another machine to this one or its neighbourhood (metadata services).
    """
    try:
        ours, theirs = hosts.split(origin), hosts.split(target)
    except errors.InvalidArgument as error:
        raise errors.PermissionDenied(f"redirect of {origin} to {target[:200]!r}, which is not an http(s) URL") from error
    if ours.scheme == "https" and theirs.scheme != "https":
        raise errors.PermissionDenied(f"redirect of {origin} to {target[:200]!r} would leave TLS")
    here, there = ours.hostname or "", theirs.hostname or ""
    address = hosts.address_of(there)
    near = hosts.is_local(there) or (address is not None and (address.is_link_local or address.is_unspecified or address.is_multicast))
    odd = address is None and _is_address(there)  # "0x7f.1", "2130706433": forms only the C library knows
    if (near or odd) and here.lower() != there.lower() and not (hosts.is_local(here) and hosts.is_local(there)):
        raise errors.PermissionDenied(f"redirect of {origin} to {target[:200]!r}, an address of this machine or its link")


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdecimal() or host.startswith("0x")


def _site(host: str) -> str:
    """Return the last two labels, three below a country's second-level domain: the usual span of one owner's names."""
    labels = host.split(".")
    short = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in ("co", "com", "net", "org", "ac", "gov")
    return ".".join(labels[-3 if short else -2 :])


def parse_token(document: object) -> Token:
    """Read a token answer (``token`` or ``access_token``, ``expires_in`` seconds).  Unauthenticated when it has none."""
    if not isinstance(document, dict):
        raise errors.Unauthenticated("token answer is not an object")
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not value or any(ord(c) < 33 or ord(c) > 126 for c in value):
        raise errors.Unauthenticated("token answer holds no usable token")
    life = document.get("expires_in", _DEFAULT_LIFE)
    seconds = float(min(life, 86400)) if isinstance(life, (int, float)) and life > 0 else _DEFAULT_LIFE
    return Token(value, time.monotonic() + max(seconds - 10, seconds / 2))


def basic(credentials: remotes.Credentials) -> str:
    """Return the Authorization value of basic credentials (RFC 7617)."""
    import base64

    return "Basic " + base64.b64encode(f"{credentials.username}:{credentials.secret}".encode()).decode()
