"""Figures of the daemon for whoever watches it: where they are served."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from pydock.base import errors
from pydock.core.plugin import option


@dataclass(frozen=True)
class Options:
    """``[metrics]``: figures in Prometheus' text form at ``/v1/metrics`` and ``/metrics``."""

    address: str = option("", 'where they are served: "unix:///run/pydock/metrics.sock" or "127.0.0.1:1338"; empty: nowhere')


def endpoint(address: str) -> Path | tuple[str, int]:
    """Return an address as the path of a unix socket, or as a loopback host and port. Raises InvalidArgument for any other.

    Names of containers and images are nobody else's business, and there is neither a password nor TLS: so nothing beyond this machine.
    """
    if address.startswith(("/", "unix://")):
        path = Path(address.removeprefix("unix://"))
        if path.is_absolute():
            return path
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        if ipaddress.ip_address(host).is_loopback and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16:
            return host, int(port)
    except ValueError:
        pass
    raise errors.InvalidArgument(f"metrics address {address!r}: expected unix:// and an absolute path, or a loopback address and a port")
