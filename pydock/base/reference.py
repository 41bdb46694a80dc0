"""Image references, in containerd's form and in Docker's.

Vocabulary: a *spec* is what containerd's resolvers take, ``locator[:tag][@digest]`` with the registry's host first, nothing assumed; a
*name* is Docker's form, in which host, ``library/`` and tag have defaults; *familiar* is a name without what the defaults supply.
Sources: containerd's reference package; distribution's reference grammar (distribution-spec "Pulling manifests" for tag and path).
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace

from pydock.base import digest as digests
from pydock.base import errors

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL = "library/"
DEFAULT_TAG = "latest"
LONGEST_NAME = 255
LONGEST = 2048

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_NAME = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
    rf"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{{32,}}))?",
    re.ASCII,
)
_HOST = re.compile(rf"{_DOMAIN}", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_BARE_ID = re.compile(r"[a-f0-9]{64}", re.ASCII)
_SPLIT = re.compile("[:@]")


@dataclass(frozen=True, slots=True)
class Spec:
    """``locator`` is host and path, ``object`` is "tag", "tag@digest", "@digest" or ""."""

    locator: str
    object: str = ""

    @property
    def hostname(self) -> str:
        """Return the registry's host, with its port."""
        return self.locator.partition("/")[0]

    @property
    def repository(self) -> str:
        """Return the path below the host."""
        return self.locator.partition("/")[2]

    @property
    def tag(self) -> str:
        """Return the tag or ""."""
        return self.object.partition("@")[0]

    @property
    def digest(self) -> str:
        """Return the digest or "" (not checked)."""
        return self.object.partition("@")[2]

    def __str__(self) -> str:
        if not self.object:
            return self.locator
        return f"{self.locator}{self.object}" if self.object.startswith("@") else f"{self.locator}:{self.object}"


def parse(text: str) -> Spec:
    """Return the spec of a full reference. Raises InvalidArgument: "invalid reference", "hostname required"."""
    if len(text) > LONGEST or "://" in text or not text.isprintable() or " " in text or "?" in text or "#" in text:
        raise errors.InvalidArgument(f"invalid reference {text[:200]!r}")
    host, _, rest = text.partition("/")
    if not host:
        raise errors.InvalidArgument(f"reference {text!r}: hostname required")
    if not _HOST.fullmatch(host):
        raise errors.InvalidArgument(f"invalid reference {text!r}")
    found = _SPLIT.search(rest)
    path, tail = (rest[: found.start()], rest[found.start() :]) if found else (rest, "")
    if not {".", ".."}.isdisjoint(path.split("/")):
        raise errors.InvalidArgument(f"invalid reference {text!r}")
    parts = posixpath.normpath(f"/{path}").lstrip("/") if path else ""
    if tail and not parts:
        raise errors.InvalidArgument(f"invalid reference {text!r}")
    return Spec(f"{host}/{parts}" if parts else host, tail.removeprefix(":"))


def parse_checked(text: str) -> Spec:
    """As `parse`, and the repository, tag and digest must follow the grammar of registries; for what goes into a URL."""
    spec = parse(text)
    if not spec.repository or not re.fullmatch(rf"{_COMPONENT}(?:/{_COMPONENT})*", spec.repository, re.ASCII):
        raise errors.InvalidArgument(f"invalid reference {text!r}: the repository {spec.repository!r} is not a path of lower case names")
    if spec.tag and not _TAG.fullmatch(spec.tag):
        raise errors.InvalidArgument(f"invalid reference {text!r}: bad tag {spec.tag[:130]!r}")
    if "@" in spec.object:
        digests.validate(spec.digest)
    return spec


@dataclass(frozen=True, slots=True)
class Name:
    """A normalized name: ``domain`` and ``path`` are never empty, ``tag`` and ``digest`` may be."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """Return domain and path."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """Return domain and path without what the defaults supply."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        rest = self.path.removeprefix(OFFICIAL)
        return rest if "/" not in rest else self.path

    @property
    def familiar(self) -> str:
        """Return the short form users type."""
        return self.familiar_repository + self._tail()

    def tagged(self) -> Name:
        """Return this name, with the default tag where it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def _tail(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.repository + self._tail()


def normalize(text: str) -> Name:
    """Return the full name a user means by ``text`` ("alpine", "quay.io/a/b:1"). Raises InvalidArgument."""
    if _BARE_ID.fullmatch(text):
        raise errors.InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text[:LONGEST])
    match = _NAME.fullmatch(f"{domain}/{rest}") if len(text) <= LONGEST else None
    if match is None or match["domain"] != domain:
        path = re.split("[:@]", rest)[0]
        if path != path.lower():
            raise errors.InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
        raise errors.InvalidArgument("invalid reference format")
    if len(match["path"]) > LONGEST_NAME:
        raise errors.InvalidArgument(f"repository name must not be more than {LONGEST_NAME} characters")
    if match["digest"]:
        digests.validate(match["digest"])
    return Name(domain, match["path"], match["tag"] or "", match["digest"] or "")


def _split_domain(text: str) -> tuple[str, str]:
    """Tell a host from the first part of a path: a host has a dot, a port, an upper case letter or is localhost."""
    first, slash, rest = text.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        first, rest = DEFAULT_DOMAIN, text
    if first == LEGACY_DOMAIN:
        first = DEFAULT_DOMAIN
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL + rest
    return first, rest
