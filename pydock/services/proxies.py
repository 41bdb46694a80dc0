"""Proxy plugins as plugins: each section ``[proxy_plugins.NAME]`` is a registration like any other.

One of content or diff takes the place of the built-in one, which is then named in ``disabled_plugins``, as with containerd.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from pydock.core import content, diff, events, plugin, proxies, snapshots
from pydock.services import proxy_content, proxy_diff, proxy_snapshots, remote

Differ = tuple[diff.Applier, diff.Comparer]

TYPES = {
    "snapshot": "io.containerd.snapshotter.v1",
    "content": "io.containerd.content.v1",
    "diff": "io.containerd.differ.v1",
}


def registration(name: str, options: proxies.Options) -> plugin.Registration:
    """Return the plugin of one section."""

    async def snapshotter() -> AsyncIterator[snapshots.Snapshotter]:
        async with _remote(name, options) as far:
            yield proxy_snapshots.ProxySnapshotter(name, far)

    async def blobs(place: plugin.PluginState) -> AsyncIterator[content.Blobs]:
        async with _remote(name, options) as far:
            yield proxy_content.ProxyBlobs(far, place)

    async def differ(store: content.Store, blobs: content.Blobs, exchange: events.Exchange) -> AsyncIterator[Differ]:
        async with _remote(name, options) as far:
            made = proxy_diff.ProxyDiffer(far, store, blobs, exchange)
            yield made, made

    factories: dict[str, plugin.Factory] = {"snapshot": snapshotter, "content": blobs, "diff": differ}
    platforms = (options.platform,) if options.platform else ()
    return plugin.Registration(
        TYPES[options.type], name, factories[options.type], platforms, options.capabilities, tuple(options.exports.items())
    )


@contextlib.asynccontextmanager
async def _remote(name: str, options: proxies.Options) -> AsyncIterator[remote.Remote]:
    far = remote.Remote(name, options.address, options.namespace)
    try:
        yield far
    finally:
        await far.close()
