"""Content per namespace: which blobs it sees, with its own labels, over bytes that all namespaces share.

Vocabulary: a namespace *sees* a blob by its row in `schema.BLOBS`; its ingest ``ref`` is ``<namespace>/<ref>`` in the backend, which
needs no record since a namespace's name holds no slash; a *sharing* writer is one whose expected digest another namespace brought
already: it has all its bytes from the start and commits by a row alone.
Invariants: bytes are on disk before the row (commit is durable), rows are gone before the bytes; bytes go only while nobody commits
or shares that digest (the lock by digest, and `pinned`).
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from pydock.base import clock, db, digest, errors, fieldmask, filters, labels, locks, names
from pydock.base.failpoint import failpoint
from pydock.core import content, events, leases
from pydock.store import leases as lease_records
from pydock.store import schema, waste, writers


class Content:
    """See `core.content.Store`."""

    def __init__(self, database: db.Database, exchange: events.Exchange, blobs: content.Blobs, left: waste.Waste) -> None:
        self._database, self._exchange, self.blobs, self.waste = database, exchange, blobs, left
        self._records = database.records(schema.BLOBS)
        self._leases = database.records(schema.LEASES)
        self._shared_refs: set[tuple[str, str]] = set()
        self._locks = locks.Keyed()
        self.pinned: collections.Counter[str] = collections.Counter()

    async def info(self, ns: str, digest: str) -> content.Info:
        """Return size, times and labels. Raises NotFound."""
        found = self._records.get(ns, digest)
        if found is None:
            raise _missing(digest)
        return found

    async def update(self, ns: str, info: content.Info, paths: Sequence[str] = ()) -> content.Info:
        """Set labels. Raises NotFound, InvalidArgument for any path but labels."""

        def step(tx: db.Transaction) -> content.Info:
            old = tx.get(schema.BLOBS, ns, info.digest)
            if old is None:
                raise _missing(info.digest)
            merged = _checked(fieldmask.labels(old.labels, info.labels, paths, functools.partial(_refuse, info.digest)))
            return tx.put(schema.BLOBS, ns, info.digest, dataclasses.replace(old, labels=merged, updated_at=clock.now()))

        made = await self._database.change(step)
        self.waste.mark_dirty()
        return made

    async def walk(self, ns: str, filters_: Iterable[str] = ()) -> AsyncIterator[content.Info]:
        """Yield the blobs that any of the filters picks, by digest, as they were when the walk began."""
        wanted = filters.parse(filters_)
        for _, info in sorted(self._records.items(ns).items()):
            if wanted.match(functools.partial(_field, info)):
                yield info

    async def delete(self, ns: str, digest: str) -> None:
        """Make the namespace see the blob no more; the bytes go when no other sees them. Raises NotFound."""

        def step(tx: db.Transaction) -> None:
            if tx.get(schema.BLOBS, ns, digest) is None:
                raise _missing(digest)
            tx.delete(schema.BLOBS, ns, digest)
            self._announce(tx, ns, events.ContentDelete(digest))

        await self._database.change(step, durable=True)
        failpoint("content.deleted")
        self.waste.drop_blob(digest)
        self.waste.mark_dirty()

    async def open(self, ns: str, digest: str) -> content.Reader:
        """Open for reading. Raises NotFound."""
        await self.info(ns, digest)
        return await self.blobs.open(digest)

    async def writer(self, ns: str, ref: str, total: int = 0, expected: str = "", lease: str = "") -> content.Writer:
        """Open or resume an ingest. Raises Unavailable (locked), AlreadyExists (the namespace sees ``expected``), NotFound (lease)."""
        names.namespace(ns)
        names.opaque("ref", ref)
        if expected:
            digest.validate(expected)
        if lease and self._leases.get(ns, lease) is None:
            raise errors.NotFound("lease does not exist")
        there = expected and self._records.get(ns, expected) is not None
        if there and (not lease or await self._database.change(functools.partial(self._hold, ns, expected, lease))):
            raise errors.AlreadyExists(f"content {expected}")
        if (ns, ref) in self._shared_refs:
            raise errors.Unavailable(f"ref {ref} locked")
        target = writers.Target(ns, ref, total, expected, lease)
        made = await self._open(target)
        try:
            await self._register(target)
            await made.learn()
        except BaseException:
            await made.close()
            raise
        return made

    async def status(self, ns: str, ref: str) -> content.Status:
        """Return one ingest. Raises NotFound."""
        try:
            found = await self.blobs.status(f"{ns}/{ref}")
        except errors.NotFound:
            raise errors.NotFound(f"reference {ref}") from None
        return dataclasses.replace(found, ref=ref)

    async def statuses(self, ns: str, filters_: Iterable[str] = ()) -> Sequence[content.Status]:
        """Return the ingests that any of the filters picks, by ref."""
        wanted, prefix = filters.parse(filters_), f"{ns}/"
        own = [item for item in await self.blobs.statuses() if item.ref.startswith(prefix)]
        found = [dataclasses.replace(item, ref=item.ref.removeprefix(prefix)) for item in own]
        return sorted((item for item in found if wanted.match(functools.partial(_status_field, item))), key=lambda item: item.ref)

    async def abort(self, ns: str, ref: str) -> None:
        """Throw an ingest away. Raises NotFound."""
        try:
            await self.blobs.abort(f"{ns}/{ref}")
        except errors.NotFound:
            raise errors.NotFound(f"reference {ref}") from None

    async def commit(self, target: writers.Target, inner: content.Writer | None, wanted: writers.Wanted) -> str:
        """Finish a writer of ours: bytes first, then the row, both under the digest's lock. For `writers` only."""
        pairs = _checked(wanted.labels)
        name = wanted.expected or (target.expected if inner is None else await inner.digest())
        async with self._locks.hold(name):
            size, shared = await self._commit_bytes(target, inner, wanted)
            made = content.Info(shared, size, clock.now(), clock.now(), pairs)
            new = await self._database.change(functools.partial(self._see, target, made), durable=True)
            failpoint("content.recorded")
        if not new:
            raise errors.AlreadyExists(f"content {shared}")
        return shared

    async def remove_bytes(self, digest: str) -> bool:
        """Remove a blob's bytes unless somebody sees, commits or shares it; tell whether they went. For the collector."""
        async with self._locks.hold(digest):
            if self.is_seen(digest) or self.pinned[digest]:
                return False
            try:
                await self.blobs.delete(digest)
            except errors.NotFound:
                return False
        return True

    def is_seen(self, digest: str) -> bool:
        """Tell whether any namespace sees the blob."""
        return any(self._records.get(ns, digest) is not None for ns in self._records.namespaces())

    def share(self, target: writers.Target) -> None:
        """Note that a sharing writer is open; `unshare` ends it. For `writers` only."""
        self._shared_refs.add((target.ns, target.ref))
        self.pinned[target.expected] += 1

    def unshare(self, target: writers.Target) -> None:
        """See `share`."""
        self._shared_refs.discard((target.ns, target.ref))
        self.pinned[target.expected] -= 1
        if not self.pinned[target.expected]:
            del self.pinned[target.expected]

    async def _open(self, target: writers.Target) -> writers.Writer:
        """Return a writer, a sharing one where the backend has the expected bytes already and they are not just being removed."""
        if not target.expected:
            return writers.Writer(self, self.blobs, target, await self.blobs.writer(target.backend_ref, target.total))
        async with self._locks.hold(target.expected):
            inner = None
            with contextlib.suppress(errors.AlreadyExists):
                inner = await self.blobs.writer(target.backend_ref, target.total, target.expected)
            return writers.Writer(self, self.blobs, target, inner)

    async def _register(self, target: writers.Target) -> None:
        """Make the namespace and hold the ingest by the lease; no change at all in the usual case."""
        if not target.lease and self._database.records(schema.NAMESPACES).get("", target.ns) is not None:
            return

        def step(tx: db.Transaction) -> None:
            schema.touch(tx, target.ns)
            if target.lease:
                lease_records.hold(tx, target.ns, target.lease, target.resource)

        await self._database.change(step)

    async def _commit_bytes(self, target: writers.Target, inner: content.Writer | None, wanted: writers.Wanted) -> tuple[int, str]:
        """Return size and digest of bytes that are durable; the backend may have had them from another namespace meanwhile."""
        if inner is None:
            size = (await self.blobs.info(target.expected)).size
            _check(target, wanted, size)
            return size, target.expected
        size = inner.status().offset
        if wanted.size and wanted.size != size:
            raise errors.FailedPrecondition(f"{names.quote(target.ref)} failed size validation: {size} != {wanted.size}")
        actual = wanted.expected or await inner.digest()
        try:
            return size, await inner.commit(wanted.size, wanted.expected, {})
        except errors.AlreadyExists:
            return size, actual

    def _hold(self, ns: str, name: str, lease: str, tx: db.Transaction) -> bool:
        """Hold a blob by a lease; tell whether it still is there, for a collection may have come first."""
        if tx.get(schema.BLOBS, ns, name) is None:
            return False
        lease_records.hold(tx, ns, lease, leases.Resource(name, lease_records.CONTENT))
        return True

    def _see(self, target: writers.Target, made: content.Info, tx: db.Transaction) -> bool:
        """Move the lease's hold from the ingest to the blob, and add the row; tell whether it is new."""
        ns, lease = target.ns, target.lease
        if lease and tx.get(schema.LEASES, ns, lease) is not None:
            lease_records.release(tx, ns, lease, target.resource)
            lease_records.hold(tx, ns, lease, leases.Resource(made.digest, lease_records.CONTENT))
        if tx.get(schema.BLOBS, ns, made.digest) is not None:
            return False
        schema.touch(tx, ns)
        tx.put(schema.BLOBS, ns, made.digest, made)
        self._announce(tx, ns, events.ContentCreate(made.digest, made.size))
        return True

    def _announce(self, tx: db.Transaction, ns: str, event: events.Event) -> None:
        tx.on_commit(functools.partial(self._exchange.publish, ns, event))


def _check(target: writers.Target, wanted: writers.Wanted, size: int) -> None:
    if wanted.size and wanted.size != size:
        raise errors.FailedPrecondition(f"{names.quote(target.ref)} failed size validation: {size} != {wanted.size}")
    if wanted.expected and wanted.expected != target.expected:
        raise errors.FailedPrecondition(f"unexpected commit digest {target.expected}, expected {wanted.expected}")


def _checked(pairs: Mapping[str, str]) -> dict[str, str]:
    try:
        return labels.validate(pairs)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"info.Labels: {error.detail}") from None


def _field(info: content.Info, path: filters.Path) -> tuple[str, bool]:
    match path:
        case ("digest",):
            return info.digest, True
        case ("size",):
            return str(info.size), True
        case ("labels", *rest):
            return filters.pick(info.labels, tuple(rest))
    return filters.ABSENT


def _status_field(status: content.Status, path: filters.Path) -> tuple[str, bool]:
    return (status.ref, True) if path == ("ref",) else filters.ABSENT


def _refuse(digest: str, path: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"cannot update {names.quote(path)} field on content info {names.quote(digest)}")


def _missing(digest: str) -> errors.NotFound:
    return errors.NotFound(f"content digest {digest}")
