"""The health service of gRPC: this daemon serves, or it is not there.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. Only the empty service name is known, as in containerd:
Check of another is NOT_FOUND, Watch of another says SERVICE_UNKNOWN and stays open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pydock._proto.grpc.health.v1 import health_pb2
from pydock.base import errors
from pydock.core import plugin
from pydock.services import calls, routing


class Health:
    """``grpc.health.v1.Health``."""

    wire = health_pb2.DESCRIPTOR.services_by_name["Health"]
    raw: frozenset[str] = frozenset()

    async def check(self, request: health_pb2.HealthCheckRequest, _: calls.Call) -> health_pb2.HealthCheckResponse:
        """Return that the daemon serves. Raises NotFound for a service it does not watch over."""
        if request.service:
            raise errors.NotFound(f"service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def watch(self, request: health_pb2.HealthCheckRequest, _: calls.Call, send: calls.Send) -> None:
        """Send the status once: it changes only by the daemon's end, which ends the stream."""
        status = health_pb2.HealthCheckResponse
        await send(status(status=status.SERVICE_UNKNOWN if request.service else status.SERVING))
        await asyncio.Event().wait()


@plugin.plugin("io.containerd.grpc.v1", "healthcheck")
async def healthcheck() -> AsyncIterator[plugin.GrpcService]:
    """Offer the service."""
    yield routing.Service(Health())
