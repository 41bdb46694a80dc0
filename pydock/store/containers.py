"""Containers as records.

Invariants: id, runtime name, snapshotter and snapshot key never change; a spec may not be taken away again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

from pydock.base import clock, db, errors, fieldmask, filters, labels, names
from pydock.base.failpoint import failpoint
from pydock.core import containers, events
from pydock.store import schema, waste

MAPS = ("labels", "extensions")
PLAIN = ("image", "spec")


class Containers:
    """See `core.containers.Store`. Writes survive a crash of the daemon; a power cut ends every container anyway."""

    def __init__(self, database: db.Database, exchange: events.Exchange, left: waste.Waste) -> None:
        self._database, self._exchange, self._waste = database, exchange, left
        self._records = database.records(schema.CONTAINERS)

    async def get(self, ns: str, id: str) -> containers.Container:
        """Return one. Raises NotFound."""
        found = self._records.get(ns, id)
        if found is None:
            raise errors.NotFound(f"container {names.quote(id)} in namespace {names.quote(ns)}")
        return found

    async def list(self, ns: str, filters_: Iterable[str] = ()) -> Sequence[containers.Container]:
        """Return those that any of the filters picks, by id."""
        wanted = filters.parse(filters_)
        return [item for _, item in sorted(self._records.items(ns).items()) if wanted.match(functools.partial(_field, item))]

    async def create(self, ns: str, item: containers.Container) -> containers.Container:
        """Make one. Raises AlreadyExists, InvalidArgument."""
        now = clock.now()
        made = dataclasses.replace(_checked(item, "create container failed validation"), created_at=now, updated_at=now)

        def step(tx: db.Transaction) -> containers.Container:
            if tx.get(schema.CONTAINERS, ns, item.id) is not None:
                raise errors.AlreadyExists(f"container {names.quote(item.id)}")
            schema.touch(tx, ns)
            runtime = events.ContainerRuntime(made.runtime, made.runtime_options)
            self._announce(tx, ns, events.ContainerCreate(made.id, made.image, runtime))
            return tx.put(schema.CONTAINERS, ns, item.id, made)

        stored = await self._database.change(step)
        failpoint("container.recorded")
        return stored

    async def update(self, ns: str, item: containers.Container, paths: Sequence[str] = ()) -> containers.Container:
        """Replace what ``paths`` name, or all that may change. Raises NotFound, InvalidArgument."""
        if not item.id:
            raise errors.InvalidArgument("must specify a container id")

        def step(tx: db.Transaction) -> containers.Container:
            old = tx.get(schema.CONTAINERS, ns, item.id)
            if old is None:
                raise errors.NotFound(f"container {names.quote(item.id)}")
            made = _checked(dataclasses.replace(_masked(old, item, paths), updated_at=clock.now()), "update failed validation")
            if made.spec is None:
                raise errors.InvalidArgument("update failed validation: container.Spec must be set")
            self._announce(tx, ns, events.ContainerUpdate(made.id, made.image, made.labels, made.snapshot_key))
            return tx.put(schema.CONTAINERS, ns, item.id, made)

        return await self._database.change(step)

    async def delete(self, ns: str, id: str) -> None:
        """Remove the record. Raises NotFound."""

        def step(tx: db.Transaction) -> None:
            if tx.get(schema.CONTAINERS, ns, id) is None:
                raise errors.NotFound(f"container {names.quote(id)} in namespace {names.quote(ns)}")
            tx.delete(schema.CONTAINERS, ns, id)
            self._announce(tx, ns, events.ContainerDelete(id))

        await self._database.change(step)
        failpoint("container.forgotten")
        self._waste.mark_dirty()

    def _announce(self, tx: db.Transaction, ns: str, event: events.Event) -> None:
        tx.on_commit(functools.partial(self._exchange.publish, ns, event))


def _masked(old: containers.Container, new: containers.Container, paths: Sequence[str]) -> containers.Container:
    if not paths:
        for field, word in (("snapshotter", "Snapshotter"), ("snapshot_key", "SnapshotKey"), ("runtime", "Runtime.Name")):
            if getattr(old, field) != getattr(new, field):
                raise errors.InvalidArgument(f"container.{word} field is immutable")
        paths = (*MAPS, *PLAIN)
    for path in paths:
        old = _masked_one(old, new, path)
    return old


def _masked_one(old: containers.Container, new: containers.Container, path: str) -> containers.Container:
    if path == "image":
        return dataclasses.replace(old, image=new.image)
    if path == "spec":
        return dataclasses.replace(old, spec=new.spec)
    if path == "extensions":
        return dataclasses.replace(old, extensions=dict(new.extensions))
    if path.startswith("extensions."):
        return dataclasses.replace(old, extensions=_with_extension(old.extensions, new.extensions, path.partition(".")[2]))
    merged = fieldmask.merge(old.labels, new.labels, "labels", path)
    if merged is None:
        raise errors.InvalidArgument(f"cannot update {names.quote(path)} field on {names.quote(new.id)}")
    return dataclasses.replace(old, labels=merged)


def _with_extension(old: Mapping[str, containers.Any], new: Mapping[str, containers.Any], key: str) -> Mapping[str, containers.Any]:
    rest = {name: value for name, value in old.items() if name != key}
    return {**rest, key: new[key]} if key in new else rest


def _checked(item: containers.Container, doing: str) -> containers.Container:
    try:
        names.identifier(item.id)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"{doing}: container.ID: {error.detail}") from None
    if "" in item.extensions:
        raise errors.InvalidArgument(f"{doing}: container.Extension keys must not be zero-length")
    try:
        kept = labels.validate(item.labels)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"{doing}: containers.Labels: {error.detail}") from None
    if not item.runtime:
        raise errors.InvalidArgument(f"{doing}: container.Runtime.Name must be set")
    if item.snapshot_key and not item.snapshotter:
        raise errors.InvalidArgument(f"{doing}: container.Snapshotter must be set if container.SnapshotKey is set")
    return dataclasses.replace(item, labels=kept)


def _field(item: containers.Container, path: filters.Path) -> tuple[str, bool]:
    match path:
        case ("id",):
            return filters.text(item.id)
        case ("runtime", "name"):
            return filters.text(item.runtime)
        case ("image",):
            return filters.text(item.image)
        case ("labels", *rest):
            return filters.pick(item.labels, tuple(rest))
    return filters.ABSENT
