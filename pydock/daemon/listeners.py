"""The gRPC server on its unix socket: who may connect, how large messages may be, how patient it is with pings.

Invariants: the socket appears with its final owner and mode, and only when every service answers; it is gone after a graceful stop.
Numbers: a Go client may ping as often as it likes, as containerd lets it; grpc's C core would answer with GOAWAY "too_many_pings".
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydock.base import errors, sockets
from pydock.core import plugin

if TYPE_CHECKING:
    import grpc.aio

    from pydock.daemon import config

log = logging.getLogger(__name__)

# Unary calls get this long to finish when the daemon stops; streams (events, waits) never would, and clients call again.
GRACE_SECONDS = 0.5


def options(settings: config.Grpc) -> list[tuple[str, int]]:
    """Return the channel arguments of the server (https://grpc.github.io/grpc/core/group__grpc__arg__keys.html)."""
    return [
        ("grpc.max_receive_message_length", settings.max_recv_message_size),
        ("grpc.max_send_message_length", settings.max_send_message_size),
        ("grpc.so_reuseport", 0),
        ("grpc.enable_channelz", 0),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_metadata_size", 64 << 10),
    ]


@contextlib.asynccontextmanager
async def serve(
    settings: config.Grpc,
    daemon: plugin.Daemon,
    services: Sequence[plugin.GrpcService],
    interceptors: Sequence[plugin.GrpcInterceptor],
    wrappers: Sequence[plugin.GrpcWrapper] = (),
) -> AsyncIterator[grpc.aio.Server]:
    """Answer ``services`` at ``daemon.address`` while the body runs. Raises FailedPrecondition where the socket cannot be had."""
    import grpc.aio  # late: importing it is a third of the daemon's start, so it follows the claim and the launcher

    from pydock.services import front

    around = [cast("grpc.aio.ServerInterceptor[Any, Any]", one.interceptor) for one in interceptors]
    server = grpc.aio.server(interceptors=around, options=options(settings))
    server.add_generic_rpc_handlers((front.Front(services, wrappers),))
    access = sockets.Access(0o660, settings.uid, daemon.gid)
    with sockets.private_place(daemon.address, access) as temporary:
        _listen(server, temporary, daemon.address)
        await server.start()
    log.debug("listening", extra={"address": str(daemon.address), "services": len(services)})
    try:
        yield server
    finally:
        sockets.remove(daemon.address)
        await server.stop(GRACE_SECONDS)


def _listen(server: grpc.aio.Server, temporary: Path, address: Path) -> None:
    try:
        server.add_insecure_port(f"unix:{temporary}")
    except RuntimeError as error:
        raise errors.FailedPrecondition(f"cannot listen at {address}: {error}") from error
