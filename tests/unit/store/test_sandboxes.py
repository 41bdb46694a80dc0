"""Sandbox records: made, changed by field, filtered, removed, and kept over a restart."""

from __future__ import annotations

from typing import Any

import pytest

from pydock.base import db, errors
from pydock.core import containers, sandboxes
from pydock.store import sandboxes as store
from pydock.store import schema

SPEC = containers.Any("spec", b"{}")
ONE = sandboxes.Sandbox(
    "one", sandboxes.Runtime("io.containerd.runc.v2", containers.Any("o", b"1")), SPEC, {"k": "v"}, {"e": SPEC}, "podsandbox"
)


async def test_a_record_comes_back_whole_after_a_restart(opener: Any) -> None:
    async with opener() as stores:
        made = await store.Sandboxes(stores.database).create("ns", ONE)
        assert made.created_at == made.updated_at > 0
        assert [item.name for item in await stores.namespaces.list()] == ["ns"]
    async with opener() as stores:
        again = store.Sandboxes(stores.database)
        assert await again.get("ns", "one") == made
        with pytest.raises(errors.FailedPrecondition, match="sandboxes"):
            await stores.namespaces.delete("ns")
        await again.delete("ns", "one")
        assert await again.list("ns") == []


async def test_an_id_is_taken_once_in_a_namespace(stores: Any) -> None:
    records = store.Sandboxes(stores.database)
    await records.create("ns", ONE)
    await records.create("other", ONE)
    with pytest.raises(errors.AlreadyExists, match='sandbox "one": already exists'):
        await records.create("ns", ONE)
    for id in ("", "a/b", ".hidden"):
        with pytest.raises(errors.InvalidArgument, match="failed to validate sandbox"):
            await records.create("ns", sandboxes.Sandbox(id))


async def test_what_is_not_there_is_said_so(stores: Any) -> None:
    records = store.Sandboxes(stores.database)
    for refused in (records.get("ns", "x"), records.delete("ns", "x"), records.update("ns", sandboxes.Sandbox("x"))):
        with pytest.raises(errors.NotFound, match='sandbox "x": not found'):
            await refused


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ((), ({"n": "1"}, {"f": SPEC}, None)),
        (("labels",), ({"n": "1"}, {"e": SPEC}, SPEC)),
        (("labels.n",), ({"k": "v", "n": "1"}, {"e": SPEC}, SPEC)),
        (("labels.k",), ({}, {"e": SPEC}, SPEC)),
        (("extensions.f", "spec"), ({"k": "v"}, {"e": SPEC, "f": SPEC}, None)),
        (("extensions.e",), ({"k": "v"}, {}, SPEC)),
    ],
)
async def test_a_change_touches_the_fields_it_names(stores: Any, paths: tuple[str, ...], expected: Any) -> None:
    records = store.Sandboxes(stores.database)
    await records.create("ns", ONE)
    changed = await records.update("ns", sandboxes.Sandbox("one", ONE.runtime, None, {"n": "1"}, {"f": SPEC}), paths)
    assert (changed.labels, changed.extensions, changed.spec) == expected
    assert (changed.sandboxer, changed.runtime) == (ONE.sandboxer, ONE.runtime)


async def test_the_runtime_changes_only_where_it_is_named(stores: Any) -> None:
    records = store.Sandboxes(stores.database)
    await records.create("ns", ONE)
    other = sandboxes.Sandbox("one", sandboxes.Runtime("other"))
    with pytest.raises(errors.InvalidArgument, match="immutable"):
        await records.update("ns", other)
    assert (await records.update("ns", other, ["runtime"])).runtime.name == "other"
    with pytest.raises(errors.InvalidArgument, match='cannot update "sandboxer" field'):
        await records.update("ns", other, ["sandboxer"])


async def test_filters_pick_by_id_runtime_sandboxer_and_label(stores: Any) -> None:
    records = store.Sandboxes(stores.database)
    await records.create("ns", ONE)
    await records.create("ns", sandboxes.Sandbox("two"))
    for wanted in ("id==one", "runtime.name==io.containerd.runc.v2", "sandboxer==podsandbox", "labels.k==v"):
        assert [item.sandbox_id for item in await records.list("ns", [wanted])] == ["one"]
    assert len(await records.list("ns")) == 2


async def test_a_file_from_before_there_were_sandboxes_is_brought_forward(tmp_path: Any) -> None:
    old = db.Schema("metadata", schema.TABLES[:-1], schema.MIGRATIONS[:1])
    async with db.open(tmp_path / "meta.db", old):
        pass
    async with schema.open_metadata(tmp_path / "meta.db") as database:
        assert await store.Sandboxes(database).list("ns") == []
