"""The collector: removes what nothing reaches, records first and files later.

Vocabulary: a *pass* marks (`references`), removes unreachable records in one transaction, then the files of what has no record; the
*quick* loop removes files that a client's own deletion left, without a pass; a *young* blob or snapshot was touched less than `GRACE`
ago: a pass nobody asked for spares it, so that a client without a lease may put two calls together.
Invariants: files go only after the removal of their record is on disk; a snapshot being made or a blob being committed or shared is
never touched; without a single namespace on record nothing is removed, since then it is the records that are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Mapping

from pydock.base import clock, db, errors
from pydock.base.failpoint import failpoint
from pydock.core import events, garbage, leases, snapshots
from pydock.store import content as content_store
from pydock.store import references, schema
from pydock.store import snapshots as snapshot_store

GRACE = 10.0  # seconds
DELAY = 1.0  # seconds from a deletion to the pass, so that deletions that come together share one
FIRST_DELAY = 10.0  # seconds from the start to the first pass, which finds what a crash left
INGEST_AGE = 24 * 3600 * clock.SECOND  # an ingest nobody wrote to for so long, and no lease holds, is thrown away


class Collector:
    """See `core.garbage.Collector`; `run_quick` and `run_passes` are its background loops."""

    def __init__(
        self, database: db.Database, exchange: events.Exchange, content_: content_store.Content, snapshots_: snapshot_store.Snapshots
    ) -> None:
        self._database, self._exchange, self._content, self._snapshots = database, exchange, content_, snapshots_
        self._waste = content_.waste
        self._one = asyncio.Lock()
        self._spared = False
        self.history = garbage.History()

    async def run_quick(self) -> None:
        """Remove dropped files as they come, in order, so that a child goes before its parent."""
        while True:
            await self._waste.wake.wait()
            self._waste.wake.clear()
            await self._drain()

    async def run_passes(self) -> None:
        """Do a pass after the start, and one after deletions."""
        await asyncio.sleep(FIRST_DELAY)
        self._waste.dirty.set()
        while True:
            await self._waste.dirty.wait()
            await asyncio.sleep(DELAY)
            await self.collect(GRACE)
            if self._spared:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GRACE):
                        await self._waste.dirty.wait()
                self._waste.dirty.set()

    async def collect(self, grace: float = 0.0) -> garbage.Collected:
        """Do a pass, sparing what is younger than ``grace`` seconds. Raises what the disk says; what is left is found by the next one."""
        async with self._one:
            done, since = None, time.monotonic()
            try:
                done = await self._pass(grace)
            finally:
                self.history.add(done, time.monotonic() - since)
        return done

    async def _pass(self, grace: float) -> garbage.Collected:
        self._waste.dirty.clear()
        if not len(self._database.records(schema.NAMESPACES)):
            return garbage.Collected()
        step = functools.partial(self._remove_records, int(grace * clock.SECOND))
        done = await self._database.change(step, durable=True)
        failpoint("gc.recorded")
        await self._drain()
        await self._remove_orphans()
        return done

    def _remove_records(self, grace: int, tx: db.Transaction) -> garbage.Collected:
        now = clock.now()
        records = _records(self._database)
        graph = references.build(records, now)
        alive = references.reachable(graph)
        young = references.touched_since(records, now - grace) - alive if grace else set()
        self._spared = bool(young)
        if young:
            graph.roots |= young
            alive = references.reachable(graph)
        failpoint("gc.marked")
        counts = garbage.Collected()
        for ns in self._database.records(schema.NAMESPACES).items(""):
            counts = garbage.Collected(
                counts.blobs + self._remove_blobs(tx, ns, alive),
                counts.snapshots + self._remove_snapshots(tx, ns, alive),
                counts.leases + self._remove_leases(tx, ns, now),
            )
        return counts

    def _remove_blobs(self, tx: db.Transaction, ns: str, alive: set[references.Node]) -> int:
        gone = [digest for digest in tx.items(schema.BLOBS, ns) if (ns, "content", digest) not in alive]
        for digest in gone:
            tx.delete(schema.BLOBS, ns, digest)
            tx.on_commit(functools.partial(self._waste.drop_blob, digest))
            tx.on_commit(functools.partial(self._exchange.publish, ns, events.ContentDelete(digest)))
        return len(gone)

    def _remove_snapshots(self, tx: db.Transaction, ns: str, alive: set[references.Node]) -> int:
        gone = []
        for key, row in tx.items(schema.SNAPSHOTS, ns).items():
            snapshotter, _, name = key.partition("/")
            if (ns, f"snapshots/{snapshotter}", name) not in alive:
                gone.append((key, snapshotter, name, row.backend))
        for key, snapshotter, name, _ in gone:
            tx.delete(schema.SNAPSHOTS, ns, key)
            tx.on_commit(functools.partial(self._exchange.publish, ns, events.SnapshotRemove(name, snapshotter)))
        return len(gone)  # their files are found by `_remove_orphans`, which knows the order

    def _remove_leases(self, tx: db.Transaction, ns: str, now: int) -> int:
        gone = [id for id, row in tx.items(schema.LEASES, ns).items() if references.expired(row.lease, now)]
        for id in gone:
            tx.delete(schema.LEASES, ns, id)
        return len(gone)

    async def _drain(self) -> None:
        while (dropped := self._waste.next_snapshot()) is not None:
            await self._remove_snapshot(*dropped)
        while (digest := self._waste.next_blob()) is not None:
            await self._remove_bytes(digest)

    async def _remove_bytes(self, digest: str) -> None:
        await self._content.remove_bytes(digest)
        failpoint("gc.mid_files")

    async def _remove_snapshot(self, snapshotter: str, key: str) -> bool:
        """Remove a snapshot's files; tell whether they are gone. One with children is left for the pass after theirs went."""
        backend = self._snapshots.backends.get(snapshotter)
        if backend is None or key in self._snapshots.known(snapshotter):
            return False
        try:
            await backend.remove(key)
        except errors.NotFound:
            return True
        except (errors.FailedPrecondition, errors.Unavailable):
            return False
        return True

    async def _remove_orphans(self) -> None:
        """Remove files without a record: what was just swept, and what a crash left between a record and its files."""
        for name, backend in sorted(self._snapshots.backends.items()):
            with contextlib.suppress(errors.Unavailable):  # one in another process, which is away
                await self._remove_orphan_snapshots(name, backend)
        for info in [info async for info in self._content.blobs.walk()]:
            if not self._content.is_seen(info.digest):
                await self._remove_bytes(info.digest)
        await self._abort_old_ingests()

    async def _remove_orphan_snapshots(self, name: str, backend: snapshots.Snapshotter) -> None:
        keys = [info.name async for info in backend.walk()]
        left = [key for key in keys if key not in self._snapshots.known(name)]
        while left:
            kept = [key for key in left if not await self._remove_snapshot(name, key)]
            if len(kept) == len(left):
                break
            left = kept
        await backend.cleanup()

    async def _abort_old_ingests(self) -> None:
        horizon = clock.now() - INGEST_AGE
        for status in await self._content.blobs.statuses():
            ns, _, ref = status.ref.partition("/")
            if status.updated_at < horizon and not self._is_leased(ns, ref):
                with contextlib.suppress(errors.NotFound, errors.Unavailable, errors.FailedPrecondition):
                    await self._content.blobs.abort(status.ref)

    def _is_leased(self, ns: str, ref: str) -> bool:
        rows: Mapping[str, schema.Lease] = self._database.records(schema.LEASES).items(ns)
        return any(leases.Resource(ref, "ingests") in row.resources.values() for row in rows.values())


