"""What the figures are taken from, in one value, since a scrape wants all of it."""

from __future__ import annotations

from dataclasses import dataclass

from pydock.core import content, garbage, images, namespaces, snapshots, tasks


@dataclass(frozen=True)
class Sources:
    """What is counted."""

    namespaces: namespaces.Store
    images: images.Store
    content: content.Store
    snapshots: snapshots.Service
    runtime: tasks.Runtime
    collector: garbage.Collector
