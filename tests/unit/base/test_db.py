"""The database: atomic changes, durable when told, and a file that is never believed when it is damaged."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pydock.base import db, dbfile, errors


@dataclass(frozen=True)
class Node:
    text: str
    number: int = 0


NODES = db.Table("nodes", Node)
OTHERS = db.Table("others", Node)
SCHEMA = db.Schema("test index", (NODES, OTHERS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.db"


def put(key: str, text: str = "x", ns: str = "") -> Callable[[db.Transaction], Node]:
    return lambda tx: tx.put(NODES, ns, key, Node(text))


async def stored(path: Path) -> dict[str, str]:
    async with db.open(path, SCHEMA) as database:
        return {key: node.text for key, node in database.records(NODES).items("").items()}


async def test_what_is_changed_is_read_at_once_and_after_reopening(path: Path) -> None:
    async with db.open(path, SCHEMA) as database:
        nodes = database.records(NODES)
        assert await database.change(put("a", "é\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"))) == nodes.get("", "a")
        await database.change(put("b", ns="n"), durable=True)
        assert (len(nodes), nodes.namespaces(), nodes.get("n", "c")) == (2, ["", "n"], None)
    assert await stored(path) == {"a": "é😀"}


async def test_the_file_is_only_for_its_owner_and_leaves_no_companions(path: Path) -> None:
    async with db.open(path, SCHEMA) as database:
        await database.change(put("a"))
        assert [stat.S_IMODE(each.stat().st_mode) for each in sorted(path.parent.iterdir())] == [0o600, 0o600]
    assert list(path.parent.iterdir()) == [path]


async def test_a_change_that_raises_changes_nothing(path: Path) -> None:
    def fail(tx: db.Transaction) -> None:
        tx.put(NODES, "", "a", Node("new"))
        tx.delete(NODES, "", "b")
        raise errors.AlreadyExists("b")

    async with db.open(path, SCHEMA) as database:
        await database.change(put("b"))
        with pytest.raises(errors.AlreadyExists):
            await database.change(fail)
        assert dict(database.records(NODES).items("")) == {"b": Node("x")}
    assert await stored(path) == {"b": "x"}


async def test_a_change_sees_its_own_writes(path: Path) -> None:
    def step(tx: db.Transaction) -> list[str]:
        tx.put(NODES, "", "b", Node("2"))
        tx.delete(NODES, "", "a")
        assert tx.get(NODES, "", "a") is None
        assert tx.get(NODES, "", "b") == Node("2")
        tx.put(OTHERS, "", "z", Node("3"))
        return sorted(tx.items(NODES, ""))

    async with db.open(path, SCHEMA) as database:
        await database.change(put("a"))
        await database.change(put("c"))
        assert await database.change(step) == ["b", "c"]
        assert sorted(database.records(NODES).items("")) == ["b", "c"]


async def test_check_then_write_of_many_does_not_interleave(path: Path) -> None:
    def count(tx: db.Transaction) -> None:
        old = tx.get(NODES, "", "n") or Node("")
        tx.put(NODES, "", "n", Node("", old.number + 1))

    async with db.open(path, SCHEMA) as database:
        await asyncio.gather(*(database.change(count, durable=bool(n % 2)) for n in range(100)))
    async with db.open(path, SCHEMA) as database:
        assert database.records(NODES).get("", "n") == Node("", 100)


async def test_changes_that_come_together_share_a_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    real = db.Database._commit

    def commit(self: db.Database, batch: list[Any]) -> None:
        batches.append(len(batch))
        real(self, batch)

    monkeypatch.setattr(db.Database, "_commit", commit)
    async with db.open(path, SCHEMA) as database:
        await asyncio.gather(*(database.change(put(str(n))) for n in range(50)))
    assert batches == [1, 49]


async def test_hooks_run_in_commit_order_before_the_waiter_goes_on(path: Path) -> None:
    seen: list[str] = []

    def step(name: str) -> Callable[[db.Transaction], None]:
        def run(tx: db.Transaction) -> None:
            tx.put(NODES, "", name, Node(name))
            tx.on_commit(lambda: seen.append(name))

        return run

    async with db.open(path, SCHEMA) as database:
        await database.change(step("a"))
        assert seen == ["a"]
        await asyncio.gather(*(database.change(step(name)) for name in "bcd"))
    assert seen == ["a", "b", "c", "d"]


async def test_a_cancelled_caller_does_not_undo_what_was_queued(path: Path) -> None:
    seen: list[str] = []

    def step(tx: db.Transaction) -> None:
        tx.put(NODES, "", "a", Node("x"))
        tx.on_commit(lambda: seen.append("a"))

    async with db.open(path, SCHEMA) as database:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(database.change(step))
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()
    assert seen == ["a"]
    assert await stored(path) == {"a": "x"}


async def test_closing_writes_what_is_queued_and_then_takes_no_more(path: Path) -> None:
    async with db.open(path, SCHEMA) as database, asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(database.change(put(str(number))))
        await asyncio.sleep(0)
    with pytest.raises(errors.Internal, match="is closed"):
        await database.change(put("late"))
    assert len(await stored(path)) == 20


async def test_names_that_are_not_unicode_are_refused_before_they_are_queued(path: Path) -> None:
    async with db.open(path, SCHEMA) as database:
        with pytest.raises(errors.InvalidArgument, match="is not UTF-8"):
            await database.change(put("\ud800"))
        await database.change(put("fine"))
    assert await stored(path) == {"fine": "x"}


async def failing(database: db.Database, error: sqlite3.Error, monkeypatch: pytest.MonkeyPatch) -> list[BaseException | Node]:
    """Make three changes of which the first is alone in a commit that fails."""

    def commit(self: db.Database, batch: list[Any]) -> None:
        raise error

    monkeypatch.setattr(db.Database, "_commit", commit)
    results = await asyncio.gather(*(database.change(put(key, "new")) for key in "abc"), return_exceptions=True)
    monkeypatch.undo()
    return results


def sqlite_error(name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorname = name
    return error


async def test_a_full_disk_fails_the_commit_and_all_behind_it_and_then_it_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with db.open(path, SCHEMA) as database:
        await database.change(put("a", "old"))
        results = await failing(database, sqlite_error("SQLITE_FULL"), monkeypatch)
        assert [type(each) for each in results] == [errors.ResourceExhausted] * 3
        assert "no space left on device" in str(results[0])
        assert dict(database.records(NODES).items("")) == {"a": Node("old")}
        await database.change(put("b", "again"))
    assert await stored(path) == {"a": "old", "b": "again"}


async def test_after_a_failed_fsync_no_change_is_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with db.open(path, SCHEMA) as database:
        await database.change(put("a", "old"))
        results = await failing(database, sqlite_error("SQLITE_IOERR_FSYNC"), monkeypatch)
        assert [type(each) for each in results] == [errors.Internal] * 3
        with pytest.raises(errors.Internal, match="an fsync failed"):
            await database.change(put("b"))
        assert database.records(NODES).get("", "a") == Node("old")
    assert await stored(path) == {"a": "old"}


async def test_sync_makes_earlier_changes_durable(path: Path) -> None:
    async with db.open(path, SCHEMA) as database:
        await database.change(put("a"))
        await database.sync()
        copy = path.with_name("copy.db")
        copy.write_bytes(path.read_bytes())  # without the log: sync moved it into the file
    assert await stored(copy) == {"a": "x"}


async def test_a_crash_at_any_moment_keeps_what_was_told(path: Path, tmp_path: Path) -> None:
    async with db.open(path, SCHEMA) as database:
        for number in range(3):
            await database.change(put(str(number)))
            place = tmp_path / f"crash{number}"
            place.mkdir()
            for each in (path, path.with_name("index.db-wal")):
                (place / each.name).write_bytes(each.read_bytes())
    for number in range(3):
        assert set(await stored(tmp_path / f"crash{number}/index.db")) == {str(n) for n in range(number + 1)}


async def test_a_second_process_is_told_that_the_file_is_taken(path: Path) -> None:
    async with db.open(path, SCHEMA):
        with pytest.raises(errors.Unavailable, match="in use by another process"):
            async with db.open(path, SCHEMA):
                pass


async def filled(path: Path) -> bytes:
    async with db.open(path, SCHEMA) as database:
        await asyncio.gather(*(database.change(put(f"key{n}", "value" * 20)) for n in range(500)))
    return path.read_bytes()


def zero_page(data: bytes) -> bytes:
    return data[:8192] + bytes(4096) + data[12288:]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_text(data: bytes) -> bytes:
    at = data.rindex(b"valuevalue")
    return data[:at] + b"V" + data[at + 1 :]


@pytest.mark.parametrize("damage", [zero_page, cut, flip_text, lambda _: b"", lambda data: b"x" * len(data), lambda data: data[:50]])
async def test_a_damaged_file_is_refused_explained_and_left_alone(path: Path, damage: Callable[[bytes], bytes]) -> None:
    damaged = damage(await filled(path))
    path.write_bytes(damaged)
    with pytest.raises(errors.DataLoss, match=r"index\.db is damaged.*left as it") as caught:
        async with db.open(path, SCHEMA):
            pass
    assert path.read_bytes() == damaged
    assert str(path) in str(caught.value)


async def test_a_file_that_vanished_from_beside_its_log_is_damage(path: Path) -> None:
    await filled(path)
    path.rename(path.with_name("index.db-wal"))
    with pytest.raises(errors.DataLoss, match="is gone but its log"):
        async with db.open(path, SCHEMA):
            pass
    assert not path.exists()


async def test_a_database_of_another_program_is_not_ours(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(errors.DataLoss, match="belongs to another program"):
        async with db.open(path, SCHEMA):
            pass


async def test_a_newer_schema_is_refused_and_not_touched(path: Path) -> None:
    newer = db.Schema("test index", SCHEMA.tables, (*SCHEMA.steps(), ("CREATE TABLE more (a)",)))
    async with db.open(path, newer):
        pass
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    with pytest.raises(errors.FailedPrecondition, match="has version 2 of the test index, made by a newer pydock"):
        async with db.open(path, SCHEMA):
            pass
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert list(path.parent.iterdir()) == [path]


async def test_an_older_schema_is_migrated_wholly_or_not_at_all(path: Path) -> None:
    await filled(path)
    broken = db.Schema("test index", SCHEMA.tables, (*SCHEMA.steps(), ("DELETE FROM nodes", "CREATE TABLE nodes (a)")))
    with pytest.raises(errors.Internal, match="nodes already exists"):
        async with db.open(path, broken):
            pass
    assert len(await stored(path)) == 500
    better = db.Schema("test index", SCHEMA.tables, (*SCHEMA.steps(), ("DELETE FROM nodes WHERE key != 'key7'",)))
    async with db.open(path, better) as database:
        assert list(database.records(NODES).items("")) == ["key7"]
    async with db.open(path, better):
        pass


async def test_making_the_file_is_atomic(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise sqlite_error("SQLITE_FULL")

    monkeypatch.setattr(dbfile, "_migrate", fail)
    with pytest.raises(errors.ResourceExhausted):
        async with db.open(path, SCHEMA):
            pass
    assert list(path.parent.iterdir()) == []
    path.with_name("index.db.new-dead").write_bytes(b"left by a crash")
    monkeypatch.undo()
    assert await stored(path) == {}
    assert list(path.parent.iterdir()) == [path]
