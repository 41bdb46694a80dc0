"""Puts one daemon together: settings and claimed directories in, running plugins and listeners out.

Invariants: the listeners open after the last plugin and close before the first; what the daemon gives to plugins is listed in
``_context`` and nowhere else.
"""

from __future__ import annotations

import contextlib
import grp
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from pydock.base import version
from pydock.core import metrics, plugin
from pydock.daemon import builtins, graph, listeners, supervisor
from pydock.daemon.config import Settings, check_known

log = logging.getLogger(__name__)

SOCKET_GROUP = "docker"


def socket_gid(settings: Settings) -> int:
    """Return the group of the public sockets."""
    if settings.grpc.gid >= 0:
        return settings.grpc.gid
    try:
        return grp.getgrnam(SOCKET_GROUP).gr_gid
    except KeyError:
        return 0


def describe(settings: Settings, early: dict[str, object]) -> plugin.Daemon:
    """Return what plugins may know about the daemon they run in."""
    return plugin.Daemon(
        root=Path(settings.root),
        state=Path(settings.state),
        address=settings.address(),
        gid=socket_gid(settings),
        version=version.VERSION,
        early=early,
    )


def registrations(settings: Settings) -> list[plugin.Registration]:
    """Return every enabled plugin. Raises BadConfig where the settings name one that does not exist."""
    modules = builtins.known()
    check_known(settings, modules)
    return [*builtins.load(modules, settings.disabled_plugins), *_proxies(settings)]


def _proxies(settings: Settings) -> list[plugin.Registration]:
    """Return the plugins that other processes are, if any."""
    if not settings.proxy_plugins:
        return []
    from pydock.services import proxies

    return [proxies.registration(name, options) for name, options in sorted(settings.proxy_plugins.items())]


@contextlib.asynccontextmanager
async def running(settings: Settings, early: dict[str, object]) -> AsyncIterator[plugin.PluginTable]:
    """Run everything while the body runs. Raises PydockError naming what could not start."""
    daemon = describe(settings, early)
    table = plugin.PluginTable()
    context = _context(settings, daemon, table)
    steps = graph.plan(registrations(settings), context.given)
    async with contextlib.AsyncExitStack() as stack:
        plugins = graph.Graph(context, table)
        await plugins.start(steps, stack)
        services: list[plugin.GrpcService] = plugins.all(plugin.GrpcService)
        interceptors: list[plugin.GrpcInterceptor] = plugins.all(plugin.GrpcInterceptor)
        wrappers: list[plugin.GrpcWrapper] = plugins.all(plugin.GrpcWrapper)
        await stack.enter_async_context(listeners.serve(settings.grpc, daemon, services, interceptors, wrappers))
        yield table


def _context(settings: Settings, daemon: plugin.Daemon, table: plugin.PluginTable) -> graph.Context:
    given = {
        plugin.Daemon: daemon,
        plugin.PluginTable: table,
        plugin.Supervisor: supervisor.BackOff(),
        metrics.Options: settings.metrics,
    }
    return graph.Context(given, settings.section, daemon.root, daemon.state)
