"""Paths and tables: drawn once, and within what the kernel takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydock.base import db, errors
from pydock.store import layout, schema


def test_root_and_state_are_drawn_as_containerd_draws_them() -> None:
    root, state = layout.Root(Path("/r")), layout.State(Path("/s"))
    assert str(root.database) == "/r/meta.db"
    assert str(root.content) == "/r/io.containerd.content.v1.content"
    assert str(root.snapshotter("overlayfs")) == "/r/io.containerd.snapshotter.v1.overlayfs"
    assert str(state.bundle("default", "c1")) == "/s/io.containerd.runtime.v2.task/default/c1"
    assert str(state.sockets) == "/s/s"


@pytest.mark.parametrize("name", ["..", "a/b", "", "x" * 77])
def test_no_name_leads_out_of_its_directory(name: str) -> None:
    state = layout.State(Path("/s"))
    with pytest.raises(errors.InvalidArgument):
        state.bundle("default", name)
    with pytest.raises(errors.InvalidArgument):
        state.bundle(name, "c")
    with pytest.raises(errors.InvalidArgument):
        layout.Root(Path("/r")).snapshotter(name)


async def test_the_tables_are_those_of_the_migrations(tmp_path: Path) -> None:
    async with schema.open_metadata(tmp_path / "meta.db") as database:
        assert [len(database.records(table)) for table in schema.TABLES] == [0] * len(schema.TABLES)
    fresh = db.Schema("metadata", schema.TABLES)
    async with db.open(tmp_path / "fresh.db", fresh):
        pass
    assert (tmp_path / "fresh.db").read_bytes()[:16] == (tmp_path / "meta.db").read_bytes()[:16]
    assert [table.create() for table in schema.TABLES] == [statement for step in schema.MIGRATIONS for statement in step]
