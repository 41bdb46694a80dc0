"""Snapshots per namespace over the snapshotters' own keys.

Vocabulary: the *backend key* is ``<namespace>/<number>/<key>``, where the number makes it new each time, so that a key is free again the
moment its record is gone, whatever the files still do.
Invariants: a snapshot's record is written after the snapshotter made it and removed before the snapshotter removes it; what lies
between (a crash, a failed write) is a backend key without a record, which the collector removes unless it is `in_flight`.
Commit is durable when it returns. Labels of the client stay in the record; only those meant for snapshotters are passed on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydock.base import clock, db, errors, fieldmask, filters, labels, names
from pydock.base.failpoint import failpoint
from pydock.core import events, leases, snapshots
from pydock.core.mounts import Mount
from pydock.store import leases as lease_records
from pydock.store import schema, waste

INHERITED = frozenset({snapshots.REF_LABEL, snapshots.REBASE_LABEL})
INHERITED_PREFIX = "containerd.io/snapshot/"

Make = Callable[[str, str, Mapping[str, str]], Coroutine[Any, Any, Sequence[Mount]]]
Commit = Callable[[str, str, Mapping[str, str]], Coroutine[Any, Any, None]]


class Snapshots:
    """See `core.snapshots.Service`; ``backends`` are the snapshotters by name, ``default`` is the one named ""."""

    def __init__(
        self,
        database: db.Database,
        exchange: events.Exchange,
        backends: Mapping[str, snapshots.Snapshotter],
        left: waste.Waste,
        default: str = "overlayfs",
    ) -> None:
        self._database, self._exchange, self.backends, self._waste, self._default = database, exchange, backends, left, default
        self._records = database.records(schema.SNAPSHOTS)
        self._leases = database.records(schema.LEASES)
        # From the clock, so that numbers of an earlier run, whose files a crash may have left, do not come again.
        self._numbers = itertools.count(clock.now() // 1000)
        self._busy: set[tuple[str, str]] = set()
        self.in_flight: set[tuple[str, str]] = set()

    def names(self) -> Sequence[str]:
        """Return the snapshotters there are, the default one first."""
        return sorted(self.backends, key=lambda name: (name != self._default, name))

    async def stat(self, ns: str, snapshotter: str, key: str) -> snapshots.Info:
        """Return one. Raises NotFound, InvalidArgument (no such snapshotter)."""
        name, _ = self._backend(snapshotter)
        return _info(key, self._get(ns, name, key))

    async def update(self, ns: str, snapshotter: str, info: snapshots.Info, paths: Sequence[str] = ()) -> snapshots.Info:
        """Set labels. Raises NotFound, InvalidArgument for any path but labels."""
        name, backend = self._backend(snapshotter)
        names.opaque("snapshot key", info.name)

        def step(tx: db.Transaction) -> schema.Snapshot:
            row = _row(tx, ns, name, info.name)
            merged = _checked(fieldmask.labels(row.labels, info.labels, paths, functools.partial(_refuse, info.name)))
            made = dataclasses.replace(row, labels=merged, updated_at=clock.now())
            return tx.put(schema.SNAPSHOTS, ns, schema.snapshot_key(name, info.name), made)

        old = _inherited(self._get(ns, name, info.name).labels)
        row = await self._database.change(step)
        if _inherited(row.labels) != old:
            await backend.update(snapshots.Info(row.backend, row.kind, labels=_inherited(row.labels)))
        self._waste.mark_dirty()
        return _info(info.name, row)

    async def usage(self, ns: str, snapshotter: str, key: str) -> snapshots.Usage:
        """Return its disk use without its parents. Raises NotFound."""
        name, backend = self._backend(snapshotter)
        return await backend.usage(self._get(ns, name, key).backend)

    async def mounts(self, ns: str, snapshotter: str, key: str) -> Sequence[Mount]:
        """Return what to mount. Raises NotFound, FailedPrecondition for a committed one."""
        name, backend = self._backend(snapshotter)
        return await backend.mounts(self._get(ns, name, key).backend)

    async def prepare(self, ns: str, snapshotter: str, request: snapshots.Preparation) -> Sequence[Mount]:
        """Make an active snapshot. Raises AlreadyExists, NotFound (parent, lease), InvalidArgument."""
        return await self._make(ns, snapshotter, request, snapshots.Kind.ACTIVE)

    async def view(self, ns: str, snapshotter: str, request: snapshots.Preparation) -> Sequence[Mount]:
        """Make a read-only one; raises as `prepare`."""
        return await self._make(ns, snapshotter, request, snapshots.Kind.VIEW)

    async def commit(self, ns: str, snapshotter: str, request: snapshots.Commitment) -> None:
        """Turn the active ``key`` into the committed ``name``. Raises NotFound, AlreadyExists, FailedPrecondition, InvalidArgument."""
        name, backend = self._backend(snapshotter)

        async def work(target: str, key: str, pairs: Mapping[str, str]) -> None:
            await backend.commit(target, key, pairs)

        await self._commit(ns, name, request, None, work)

    async def rebase(self, ns: str, snapshotter: str, request: snapshots.Commitment, parent: str) -> None:
        """As `commit`, on ``parent`` and without the sync: a power cut before the next `settle` undoes it.

        Raises Unimplemented where the snapshotter cannot.
        """
        name, backend = self._rebaser(snapshotter)
        base = self._parent(ns, name, parent)

        async def work(target: str, key: str, pairs: Mapping[str, str]) -> None:
            await backend.rebase(target, key, base, pairs)

        await self._commit(ns, name, request, parent, work)

    async def settle(self, ns: str, snapshotter: str) -> None:
        """Make all that was rebased survive a power cut: files first, then records. Raises Unimplemented as `rebase`."""
        _, backend = self._rebaser(snapshotter)
        await backend.settle()
        await self._database.sync()

    async def remove(self, ns: str, snapshotter: str, key: str) -> None:
        """Remove the record; the files follow in the background. Raises NotFound, FailedPrecondition for a parent of others."""
        name, _ = self._backend(snapshotter)
        row = self._get(ns, name, key)

        def step(tx: db.Transaction) -> None:
            _row(tx, ns, name, key)
            prefix = f"{name}/"
            if any(item.parent == key and id.startswith(prefix) for id, item in tx.items(schema.SNAPSHOTS, ns).items()):
                raise errors.FailedPrecondition("cannot remove snapshot with child")
            tx.delete(schema.SNAPSHOTS, ns, schema.snapshot_key(name, key))
            self._announce(tx, ns, events.SnapshotRemove(key, name))

        with self._busy_with(ns, schema.snapshot_key(name, key), _busy(key)):
            await self._database.change(step, durable=row.kind is snapshots.Kind.COMMITTED)
        failpoint("snapshot.forgotten")
        self._waste.drop_snapshot(name, row.backend)
        self._waste.mark_dirty()

    async def walk(self, ns: str, snapshotter: str, filters_: Iterable[str] = ()) -> AsyncIterator[snapshots.Info]:
        """Yield those that any of the filters picks, by key, as they were when the walk began."""
        name, _ = self._backend(snapshotter)
        wanted, prefix = filters.parse(filters_), f"{name}/"
        for key, row in sorted(self._records.items(ns).items()):
            if key.startswith(prefix):
                info = _info(key.removeprefix(prefix), row)
                if wanted.match(functools.partial(_field, info)):
                    yield info

    async def cleanup(self, ns: str, snapshotter: str) -> None:
        """Remove directories that no record names. Raises InvalidArgument."""
        _, backend = self._backend(snapshotter)
        await backend.cleanup()

    def known(self, snapshotter: str) -> set[str]:
        """Return the backend keys that have a record or are about to. For the collector."""
        prefix, keys = f"{snapshotter}/", {key for name, key in self.in_flight if name == snapshotter}
        for ns in self._records.namespaces():
            keys.update(row.backend for key, row in self._records.items(ns).items() if key.startswith(prefix))
        return keys

    async def _make(self, ns: str, snapshotter: str, request: snapshots.Preparation, kind: snapshots.Kind) -> Sequence[Mount]:
        name, backend = self._backend(snapshotter)
        names.namespace(ns)
        names.opaque("snapshot key", request.key)
        pairs = _checked(request.labels)
        self._check_lease(ns, request.lease)
        self._check_new(ns, name, request)
        parent = self._parent(ns, name, request.parent)
        made = dataclasses.replace(self._new(ns, request.key, pairs), kind=kind, parent=request.parent)
        make: Make = backend.view if kind is snapshots.Kind.VIEW else backend.prepare
        with self._busy_with(ns, schema.snapshot_key(name, request.key), _exists(request.key)), self._flight(name, made.backend):
            found = await make(made.backend, parent, _inherited(pairs))
            failpoint("snapshot.made")
            try:
                await self._database.change(functools.partial(self._prepared, ns, name, request, made))
            except BaseException:
                self._waste.drop_snapshot(name, made.backend)
                raise
        return found

    async def _commit(self, ns: str, name: str, request: snapshots.Commitment, parent: str | None, work: Commit) -> None:
        """Do the ``work`` between the checks and the records; ``parent`` None is the one it has, with a sync."""
        names.opaque("snapshot name", request.name)
        pairs = _checked(request.labels)
        self._check_lease(ns, request.lease)
        target = schema.snapshot_key(name, request.name)
        if self._records.get(ns, target) is not None:
            raise _exists(request.name)
        row = self._get(ns, name, request.key)
        base = row.parent if parent is None else parent
        made = dataclasses.replace(self._new(ns, request.name, pairs), kind=snapshots.Kind.COMMITTED, parent=base)
        source = schema.snapshot_key(name, request.key)
        with self._busy_with(ns, target, _exists(request.name)), self._busy_with(ns, source, _busy(request.key)):
            with self._flight(name, made.backend):
                await work(made.backend, row.backend, _inherited(pairs))
                failpoint("snapshot.committed")
                step = functools.partial(self._committed, ns, name, request, made)
                await self._database.change(step, durable=parent is None)
                failpoint("snapshot.recorded")

    def _prepared(self, ns: str, name: str, request: snapshots.Preparation, made: schema.Snapshot, tx: db.Transaction) -> None:
        if request.parent and tx.get(schema.SNAPSHOTS, ns, schema.snapshot_key(name, request.parent)) is None:
            raise errors.NotFound(f"parent snapshot {request.parent} does not exist")
        schema.touch(tx, ns)
        tx.put(schema.SNAPSHOTS, ns, schema.snapshot_key(name, request.key), made)
        if request.lease:
            lease_records.hold(tx, ns, request.lease, leases.Resource(request.key, f"{lease_records.SNAPSHOTS}/{name}"))
        self._announce(tx, ns, events.SnapshotPrepare(request.key, request.parent, name))

    def _committed(self, ns: str, name: str, request: snapshots.Commitment, made: schema.Snapshot, tx: db.Transaction) -> None:
        tx.delete(schema.SNAPSHOTS, ns, schema.snapshot_key(name, request.key))
        tx.put(schema.SNAPSHOTS, ns, schema.snapshot_key(name, request.name), made)
        if request.lease and tx.get(schema.LEASES, ns, request.lease) is not None:
            kind = f"{lease_records.SNAPSHOTS}/{name}"
            lease_records.release(tx, ns, request.lease, leases.Resource(request.key, kind))
            lease_records.hold(tx, ns, request.lease, leases.Resource(request.name, kind))
        self._announce(tx, ns, events.SnapshotCommit(request.key, request.name, name))

    def _backend(self, snapshotter: str) -> tuple[str, snapshots.Snapshotter]:
        name = snapshotter or self._default
        backend = self.backends.get(name)
        if backend is None:
            raise errors.InvalidArgument(f"snapshotter not loaded: {name[:200]}")
        return name, backend

    def rebases(self, snapshotter: str) -> bool:
        """Tell whether layers of this snapshotter can be unpacked before their parents are."""
        return isinstance(self._backend(snapshotter)[1], snapshots.Rebaser)

    def _rebaser(self, snapshotter: str) -> tuple[str, snapshots.Rebaser]:
        name, backend = self._backend(snapshotter)
        if not isinstance(backend, snapshots.Rebaser):
            raise errors.Unimplemented(f"snapshotter {name} does not rebase")
        return name, backend

    def _get(self, ns: str, name: str, key: str) -> schema.Snapshot:
        row = self._records.get(ns, schema.snapshot_key(name, key))
        if row is None:
            raise errors.NotFound(f"snapshot {key} does not exist")
        return row

    def _parent(self, ns: str, name: str, parent: str) -> str:
        if not parent:
            return ""
        row = self._records.get(ns, schema.snapshot_key(name, parent))
        if row is None:
            raise errors.NotFound(f"parent snapshot {parent} does not exist")
        if row.kind is not snapshots.Kind.COMMITTED:
            raise errors.InvalidArgument(f"failed to create snapshot: parent {names.quote(parent)} is not committed snapshot")
        return row.backend

    def _check_new(self, ns: str, name: str, request: snapshots.Preparation) -> None:
        target = request.labels.get(snapshots.REF_LABEL, "")
        if target and self._records.get(ns, schema.snapshot_key(name, target)) is not None:
            raise errors.AlreadyExists(f"target snapshot {names.quote(target)}")
        if self._records.get(ns, schema.snapshot_key(name, request.key)) is not None:
            raise _exists(request.key)

    def _check_lease(self, ns: str, lease: str) -> None:
        if lease and self._leases.get(ns, lease) is None:
            raise errors.NotFound("lease does not exist")

    def _new(self, ns: str, key: str, pairs: Mapping[str, str]) -> schema.Snapshot:
        now = clock.now()
        return schema.Snapshot(f"{ns}/{next(self._numbers)}/{key}", snapshots.Kind.ACTIVE, "", pairs, now, now)

    @contextlib.contextmanager
    def _busy_with(self, ns: str, row: str, error: errors.PydockError) -> Iterator[None]:
        """Keep others from the same key for the time of the block. Raises ``error`` where somebody is at it."""
        if (ns, row) in self._busy:
            raise error
        self._busy.add((ns, row))
        try:
            yield
        finally:
            self._busy.discard((ns, row))

    @contextlib.contextmanager
    def _flight(self, name: str, backend: str) -> Iterator[None]:
        self.in_flight.add((name, backend))
        try:
            yield
        finally:
            self.in_flight.discard((name, backend))

    def _announce(self, tx: db.Transaction, ns: str, event: events.Event) -> None:
        tx.on_commit(functools.partial(self._exchange.publish, ns, event))


def _row(tx: db.Transaction, ns: str, name: str, key: str) -> schema.Snapshot:
    row = tx.get(schema.SNAPSHOTS, ns, schema.snapshot_key(name, key))
    if row is None:
        raise errors.NotFound(f"snapshot {key} does not exist")
    return row


def _info(key: str, row: schema.Snapshot) -> snapshots.Info:
    return snapshots.Info(key, row.kind, row.parent, row.labels, row.created_at, row.updated_at)


def _inherited(pairs: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that are meant for the snapshotter."""
    return {key: value for key, value in pairs.items() if key in INHERITED or key.startswith(INHERITED_PREFIX)}


def _checked(pairs: Mapping[str, str]) -> dict[str, str]:
    try:
        return labels.validate(pairs)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"info.Labels: {error.detail}") from None


def _field(info: snapshots.Info, path: filters.Path) -> tuple[str, bool]:
    match path:
        case ("kind",):
            return info.kind.name.lower(), True
        case ("name",):
            return info.name, True
        case ("parent",):
            return info.parent, True
        case ("labels", *rest):
            return filters.pick(info.labels, tuple(rest))
    return filters.ABSENT


def _refuse(key: str, path: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"cannot update {names.quote(path)} field on snapshot {names.quote(key)}")


def _exists(key: str) -> errors.AlreadyExists:
    return errors.AlreadyExists(f"snapshot {names.quote(key)}")


def _busy(key: str) -> errors.Unavailable:
    return errors.Unavailable(f"snapshot {names.quote(key)} is being changed by another request")
