"""The HTTP side of the figures: ``/v1/metrics``, where containerd has them, and ``/metrics``, where Prometheus looks first.

Off unless ``[metrics] address`` says where; only then are aiohttp and prometheus_client imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydock.base import errors, sockets
from pydock.core import content, garbage, images, metrics, namespaces, plugin, snapshots, tasks
from pydock.services.metrics.sources import Sources

if TYPE_CHECKING:
    from aiohttp import web

    from pydock.services.metrics import exposition

log = logging.getLogger(__name__)

SCRAPE_SECONDS = 10.0
PATHS = ("/v1/metrics", "/metrics")


def application(figures: exposition.Exposition) -> web.Application:
    """Return what answers scrapes."""
    from aiohttp import web

    from pydock.services.metrics import exposition

    async def scrape(_: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                body = await figures.text()
        except TimeoutError:
            raise web.HTTPServiceUnavailable(text="the figures could not be gathered in time\n") from None
        return web.Response(body=body, headers={"Content-Type": exposition.CONTENT_TYPE})

    made = web.Application(client_max_size=1)
    for path in PATHS:
        made.router.add_get(path, scrape)
    return made


def listen(address: str, gid: int) -> socket.socket:
    """Return the listening socket. Raises InvalidArgument, FailedPrecondition where it is taken."""
    where = metrics.endpoint(address)
    if isinstance(where, Path):
        return sockets.bind(where, sockets.Access(0o660, 0, gid))
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(sockets.BACKLOG)
    except OSError as error:
        listener.close()
        raise errors.FailedPrecondition(f"cannot listen at {address}: {error.strerror}") from error
    return listener


@contextlib.asynccontextmanager
async def serving(figures: exposition.Exposition, listener: socket.socket) -> AsyncIterator[None]:
    """Answer at ``listener`` while the body runs."""
    from aiohttp import web

    runner = web.AppRunner(application(figures), access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


# The stores are parameters one by one, since that is how a plugin says what it needs; six are the house's limit.
@plugin.plugin("io.pydock.metrics.v1", "sources")
async def sources(
    spaces: namespaces.Store,
    names: images.Store,
    blobs: content.Store,
    trees: snapshots.Service,
    runtime: tasks.Runtime,
    collector: garbage.Collector,
) -> AsyncIterator[Sources]:
    """Provide what is counted."""
    yield Sources(spaces, names, blobs, trees, runtime, collector)


@plugin.plugin("io.pydock.metrics.v1", "http")
async def http(options: metrics.Options, daemon: plugin.Daemon, counted: Sources) -> AsyncIterator[plugin.GrpcWrapper]:
    """Serve figures where the configuration says, and count the calls of every gRPC method."""
    if not options.address:
        raise plugin.SkipPlugin("no metrics address is configured")
    import prometheus_client

    from pydock.services.metrics import calls, exposition

    registry = prometheus_client.CollectorRegistry()
    figures = exposition.Exposition(registry, counted, daemon.version)
    listener = listen(options.address, daemon.gid)
    async with serving(figures, listener):
        log.info("metrics", extra={"address": options.address})
        yield calls.Calls(registry)
    if isinstance(where := metrics.endpoint(options.address), Path):
        sockets.remove(where)
