"""A disk that is full: a typed error, no lie in memory, and all is well when there is room again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pydock.base import db, errors

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Item:
    text: str


ITEMS = db.Table("items", Item)
SCHEMA = db.Schema("test", (ITEMS,))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def put(key: str, size: int = 1000) -> Callable[[db.Transaction], Item]:
    return lambda tx: tx.put(ITEMS, "", key, Item("x" * size))


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        while True:
            stream.write(bytes(4096))
    return filler


async def test_a_full_disk_is_an_error_and_not_a_loss(disk: Path) -> None:
    async with db.open(disk / "x.db", SCHEMA) as database:
        await database.change(put("first"), durable=True)
        filler = fill(disk)
        kept = 0
        with pytest.raises(errors.ResourceExhausted, match="no space left on device"):
            while True:  # what the reserve has room for is taken
                await database.change(put(f"more{kept}", 20000), durable=True)
                kept += 1
        items = database.records(ITEMS)
        assert len(items) == kept + 1
        assert items.get("", "first") == Item("x" * 1000)
        with pytest.raises(errors.ResourceExhausted):
            await database.change(put("again", 20000))
        filler.unlink()
        await database.change(put("last"), durable=True)
    async with db.open(disk / "x.db", SCHEMA) as database:
        assert len(database.records(ITEMS)) == kept + 2


async def test_what_fills_the_disk_can_be_deleted(disk: Path) -> None:
    """The reserve: a full disk takes deletions, and small changes about them, again and again."""
    async with db.open(disk / "x.db", SCHEMA) as database:
        for number in range(300):
            await database.change(put(str(number), 100))
        filler = fill(disk)
        for number in range(300):
            await database.change(lambda tx, key=str(number): tx.delete(ITEMS, "", key), durable=True)
            await database.change(put("note", 100))
        assert list(database.records(ITEMS).items("")) == ["note"]
        assert filler.exists()
    async with db.open(disk / "x.db", SCHEMA) as database:
        assert len(database.records(ITEMS)) == 1


async def test_a_database_that_does_not_fit_is_not_begun(disk: Path) -> None:
    fill(disk)
    with pytest.raises(errors.ResourceExhausted):
        async with db.open(disk / "x.db", SCHEMA):
            pass
    assert [each.name for each in disk.iterdir()] == ["filler"]


async def test_a_disk_that_can_only_be_read_says_so(disk: Path) -> None:
    async with db.open(disk / "x.db", SCHEMA) as database:
        await database.change(put("first"))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(errors.PydockError, match=r"x\.db"):
        async with db.open(disk / "x.db", SCHEMA):
            pass
