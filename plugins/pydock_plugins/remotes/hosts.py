"""Which hosts serve a registry, and how each is spoken to.

Vocabulary: a reference's *domain* ("docker.io") is served by one or more *hosts* (an API base URL with what it may be used for), mirrors
first.  They come from ``<hosts_dir>/<domain>/hosts.toml`` in containerd's format (docs/hosts.md: ``server``, ``[host."URL"]`` with
``capabilities``, ``ca``, ``client``, ``skip_verify``, ``override_path``, ``header``), else from Docker's ``certs.d`` layout (``*.crt``,
``*.cert`` with ``*.key``), else from the domain alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydock.base import errors
from pydock.core import remotes

CAPABILITIES = frozenset({"pull", "resolve", "push"})
_FILE_LIMIT = 1 << 20
_DOCKER_HUB = "registry-1.docker.io"
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,8192}")


@dataclass(frozen=True)
class Host:
    """One API endpoint: ``base`` ends in "/v2" (unless the path is overridden); ``fallback_http`` allows plain HTTP where TLS is absent."""

    base: str
    capabilities: frozenset[str] = CAPABILITIES
    skip_verify: bool = False
    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    fallback_http: bool = False
    mirrors: str = ""  # the domain this host stands in for, when it is not its own

    @property
    def authority(self) -> str:
        """Return "host[:port]"."""
        return urlsplit(self.base).netloc


@dataclass(frozen=True)
class _Entry:
    url: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def split(url: str) -> SplitResult:
    """Split an http(s) URL with a host.  InvalidArgument for anything else, so that its parts can be relied on."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(ord(char) < 33 or ord(char) == 127 for char in url):
        raise errors.InvalidArgument(f"{url[:200]!r} is not an http(s) URL")
    return parts


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the literal address a host is, with what an IPv6 one wraps taken out; None for a name."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def is_local(host: str) -> bool:
    """Tell whether a host (without port) is this machine's loopback, by name (RFC 6761) or literal address."""
    name, address = host.lower().rstrip("."), address_of(host)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def check_headers(headers: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Return header fields as they are.  InvalidArgument for one that is not of RFC 9110's grammar."""
    for name, value in headers:
        if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            raise errors.InvalidArgument(f"bad header field {name[:80]!r}")
    return headers


def hosts_for(domain: str, access: remotes.Access, default_dir: str = "") -> Sequence[Host]:
    """Return the hosts of ``domain`` in the order they are to be tried.  InvalidArgument names a bad hosts.toml."""
    directory = _directory(domain, access.hosts_dir or default_dir)
    found = _from_file(domain, directory / "hosts.toml", access) if directory and (directory / "hosts.toml").is_file() else []
    if not found:
        found = [_default(domain, access, directory)]
    extra = tuple(check_headers(access.headers))
    return [replace(host, skip_verify=host.skip_verify or access.skip_verify, headers=host.headers + extra) for host in found]


def _directory(domain: str, root: str) -> Path | None:
    if not root:
        return None
    name, _, port = domain.rpartition(":")
    names = [f"{name}_{port}_", domain] if name and port.isdecimal() else [domain]
    for candidate in (*names, "_default"):
        if (path := Path(root) / candidate).is_dir():
            return path
    return None


def _default(domain: str, access: remotes.Access, certs: Path | None) -> Host:
    authority = _DOCKER_HUB if domain in ("docker.io", "index.docker.io") else domain
    scheme = "http" if access.plain_http else "https"
    base = f"{scheme}://{authority}/v2"
    host = Host(base, fallback_http=scheme == "https" and is_local(split(base).hostname or ""))
    if certs is None:
        return host
    pairs = [(str(cert), str(cert.with_suffix(".key"))) for cert in sorted(certs.glob("*.cert"))]
    return replace(host, ca=tuple(str(path) for path in sorted(certs.glob("*.crt"))), client=tuple(pairs))


def _from_file(domain: str, path: Path, access: remotes.Access) -> list[Host]:
    if path.stat().st_size > _FILE_LIMIT:
        raise errors.InvalidArgument(f"{path}: larger than {_FILE_LIMIT} bytes")
    import tomllib  # here, since it costs each start of the daemon 4 ms

    try:
        document = tomllib.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of numbers
        raise errors.InvalidArgument(f"{path}: {error}") from error
    table = document.get("host", {})
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise errors.InvalidArgument(f"{path}: 'host' must be tables [host.\"URL\"]")
    entries = [_Entry(url, row) for url, row in table.items()]
    server = document.get("server", "")
    if not isinstance(server, str):
        raise errors.InvalidArgument(f"{path}: 'server' must be text")
    default = _default(domain, access, None)
    last = _parse(_Entry(server, document), path, domain) if server else replace(default, **_settings(_Entry("", document), path))
    return [_parse(entry, path, domain) for entry in entries] + [last]


def _parse(entry: _Entry, path: Path, domain: str) -> Host:
    url = entry.url if "://" in entry.url else f"https://{entry.url}"
    try:
        parts = split(url)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"{path}: host {error.detail}") from error
    if parts.username is not None or parts.query or parts.fragment:
        raise errors.InvalidArgument(f"{path}: host {entry.url!r} holds credentials, a query or a fragment")
    route = parts.path.rstrip("/")
    if not entry.settings.get("override_path") and not route.endswith("/v2"):
        route += "/v2"
    known = domain if domain not in ("docker.io", "index.docker.io") else _DOCKER_HUB
    mirrors = "" if parts.netloc == known else domain
    return replace(Host(f"{parts.scheme}://{parts.netloc}{route}", mirrors=mirrors), **_settings(entry, path))


def _settings(entry: _Entry, path: Path) -> dict[str, Any]:
    row = entry.settings
    out: dict[str, Any] = {}
    capabilities = row.get("capabilities", sorted(CAPABILITIES))
    if not isinstance(capabilities, list) or not set(map(str, capabilities)) <= CAPABILITIES:
        raise errors.InvalidArgument(f"{path}: unknown capability in {capabilities!r} of {entry.url!r}")
    out["capabilities"] = frozenset(capabilities)
    out["skip_verify"] = row.get("skip_verify", False) is True
    out["ca"] = tuple(_beside(path, item) for item in _listed(row.get("ca", [])))
    out["client"] = tuple(_pair(path, item) for item in _listed(row.get("client", [])))
    header = row.get("header", {})
    if not isinstance(header, dict):
        raise errors.InvalidArgument(f"{path}: 'header' of {entry.url!r} must be a table")
    out["headers"] = tuple(check_headers([(name, str(value)) for name, values in header.items() for value in _listed(values)]))
    return out


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _beside(path: Path, name: Any) -> str:
    """Return the path of a file named in ``path``, which may be relative to it."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise errors.InvalidArgument(f"{path}: {str(name)[:80]!r} is not the name of a file")
    return str(path.parent / name)


def _pair(path: Path, item: Any) -> tuple[str, str]:
    """Return certificate and key: one file for both, or a list of the two of which the second may be empty."""
    names = item if isinstance(item, list) else [item]
    if not 1 <= len(names) <= 2:
        raise errors.InvalidArgument(f"{path}: a client certificate is a file, or a list of a file and its key")
    cert = _beside(path, names[0])
    return cert, _beside(path, names[1]) if len(names) == 2 and names[1] else cert
