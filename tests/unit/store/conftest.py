"""A whole store over real blobs and a snapshotter in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pydock.base import db
from pydock.store import collect, containers, content, images, leases, namespaces, schema, snapshots, waste
from pydock.testing import memory
from pydock_plugins.content import local


@dataclass
class Stores:
    """All stores over one database."""

    database: db.Database
    exchange: memory.Recorder
    blobs: local.LocalBlobs
    backend: memory.MemorySnapshotter
    waste: waste.Waste
    namespaces: namespaces.Namespaces
    images: images.Images
    containers: containers.Containers
    leases: leases.Leases
    content: content.Content
    snapshots: snapshots.Snapshots
    collector: collect.Collector


Opener = Callable[[], AbstractAsyncContextManager[Stores]]


@pytest.fixture
def backend() -> memory.MemorySnapshotter:
    return memory.MemorySnapshotter()


@pytest.fixture
def opener(tmp_path: Path, backend: memory.MemorySnapshotter) -> Opener:
    """Open the stores of the test's directory; again and again, as a daemon that restarts."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Stores]:
        exchange, left = memory.Recorder(), waste.Waste()
        blobs = local.open_blobs(tmp_path / "content")
        async with schema.open_metadata(tmp_path / "meta.db") as database:
            content_store = content.Content(database, exchange, blobs, left)
            snapshot_store = snapshots.Snapshots(database, exchange, {"overlayfs": backend, "native": memory.MemorySnapshotter()}, left)
            collector = collect.Collector(database, exchange, content_store, snapshot_store)
            lease_store = leases.Leases(database, left)
            lease_store.collector = collector
            yield Stores(
                database,
                exchange,
                blobs,
                backend,
                left,
                namespaces.Namespaces(database, exchange, blobs, left),
                images.Images(database, exchange, left),
                containers.Containers(database, exchange, left),
                lease_store,
                content_store,
                snapshot_store,
                collector,
            )

    return opened


@pytest.fixture
async def stores(opener: Opener) -> AsyncIterator[Stores]:
    async with opener() as opened:
        yield opened
