"""What the daemon says about itself: version, identity, plugins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.introspection.v1 import introspection_pb2 as api
from pydock._proto.containerd.services.version.v1 import version_pb2
from pydock.client.connection import Connection

_SERVICE = "/containerd.services.introspection.v1.Introspection"

Plugin = api.Plugin


def version(conn: Connection) -> version_pb2.VersionResponse:
    """Return the version and revision of the daemon."""
    return conn.unary("/containerd.services.version.v1.Version/Version", empty_pb2.Empty(), version_pb2.VersionResponse)


def server(conn: Connection) -> api.ServerResponse:
    """Return uuid and pid of the daemon and what it calls deprecated."""
    return conn.unary(f"{_SERVICE}/Server", empty_pb2.Empty(), api.ServerResponse)


def plugins(conn: Connection, filters: Iterable[str] = ()) -> Sequence[Plugin]:
    """Return the plugins that match any of ``filters`` (all without one)."""
    return conn.unary(f"{_SERVICE}/Plugins", api.PluginsRequest(filters=filters), api.PluginsResponse).plugins
