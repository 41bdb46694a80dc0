"""Images as records; their content is reached from them by the labels of each blob (see store.references)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

from pydock.base import clock, db, digest, errors, fieldmask, filters, labels, names
from pydock.core import events, images
from pydock.oci import image
from pydock.store import schema, waste


class Images:
    """See `core.images.Store`. Every write is durable: a pulled name survives a power cut."""

    def __init__(self, database: db.Database, exchange: events.Exchange, left: waste.Waste) -> None:
        self._database, self._exchange, self._waste = database, exchange, left
        self._records = database.records(schema.IMAGES)

    async def get(self, ns: str, name: str) -> images.Image:
        """Return one. Raises NotFound."""
        found = self._records.get(ns, name)
        if found is None:
            raise _missing(name)
        return found

    async def list(self, ns: str, filters_: Iterable[str] = ()) -> Sequence[images.Image]:
        """Return those that any of the filters picks, by name."""
        wanted = filters.parse(filters_)
        return [item for _, item in sorted(self._records.items(ns).items()) if wanted.match(functools.partial(_field, item))]

    async def create(self, ns: str, item: images.Image) -> images.Image:
        """Make one; ``created_at`` 0 means now. Raises AlreadyExists, InvalidArgument."""
        names.opaque("image name", item.name)
        now = clock.now()
        made = _checked(dataclasses.replace(item, created_at=item.created_at or now, updated_at=item.updated_at or now))

        def step(tx: db.Transaction) -> images.Image:
            if tx.get(schema.IMAGES, ns, item.name) is not None:
                raise errors.AlreadyExists(f"image {names.quote(item.name)}")
            schema.touch(tx, ns)
            self._announce(tx, ns, events.ImageCreate(made.name, made.labels))
            return tx.put(schema.IMAGES, ns, item.name, made)

        return await self._database.change(step, durable=True)

    async def update(self, ns: str, item: images.Image, paths: Sequence[str] = ()) -> images.Image:
        """Replace what ``paths`` name, or labels and target. Raises NotFound, InvalidArgument."""
        names.opaque("image name", item.name)

        def step(tx: db.Transaction) -> images.Image:
            old = tx.get(schema.IMAGES, ns, item.name)
            if old is None:
                raise _missing(item.name)
            made = _checked(dataclasses.replace(_masked(old, item, paths), updated_at=item.updated_at or clock.now()))
            self._announce(tx, ns, events.ImageUpdate(made.name, made.labels))
            return tx.put(schema.IMAGES, ns, item.name, made)

        made = await self._database.change(step, durable=True)
        self._waste.mark_dirty()
        return made

    async def delete(self, ns: str, name: str, target: str = "") -> None:
        """Remove the name, with ``target`` only while it points there. Raises NotFound."""

        def step(tx: db.Transaction) -> None:
            old = tx.get(schema.IMAGES, ns, name)
            if old is None:
                raise _missing(name)
            if target and old.target.digest != target:
                raise errors.NotFound(f"image {names.quote(name)} has target {old.target.digest}, not {target}")
            tx.delete(schema.IMAGES, ns, name)
            self._announce(tx, ns, events.ImageDelete(name))

        await self._database.change(step, durable=True)
        self._waste.mark_dirty()

    def _announce(self, tx: db.Transaction, ns: str, event: events.Event) -> None:
        tx.on_commit(functools.partial(self._exchange.publish, ns, event))


def _masked(old: images.Image, new: images.Image, paths: Sequence[str]) -> images.Image:
    if not paths:
        return dataclasses.replace(old, labels=dict(new.labels), target=new.target)
    for path in paths:
        if path == "target":
            old = dataclasses.replace(old, target=new.target)
            continue
        merged = fieldmask.merge(old.labels, new.labels, "labels", path)
        if merged is not None:
            old = dataclasses.replace(old, labels=merged)
            continue
        merged = fieldmask.merge(old.target.annotations, new.target.annotations, "annotations", path)
        if merged is None:
            raise errors.InvalidArgument(f"cannot update {names.quote(path)} field on image {names.quote(new.name)}")
        old = dataclasses.replace(old, target=dataclasses.replace(old.target, annotations=merged))
    return old


def _checked(item: images.Image) -> images.Image:
    try:
        digest.validate(item.target.digest)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"Target.Digest {names.quote(item.target.digest[:200])} invalid: {error.detail}") from None
    if item.target.size <= 0:
        raise errors.InvalidArgument("Target.Size must be greater than zero")
    if not item.target.media_type:
        raise errors.InvalidArgument("Target.MediaType must be set")
    kept = []
    for word, pairs in (("Image.Labels", item.labels), ("Target.Annotations", item.target.annotations)):
        try:
            kept.append(labels.validate(pairs))
        except errors.InvalidArgument as error:
            raise errors.InvalidArgument(f"{word}: {error.detail}") from None
    return dataclasses.replace(item, labels=kept[0])


def _field(item: images.Image, path: filters.Path) -> tuple[str, bool]:
    match path:
        case ("name",):
            return filters.text(item.name)
        case ("target", *rest):
            return _target_field(item.target, tuple(rest))
        case ("labels", *rest):
            return filters.pick(item.labels, tuple(rest))
        case ("annotations", *rest):
            return filters.pick(item.target.annotations, tuple(rest))
    return filters.ABSENT


def _target_field(target: image.Descriptor, path: filters.Path) -> tuple[str, bool]:
    match path:
        case ("digest",):
            return filters.text(target.digest)
        case ("mediatype",):
            return filters.text(target.media_type)
    return filters.ABSENT


def _missing(name: str) -> errors.NotFound:
    return errors.NotFound(f"image {names.quote(name)}")
