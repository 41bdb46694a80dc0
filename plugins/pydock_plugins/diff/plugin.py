"""The differ as a plugin: tar layers applied in confined helper processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from pydock.core import diff, mounts, plugin
from pydock_plugins.diff import limits, tar_apply, unpacker


@dataclass(frozen=True)
class DiffConfig(plugin.Config):
    """How layers are unpacked."""

    concurrency: int = plugin.option(0, "layers unpacked at the same time; 0 is the number of processors")
    stall: float = plugin.option(300.0, "seconds without progress after which a helper is given up")


@plugin.plugin("io.containerd.differ.v1", "walking")
async def walking(cfg: DiffConfig, mounter: mounts.Mounter) -> AsyncIterator[diff.Applier]:
    """Offer the unpacking of tar layers."""
    async with unpacker.Unpacker(bounds=limits.Limits(), concurrency=cfg.concurrency, stall=cfg.stall) as helpers:
        yield tar_apply.TarApplier(helpers, mounter)
