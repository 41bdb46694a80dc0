"""containerd.services.version.v1: which daemon answers.

The version begins with the containerd release whose API is offered, for clients that compare it, and ends with pydock's own as build
metadata (https://semver.org, clause 10).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydock._proto.containerd.services.version.v1 import version_pb2
from pydock.core import plugin
from pydock.services import calls, routing

CONTAINERD = "2.1.0"


class Version:
    """Answers the Version service; ``version`` is pydock's own."""

    wire = version_pb2.DESCRIPTOR.services_by_name["Version"]
    raw = frozenset[str]()

    def __init__(self, version: str) -> None:
        self._version = version

    async def version(self, _: object, call: calls.Call) -> version_pb2.VersionResponse:
        """Return the version and, as revision, the name of this implementation."""
        return version_pb2.VersionResponse(version=f"{CONTAINERD}+pydock.{self._version}", revision=f"pydock-{self._version}")


@plugin.plugin("io.containerd.grpc.v1", "version")
async def version(daemon: plugin.Daemon) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Version service."""
    yield routing.Service(Version(daemon.version or "0"))
