"""Leases as records, each with what it holds.

Invariants: a lease past its `EXPIRE_LABEL` holds nothing but stays an object until the collector takes it; a resource need not exist.
Other stores put what they make under a lease in the transaction that makes it: see `hold`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

from pydock.base import clock, db, digest, errors, filters, ids, labels, names
from pydock.core import garbage, leases
from pydock.store import schema, waste

CONTENT = "content"
INGESTS = "ingests"
IMAGES = "images"
SNAPSHOTS = "snapshots"


class Leases:
    """See `core.leases.Manager`."""

    def __init__(self, database: db.Database, left: waste.Waste) -> None:
        self._database, self._waste = database, left
        self._records = database.records(schema.LEASES)
        self.collector: garbage.Collector | None = None

    async def create(self, ns: str, item: leases.Lease) -> leases.Lease:
        """Make one, with a generated id when it has none. Raises AlreadyExists, InvalidArgument."""
        made = leases.Lease(item.id or ids.lease(), labels.validate(item.labels), clock.now())
        names.opaque("lease id", made.id)

        def step(tx: db.Transaction) -> leases.Lease:
            if tx.get(schema.LEASES, ns, made.id) is not None:
                raise errors.AlreadyExists(f"lease {names.quote(made.id)}")
            schema.touch(tx, ns)
            return tx.put(schema.LEASES, ns, made.id, schema.Lease(made)).lease

        return await self._database.change(step)

    async def delete(self, ns: str, id: str, sync: bool = False) -> None:
        """Drop it; ``sync`` returns when what it alone held is gone. Raises NotFound."""

        def step(tx: db.Transaction) -> None:
            _get(tx, ns, id)
            tx.delete(schema.LEASES, ns, id)

        await self._database.change(step)
        self._waste.mark_dirty()
        if sync and self.collector is not None:
            await self.collector.collect()

    async def list(self, ns: str, filters_: Iterable[str] = ()) -> Sequence[leases.Lease]:
        """Return those that any of the filters picks, by id."""
        wanted = filters.parse(filters_)
        rows = sorted(self._records.items(ns).items())
        return [row.lease for _, row in rows if wanted.match(functools.partial(_field, row.lease))]

    async def add_resource(self, ns: str, lease: str, resource: leases.Resource) -> None:
        """Hold one more. Raises NotFound, InvalidArgument, Unimplemented for a type nobody knows."""
        _check(resource)
        await self._database.change(lambda tx: hold(tx, ns, lease, resource))

    async def delete_resource(self, ns: str, lease: str, resource: leases.Resource) -> None:
        """Hold one no more; one not held is fine. Raises as `add_resource`."""
        _check(resource)
        await self._database.change(lambda tx: release(tx, ns, lease, resource))
        self._waste.mark_dirty()

    async def resources(self, ns: str, lease: str) -> Sequence[leases.Resource]:
        """Return what it holds, by type and id. Raises NotFound."""
        row = self._records.get(ns, lease)
        if row is None:
            raise _missing(lease)
        return [resource for _, resource in sorted(row.resources.items())]


def hold(tx: db.Transaction, ns: str, lease: str, resource: leases.Resource) -> None:
    """Put ``resource`` under ``lease``. Raises NotFound."""
    row = _get(tx, ns, lease)
    key = f"{resource.type} {resource.id}"
    if key not in row.resources:
        tx.put(schema.LEASES, ns, lease, dataclasses.replace(row, resources={**row.resources, key: resource}))


def release(tx: db.Transaction, ns: str, lease: str, resource: leases.Resource) -> None:
    """Take ``resource`` from ``lease``. Raises NotFound for the lease."""
    row = _get(tx, ns, lease)
    key = f"{resource.type} {resource.id}"
    if key in row.resources:
        rest = {name: value for name, value in row.resources.items() if name != key}
        tx.put(schema.LEASES, ns, lease, dataclasses.replace(row, resources=rest))


def _get(tx: db.Transaction, ns: str, id: str) -> schema.Lease:
    row = tx.get(schema.LEASES, ns, id)
    if row is None:
        raise _missing(id)
    return row


def _check(resource: leases.Resource) -> None:
    kind, slash, rest = resource.type.partition("/")
    if kind == CONTENT and not slash:
        try:
            digest.validate(resource.id)
        except errors.InvalidArgument as error:
            raise errors.InvalidArgument(f"invalid content resource id {resource.id[:200]}: {error.detail}") from None
    elif kind == SNAPSHOTS:
        if not rest or "/" in rest:
            raise errors.InvalidArgument(f"invalid snapshot resource type {resource.type[:200]}")
    elif kind in (CONTENT, INGESTS, IMAGES):
        if slash:
            raise errors.InvalidArgument(f"invalid resource type {resource.type[:200]}")
    else:
        raise errors.Unimplemented(f"resource type {resource.type[:200]} not supported yet")
    names.opaque("resource id", resource.id)


def _field(item: leases.Lease, path: filters.Path) -> tuple[str, bool]:
    match path:
        case ("id",):
            return filters.text(item.id)
        case ("labels", *rest):
            return filters.pick(item.labels, tuple(rest))
    return filters.ABSENT


def _missing(id: str) -> errors.NotFound:
    return errors.NotFound(f"lease {names.quote(id)}")
