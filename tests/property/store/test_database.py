"""The database against a plain dictionary, with power cuts at any byte of its log."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pydock.base import db, errors


@dataclass(frozen=True)
class Item:
    text: str


TABLES = (db.Table("one", Item), db.Table("two", Item))
SCHEMA = db.Schema("property", TABLES)

State = dict[tuple[str, str, str], str]
Write = tuple[int, str, str, str | None]

KEYS = st.sampled_from(["a", "b", "c", "é/ "])
WRITES = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["", "n"]), KEYS, st.none() | st.text(max_size=3000)), max_size=4)
# (writes of one transaction, durable, raises at its end); a list of them runs concurrently
CHANGES = st.lists(st.lists(st.tuples(WRITES, st.booleans(), st.booleans()), min_size=1, max_size=4), max_size=6)


def applied(state: State, writes: list[Write]) -> State:
    state = dict(state)
    for table, ns, key, text in writes:
        if text is None:
            state.pop((TABLES[table].name, ns, key), None)
        else:
            state[TABLES[table].name, ns, key] = text
    return state


def step(writes: list[Write], fails: bool) -> Callable[[db.Transaction], None]:
    def run(tx: db.Transaction) -> None:
        for table, ns, key, text in writes:
            if text is None:
                tx.delete(TABLES[table], ns, key)
            else:
                tx.put(TABLES[table], ns, key, Item(text))
        if fails:
            raise errors.Aborted("on purpose")

    return run


def view(database: db.Database) -> State:
    found: State = {}
    for table in TABLES:
        records = database.records(table)
        for ns in records.namespaces():
            found.update({(table.name, ns, key): item.text for key, item in records.items(ns).items()})
    return found


async def run(place: Path, rounds: list[list[tuple[list[Write], bool, bool]]], cut: float) -> None:
    path = place / "x.db"
    states: list[State] = [{}]
    told: list[tuple[int, int]] = [(0, 1)]  # (bytes of the log, number of states) after each round
    synced = 0  # bytes of the log that a power cut keeps, since a durable change was told
    crashed = place / "crashed"
    crashed.mkdir()
    async with db.open(path, SCHEMA) as database:
        for changes in rounds:
            calls = [database.change(step(writes, fails), durable=durable) for writes, durable, fails in changes]
            results = await asyncio.gather(*calls, return_exceptions=True)
            for (writes, _, fails), result in zip(changes, results, strict=True):
                assert isinstance(result, errors.Aborted) is fails
                if not fails:
                    states.append(applied(states[-1], writes))
            assert view(database) == states[-1]
            log = path.with_name("x.db-wal")
            told.append((log.stat().st_size if log.exists() else 0, len(states)))
            if any(durable and not fails for _, durable, fails in changes):
                synced = told[-1][0]
        shutil.copy(path, crashed)
        data = log.read_bytes() if rounds and log.exists() else b""
    length = max(synced, int(len(data) * cut))
    if data:
        (crashed / "x.db-wal").write_bytes(data[:length])
    async with db.open(crashed / "x.db", SCHEMA) as database:
        kept = max(count for size, count in told if size <= length)
        assert view(database) in states[kept - 1 :]
    async with db.open(path, SCHEMA) as database:
        assert view(database) == states[-1]


@settings(deadline=None, max_examples=40)
@given(rounds=CHANGES, cut=st.floats(0, 1))
def test_what_was_told_is_kept_and_nothing_is_torn(rounds: list[list[tuple[list[Write], bool, bool]]], cut: float) -> None:
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(run(Path(place), rounds, cut))
