"""Sandboxes as records.

Invariants: id, sandboxer and time of creation never change; the runtime's name changes only where a path names the runtime.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

from pydock.base import clock, db, errors, fieldmask, filters, labels, names
from pydock.core import sandboxes
from pydock.store import schema

FIELDS = ("labels", "extensions", "spec", "runtime")


class Sandboxes:
    """See `core.sandboxes.Store`. Writes survive a crash of the daemon; a power cut ends every sandbox anyway."""

    def __init__(self, database: db.Database) -> None:
        self._database = database
        self._records = database.records(schema.SANDBOXES)

    async def get(self, ns: str, id: str) -> sandboxes.Sandbox:
        """Return one. Raises NotFound."""
        found = self._records.get(ns, id)
        if found is None:
            raise _missing(id)
        return found

    async def list(self, ns: str, filters_: Iterable[str] = ()) -> Sequence[sandboxes.Sandbox]:
        """Return those that any of the filters picks, by id."""
        wanted = filters.parse(filters_)
        return [item for _, item in sorted(self._records.items(ns).items()) if wanted.match(functools.partial(_field, item))]

    async def create(self, ns: str, item: sandboxes.Sandbox) -> sandboxes.Sandbox:
        """Make one. Raises AlreadyExists, InvalidArgument."""
        item = _validate(item)
        now = clock.now()
        made = dataclasses.replace(item, created_at=now, updated_at=now)

        def step(tx: db.Transaction) -> sandboxes.Sandbox:
            if tx.get(schema.SANDBOXES, ns, item.sandbox_id) is not None:
                raise errors.AlreadyExists(f"sandbox {names.quote(item.sandbox_id)}")
            schema.touch(tx, ns)
            return tx.put(schema.SANDBOXES, ns, item.sandbox_id, made)

        return await self._database.change(step)

    async def update(self, ns: str, item: sandboxes.Sandbox, paths: Sequence[str] = ()) -> sandboxes.Sandbox:
        """Replace what ``paths`` name, or all that may change. Raises NotFound, InvalidArgument."""

        def step(tx: db.Transaction) -> sandboxes.Sandbox:
            made = tx.get(schema.SANDBOXES, ns, item.sandbox_id)
            if made is None:
                raise _missing(item.sandbox_id)
            if not paths and made.runtime.name != item.runtime.name:
                raise errors.InvalidArgument("sandbox.Runtime.Name field is immutable")
            for path in paths or FIELDS:
                made = _masked(made, item, path)
            made = dataclasses.replace(made, updated_at=clock.now())
            return tx.put(schema.SANDBOXES, ns, item.sandbox_id, _validate(made))

        return await self._database.change(step)

    async def delete(self, ns: str, id: str) -> None:
        """Remove the record. Raises NotFound."""

        def step(tx: db.Transaction) -> None:
            if tx.get(schema.SANDBOXES, ns, id) is None:
                raise _missing(id)
            tx.delete(schema.SANDBOXES, ns, id)

        await self._database.change(step)


def _masked(old: sandboxes.Sandbox, new: sandboxes.Sandbox, path: str) -> sandboxes.Sandbox:
    name, _, key = path.partition(".")
    if path == "spec":
        return dataclasses.replace(old, spec=new.spec)
    if path == "runtime":
        return dataclasses.replace(old, runtime=new.runtime)
    if path == "extensions":
        return dataclasses.replace(old, extensions=dict(new.extensions))
    if name == "extensions" and key:
        rest = {known: value for known, value in old.extensions.items() if known != key}
        return dataclasses.replace(old, extensions={**rest, key: new.extensions[key]} if key in new.extensions else rest)
    merged = fieldmask.merge(old.labels, new.labels, "labels", path)
    if merged is None:
        raise errors.InvalidArgument(f"cannot update {names.quote(path)} field on sandbox {names.quote(new.sandbox_id)}")
    return dataclasses.replace(old, labels=merged)


def _validate(item: sandboxes.Sandbox) -> sandboxes.Sandbox:
    """Return the record without labels that have no value."""
    try:
        names.identifier(item.sandbox_id)
        return dataclasses.replace(item, labels=labels.validate(item.labels))
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"failed to validate sandbox: {error.detail}") from None


def _field(item: sandboxes.Sandbox, path: filters.Path) -> tuple[str, bool]:
    match path:
        case ("id",):
            return filters.text(item.sandbox_id)
        case ("runtime", "name"):
            return filters.text(item.runtime.name)
        case ("sandboxer",):
            return filters.text(item.sandboxer)
        case ("labels", *rest):
            return filters.pick(item.labels, tuple(rest))
    return filters.ABSENT


def _missing(id: str) -> errors.NotFound:
    return errors.NotFound(f"sandbox {names.quote(id)}")
