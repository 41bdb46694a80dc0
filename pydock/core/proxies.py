"""Proxy plugins: mechanisms in processes of others, which answer containerd's own services on a socket.

Source: containerd docs/PLUGINS.md, ``proxy_plugins``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydock.base import errors, names
from pydock.core.plugin import option

KINDS = ("snapshot", "content", "diff")


@dataclass(frozen=True)
class Options:
    """``[proxy_plugins.NAME]``; NAME is what clients call it, as in ``--snapshotter NAME``."""

    type: str = option("", "snapshot, content or diff")
    address: str = option("", "path of the unix socket it answers on")
    platform: str = option("", 'what introspection shows, such as "linux/amd64"')
    capabilities: tuple[str, ...] = option((), "what introspection shows")
    exports: dict[str, str] = field(default_factory=dict, metadata={"doc": "what introspection shows"})
    namespace: str = option("default", "the namespace that calls of snapshots and content carry; a mechanism knows none")


def check(name: str, options: Options) -> None:
    """Raise InvalidArgument where one cannot be what it says."""
    names.identifier(name)
    if options.type not in KINDS:
        raise errors.InvalidArgument(f"type: expected {', '.join(KINDS[:-1])} or {KINDS[-1]}, got {options.type!r}")
    if not options.address.removeprefix("unix://").startswith("/"):
        raise errors.InvalidArgument(f"address: {options.address!r} is not the absolute path of a unix socket")
    names.namespace(options.namespace)