async def forget_lost(database: db.Database, backends: Mapping[str, snapshots.Snapshotter]) -> int:
    """Remove the records of snapshots whose files are gone, which a power cut can do to rebased ones; return how many.

    Otherwise an unpack would take the layer for done. Done at start, before anybody asks.
    """
    found = {}
    for name, backend in backends.items():
        with contextlib.suppress(errors.Unavailable):  # one in another process, which is away: its files are not known to be gone
            found[name] = {info.name async for info in backend.walk()}

    def step(tx: db.Transaction) -> int:
        count = 0
        for ns in database.records(schema.SNAPSHOTS).namespaces():
            for key, row in dict(tx.items(schema.SNAPSHOTS, ns)).items():
                snapshotter = key.partition("/")[0]
                if snapshotter in found and row.backend not in found[snapshotter]:
                    tx.delete(schema.SNAPSHOTS, ns, key)
                    count += 1
        return count

    return await database.change(step)


def _records(database: db.Database) -> references.Records:
    return references.Records(
        tuple(database.records(schema.NAMESPACES).items("")),
        database.records(schema.IMAGES).items,
        database.records(schema.CONTAINERS).items,
        database.records(schema.LEASES).items,
        database.records(schema.BLOBS).items,
        database.records(schema.SNAPSHOTS).items,
    )
