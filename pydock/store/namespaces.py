"""Namespaces as records; every other store makes the one it writes to.

Invariants: a namespace that holds images, blobs, containers or snapshots is not deleted; its leases and ingests go with it.
`get` of one that is not there returns it empty: Go clients ask for a namespace's label defaults before the first write makes it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from pydock.base import db, errors, fieldmask, labels, names
from pydock.core import content, events, namespaces
from pydock.store import schema, waste


class Namespaces:
    """See `core.namespaces.Store`."""

    def __init__(self, database: db.Database, exchange: events.Exchange, blobs: content.Blobs, left: waste.Waste) -> None:
        self._database, self._exchange, self._blobs, self._waste = database, exchange, blobs, left
        self._records = database.records(schema.NAMESPACES)

    async def get(self, name: str) -> namespaces.Namespace:
        """Return the namespace; one not made yet has no labels."""
        return self._records.get("", name) or namespaces.Namespace(names.identifier(name))

    async def list(self) -> Sequence[namespaces.Namespace]:
        """Return all, by name."""
        return [item for _, item in sorted(self._records.items("").items())]

    async def create(self, item: namespaces.Namespace) -> namespaces.Namespace:
        """Make it. Raises AlreadyExists, InvalidArgument."""
        made = namespaces.Namespace(names.identifier(item.name), _checked(item.labels))

        def step(tx: db.Transaction) -> namespaces.Namespace:
            if tx.get(schema.NAMESPACES, "", item.name) is not None:
                raise errors.AlreadyExists(f"namespace {names.quote(item.name)}")
            self._announce(tx, events.NamespaceCreate(made.name, made.labels), made.name)
            return tx.put(schema.NAMESPACES, "", item.name, made)

        return await self._database.change(step)

    async def update(self, item: namespaces.Namespace, paths: Sequence[str] = ()) -> namespaces.Namespace:
        """Set labels, making the namespace for the first. Raises InvalidArgument for any path but labels."""
        names.identifier(item.name)

        def step(tx: db.Transaction) -> namespaces.Namespace:
            old = tx.get(schema.NAMESPACES, "", item.name) or namespaces.Namespace(item.name)
            merged = _checked(fieldmask.labels(old.labels, item.labels, paths, _refuse))
            made = namespaces.Namespace(item.name, merged)
            self._announce(tx, events.NamespaceUpdate(made.name, made.labels), made.name)
            if merged or tx.get(schema.NAMESPACES, "", item.name) is not None:
                tx.put(schema.NAMESPACES, "", item.name, made)
            return made

        return await self._database.change(step)

    async def delete(self, name: str) -> None:
        """Remove an empty one. Raises NotFound, FailedPrecondition naming what it holds."""

        def step(tx: db.Transaction) -> None:
            if tx.get(schema.NAMESPACES, "", name) is None:
                raise errors.NotFound(f"namespace {names.quote(name)}")
            held = _held(tx, name)
            if held:
                raise errors.FailedPrecondition(f"namespace {names.quote(name)} must be empty, but it still has {', '.join(held)}")
            for id in tuple(tx.items(schema.LEASES, name)):
                tx.delete(schema.LEASES, name, id)
            tx.delete(schema.NAMESPACES, "", name)
            self._announce(tx, events.NamespaceDelete(name), name)

        await self._database.change(step)
        await self._abort_ingests(name)
        self._waste.mark_dirty()

    async def _abort_ingests(self, name: str) -> None:
        for status in await self._blobs.statuses():
            if status.ref.startswith(f"{name}/"):
                try:
                    await self._blobs.abort(status.ref)
                except (errors.NotFound, errors.Unavailable, errors.FailedPrecondition):
                    continue  # gone, or still written to: it expires

    def _announce(self, tx: db.Transaction, event: events.Event, name: str) -> None:
        tx.on_commit(functools.partial(self._exchange.publish, name, event))


def _held(tx: db.Transaction, ns: str) -> list[str]:
    """Return what keeps a namespace, in the words clients know."""
    sizes = {
        "images": len(tx.items(schema.IMAGES, ns)),
        "blobs": len(tx.items(schema.BLOBS, ns)),
        "containers": len(tx.items(schema.CONTAINERS, ns)),
        "sandboxes": len(tx.items(schema.SANDBOXES, ns)),
    }
    held = [word for word, size in sizes.items() if size]
    snapshotters = {key.partition("/")[0] for key in tx.items(schema.SNAPSHOTS, ns)}
    return held + [f'snapshots on "{snapshotter}" snapshotter' for snapshotter in sorted(snapshotters)]


def _checked(pairs: Mapping[str, str]) -> dict[str, str]:
    try:
        return labels.validate(pairs)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"namespace.Labels: {error.detail}") from None


def _refuse(path: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"cannot update {names.quote(path)} field")
