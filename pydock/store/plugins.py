"""The store as a plugin: one database under all services that keep records, and the loops that collect garbage."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from pydock.core import containers as core_containers
from pydock.core import content as core_content
from pydock.core import events, garbage, plugin
from pydock.core import images as core_images
from pydock.core import leases as core_leases
from pydock.core import namespaces as core_namespaces
from pydock.core import sandboxes as core_sandboxes
from pydock.core import snapshots as core_snapshots
from pydock.store import collect, containers, content, images, layout, leases, namespaces, sandboxes, schema, snapshots, waste

log = logging.getLogger(__name__)

# One plugin yields all, since the records of all kinds change in one transaction.
Stores = tuple[
    core_namespaces.Store,
    core_images.Store,
    core_containers.Store,
    core_sandboxes.Store,
    core_leases.Manager,
    core_content.Store,
    core_snapshots.Service,
    garbage.Collector,
]


@dataclass(frozen=True)
class StoreConfig(plugin.Config):
    """Section ``[plugins."io.containerd.metadata.v1.bolt"]``."""

    default_snapshotter: str = plugin.option("overlayfs", "the snapshotter of requests that name none")
    collect: bool = plugin.option(True, "remove what nothing refers to, a second after deletions and ten after the start")


@plugin.plugin("io.containerd.metadata.v1", "bolt", capabilities=("policy=shared",))
async def metadata(
    cfg: StoreConfig,
    daemon: plugin.Daemon,
    supervisor: plugin.Supervisor,
    exchange: events.Exchange,
    blobs: core_content.Blobs,
    snapshotters: Mapping[str, core_snapshots.Snapshotter],
) -> AsyncIterator[Stores]:
    """Records in ``meta.db`` below the root; the plugin has containerd's name, by which clients look for it."""
    async with schema.open_metadata(layout.Root(daemon.root).database) as database:
        lost = await collect.forget_lost(database, snapshotters)
        if lost:
            log.warning("%d snapshots had lost their files; their records are removed", lost)
        left = waste.Waste()
        content_store = content.Content(database, exchange, blobs, left)
        snapshot_store = snapshots.Snapshots(database, exchange, snapshotters, left, cfg.default_snapshotter)
        lease_store = leases.Leases(database, left)
        collector = collect.Collector(database, exchange, content_store, snapshot_store)
        lease_store.collector = collector
        async with plugin.background() as spawn:
            spawn(supervisor.keep("garbage files", collector.run_quick), name="garbage files")
            if cfg.collect:
                spawn(supervisor.keep("garbage passes", collector.run_passes), name="garbage passes")
            yield (
                namespaces.Namespaces(database, exchange, blobs, left),
                images.Images(database, exchange, left),
                containers.Containers(database, exchange, left),
                sandboxes.Sandboxes(database),
                lease_store,
                content_store,
                snapshot_store,
                collector,
            )
