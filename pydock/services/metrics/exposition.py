"""What one scrape answers: figures are gathered on the event loop, and put into words in a thread.

Vocabulary: a *family* is a metric of one name with its samples, as Prometheus means it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TypeVar

import prometheus_client as prometheus
from prometheus_client import core
from prometheus_client.metrics_core import Metric

from pydock.base import errors, offload
from pydock.core import garbage
from pydock.services.metrics import cgroups
from pydock.services.metrics import tasks as task_metrics
from pydock.services.metrics.sources import Sources

T = TypeVar("T")

TURN = 256  # records looked at before others get their turn
CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST


class _Families(prometheus.registry.Collector):
    """Families made before, for a registry's sake."""

    def __init__(self, made: Sequence[Metric]) -> None:
        self._made = made

    def collect(self) -> Iterable[Metric]:
        return self._made


class Exposition:
    """Answers scrapes, one after the other."""

    def __init__(self, registry: prometheus.CollectorRegistry, sources: Sources, version: str) -> None:
        self._registry, self._sources = registry, sources
        self._rounds = task_metrics.Rounds(sources.runtime)
        self._one = asyncio.Lock()
        prometheus.ProcessCollector(registry=registry)
        prometheus.PlatformCollector(registry=registry)
        build = prometheus.Gauge("containerd_build_info_total", "The daemon's version.", ("version", "revision"), registry=registry)
        build.labels(version, "").set(1)

    async def text(self) -> bytes:
        """Return everything in Prometheus' text form."""
        async with self._one:
            known = [item.name for item in await self._sources.namespaces.list()]
            found = await self._rounds.collect(known)
            made = [*_garbage(self._sources.collector), *await self._stores(known)]
            return await offload.run(self._render, made, found)

    def _render(self, made: Sequence[Metric], found: task_metrics.Found) -> bytes:
        once = prometheus.CollectorRegistry()
        once.register(_Families([*made, *containers(found)]))
        return prometheus.generate_latest(self._registry) + prometheus.generate_latest(once)

    async def _stores(self, known: Sequence[str]) -> list[Metric]:
        sources, names = self._sources, ["namespace"]
        blobs = core.GaugeMetricFamily("pydock_content_blobs", "Blobs that a namespace sees.", labels=names)
        size = core.GaugeMetricFamily("pydock_content_bytes", "Bytes of the blobs that a namespace sees.", labels=names)
        ingests = core.GaugeMetricFamily("pydock_content_ingests", "Blobs being written.", labels=names)
        kept = core.GaugeMetricFamily("pydock_images", "Images by namespace.", labels=names)
        trees = core.GaugeMetricFamily("pydock_snapshots", "Snapshots by snapshotter.", labels=["namespace", "snapshotter", "kind"])
        stored: dict[str, int] = {}
        for ns in known:
            sizes = {info.digest: info.size async for info in _paced(sources.content.walk(ns))}
            stored.update(sizes)
            blobs.add_metric([ns], len(sizes))
            size.add_metric([ns], sum(sizes.values()))
            ingests.add_metric([ns], len(await sources.content.statuses(ns)))
            kept.add_metric([ns], len(await sources.images.list(ns)))
            for snapshotter in sources.snapshots.names():
                for kind, count in (await self._kinds(ns, snapshotter)).items():
                    trees.add_metric([ns, snapshotter, kind], count)
        unique = core.GaugeMetricFamily("pydock_content_stored_bytes", "Bytes of all blobs, shared ones once.", sum(stored.values()))
        return [blobs, size, unique, ingests, kept, trees]

    async def _kinds(self, ns: str, snapshotter: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        with contextlib.suppress(errors.PydockError):  # one far away may not answer
            async for info in _paced(self._sources.snapshots.walk(ns, snapshotter)):
                counts[info.kind.name.lower()] = counts.get(info.kind.name.lower(), 0) + 1
        return counts


async def _paced(items: AsyncIterator[T]) -> AsyncIterator[T]:
    number = 0
    async for item in items:
        yield item
        number += 1
        if number % TURN == 0:
            await asyncio.sleep(0)


def _garbage(collector: garbage.Collector) -> list[Metric]:
    history = collector.history
    passes = core.CounterMetricFamily("containerd_gc_collections", "Garbage collections.", labels=["status"])
    passes.add_metric(["success"], history.passes)
    passes.add_metric(["fail"], history.failures)
    removed = core.CounterMetricFamily("pydock_gc_removed", "What collections removed.", labels=["kind"])
    for kind in ("blobs", "snapshots", "leases"):
        removed.add_metric([kind], getattr(history, kind))
    seconds = core.SummaryMetricFamily(
        "containerd_gc_gc_seconds", "Seconds spent in garbage collections.", history.passes + history.failures, history.seconds
    )
    return [passes, removed, seconds]


def containers(found: task_metrics.Found) -> list[Metric]:
    """Return the families of all containers' figures, under containerd's names."""
    families: dict[str, core.GaugeMetricFamily] = {}
    for (ns, id), metric in sorted(found.metrics.items()):
        for name, labels, value in cgroups.figures(metric.data):
            family = families.get(name)
            if family is None:
                family = families[name] = core.GaugeMetricFamily(name, name, labels=["container_id", "namespace", *labels])
            family.add_metric([id, ns, *labels.values()], value)
    silent = core.GaugeMetricFamily(
        "pydock_container_silent", "Containers whose shim does not answer.", labels=["container_id", "namespace"]
    )
    for ns, id in sorted(found.silent):
        silent.add_metric([id, ns], 1)
    return [*families.values(), silent]
