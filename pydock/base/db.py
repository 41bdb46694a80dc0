"""Records on SQLite: memory-first reads, atomic changes, one writer thread with group commit.

Use, also by a plugin for a small index of its own::

    NODES = db.Table("nodes", Node)                      # Node: a frozen dataclass of plain fields (see base.forms)
    SCHEMA = db.Schema("snapshot index", (NODES,))       # migrations: by default, "create these tables"
    async with db.open(root / "index.db", SCHEMA) as database:
        nodes = database.records(NODES)                  # a live view: nodes.get(ns, key), nodes.items(ns)
        def add(tx: db.Transaction) -> Node:             # plain function: it runs at once and wholly or not at all
            if tx.get(NODES, "", key) is not None:
                raise errors.AlreadyExists(...)
            return tx.put(NODES, "", key, node)
        await database.change(add, durable=True)         # returns when it is on disk

Vocabulary: a *record* is a frozen value under (table, namespace, key); indexes without namespaces use "".  A *change* is a function over a
*transaction* (an overlay over the views).  *durable* changes survive a power cut (synchronous=FULL), others a crash of the process.

On disk: ``<path>`` and ``<path>-wal``, mode 0600, one table per `Table`: (ns, key, value JSON, sum crc32 of all three).
Invariants: a change runs in the event loop without a pause, so checks and writes cannot interleave; when it raises nothing happened; when
it returns it is in the views and queued; ``change`` returns after the commit, and then ``on_commit`` calls have been made, in commit order,
even when the caller was cancelled.  When a commit fails, all its changes and those queued behind it fail, and the views are read again
from disk.  After a failed fsync no change is taken until the file is opened anew: what the kernel dropped cannot be known.
A file that is damaged, foreign or of a newer schema is refused and left as it is.
Sources: sqlite.org/wal.html, sqlite.org/fileformat.html (header offsets), ATC 2020 on fsync failures.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from pydock.base import dbfile, errors, forms

T = TypeVar("T")
R = TypeVar("R")
Keys = tuple[str, str, str]
Views = dict[str, dict[str, dict[str, Any]]]

SPARE_EVERY = 100  # commits between two looks at the reserve

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_FSYNC_FAILED = {"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"}
_FULL = {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}


@dataclass(frozen=True)
class Table(Generic[T]):
    """A kind of record; ``name`` is its SQL name (trusted), ``kind`` its frozen dataclass."""

    name: str
    kind: type[T]

    @property
    def form(self) -> forms.Form[T]:
        """Return how a record is stored."""
        kind: Any = self.kind
        return forms.of(kind)

    def create(self) -> str:
        """Return the statement that makes the table."""
        columns = "ns TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, sum INTEGER NOT NULL"
        return f"CREATE TABLE {self.name} ({columns}, PRIMARY KEY (ns, key)) WITHOUT ROWID"


@dataclass(frozen=True)
class Schema:
    """What a file holds: ``title`` for messages; migration n (a tuple of statements) leads from version n to n + 1."""

    title: str
    tables: tuple[Table[Any], ...]
    migrations: tuple[tuple[str, ...], ...] = ()

    def steps(self) -> tuple[tuple[str, ...], ...]:
        """Return the migrations; without any, one that makes the tables."""
        return self.migrations or (tuple(table.create() for table in self.tables),)


class Records(Generic[T]):
    """A live, read-only view of one table."""

    def __init__(self, view: dict[str, dict[str, T]]) -> None:
        self._view = view

    def get(self, ns: str, key: str) -> T | None:
        """Return the record or None."""
        return self._view.get(ns, _NOTHING).get(key)

    def items(self, ns: str) -> Mapping[str, T]:
        """Return all records of a namespace by key, live: copy it (``sorted``) before an await."""
        return self._view.get(ns, _NOTHING)

    def namespaces(self) -> list[str]:
        """Return the namespaces that have records here, sorted."""
        return sorted(ns for ns, rows in self._view.items() if rows)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._view.values())


@dataclass
class _Change:
    """A change that was applied to the views and waits for its commit; ``rows`` holds (value text, crc32), None where deleted."""

    rows: dict[Keys, tuple[str, int] | None]
    durable: bool
    hooks: list[Callable[[], None]]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Transaction:
    """What a change sees and writes: the views plus its own writes."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._writes: dict[Keys, Any] = {}
        self._rows: dict[Keys, tuple[str, int] | None] = {}
        self._hooks: list[Callable[[], None]] = []

    def get(self, table: Table[T], ns: str, key: str) -> T | None:
        """Return the record as this change would leave it, or None."""
        keys = (table.name, ns, key)
        if keys in self._writes:
            found: T | None = self._writes[keys]
            return found
        return self._views[table.name].get(ns, _NOTHING).get(key)

    def items(self, table: Table[T], ns: str) -> Mapping[str, T]:
        """Return all records of a namespace as this change would leave them."""
        rows = self._views[table.name].get(ns, _NOTHING)
        if not self._writes:
            return rows
        merged = dict(rows)
        for (name, space, key), value in self._writes.items():
            if name == table.name and space == ns:
                merged[key] = value
        return {key: value for key, value in merged.items() if value is not None}

    def put(self, table: Table[T], ns: str, key: str, value: T) -> T:
        """Write a record and return it. Raises InvalidArgument for names that are not UTF-8."""
        text = table.form.to_text(value)
        keys = (table.name, ns, key)
        self._rows[keys] = (text, _crc(ns, key, text))
        self._writes[keys] = value
        return value

    def delete(self, table: Table[Any], ns: str, key: str) -> None:
        """Remove a record; one that is not there is fine."""
        self._rows[table.name, ns, key] = None
        self._writes[table.name, ns, key] = None

    def on_commit(self, hook: Callable[[], None]) -> None:
        """Call ``hook`` in the event loop when this change is on disk, before the waiter goes on."""
        self._hooks.append(hook)

    def apply(self, durable: bool) -> _Change:
        """Write through to the views; the change is then to be queued. For `Database` only."""
        for (name, ns, key), value in self._writes.items():
            rows = self._views[name].setdefault(ns, {})
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        return _Change(self._rows, durable, self._hooks)


class Database:
    """An open file; made by `open`."""

    def __init__(self, path: Path, schema: Schema, connection: sqlite3.Connection, thread: futures.ThreadPoolExecutor) -> None:
        self.path = path
        self._schema = schema
        self._connection = connection
        self._views: Views = {table.name: {} for table in schema.tables}
        self._queue: list[_Change] = []
        self._thread = thread
        self._idle = asyncio.Event()
        self._idle.set()
        self._refusal = ""
        self._commits = 0
        self._loop = asyncio.get_running_loop()

    def records(self, table: Table[T]) -> Records[T]:
        """Return the live view of ``table``."""
        return Records(self._views[table.name])

    async def change(self, step: Callable[[Transaction], R], *, durable: bool = False) -> R:
        """Run ``step`` now, atomically, and return its result once it is on disk.

        Raises what ``step`` raises, ResourceExhausted when the disk is full, Internal when it fails.
        """
        if self._refusal:
            raise errors.Internal(self._refusal)
        transaction = Transaction(self._views)
        result = step(transaction)
        pending = transaction.apply(durable)
        self._queue.append(pending)
        self._kick()
        await pending.done
        return result

    async def sync(self) -> None:
        """Return when all changes so far survive a power cut, those that were not durable included.

        Raises as `change`: an fsync of the log that fails here leaves earlier changes in doubt, so no more are taken.
        """
        if self._refusal:
            raise errors.Internal(self._refusal)
        pending = _Change({}, True, [])
        self._queue.append(pending)
        self._kick()
        await pending.done

    async def close(self) -> None:
        """Write what is queued, fold the log into the file and close it."""
        self._refusal = self._refusal or f"{self.path} is closed"
        while self._queue or not self._idle.is_set():
            await self._idle.wait()
        await asyncio.wrap_future(self._thread.submit(self._connection.close))
        self._thread.shutdown(wait=False)

    def load(self) -> None:
        """Read every record into the views (blocks). Raises DataLoss for one that is not what was written."""
        for table in self._schema.tables:
            fresh: dict[str, dict[str, Any]] = {}
            for ns, key, value in _read(self._connection, table, self.path):
                fresh.setdefault(ns, {})[key] = value
            view = self._views[table.name]
            view.clear()
            view.update(fresh)

    def _kick(self) -> None:
        """Give the queue to the thread, unless it is at work: what comes meanwhile shares the next commit."""
        if not self._queue or not self._idle.is_set():
            return
        self._idle.clear()
        batch, self._queue = self._queue, []
        work = self._thread.submit(self._commit, batch)
        work.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._finish, batch, done))

    def _commit(self, batch: list[_Change]) -> None:
        """In the thread: write a batch in one SQL transaction; the last write of a row wins."""
        rows: dict[Keys, tuple[str, int] | None] = {}
        for pending in batch:
            rows.update(pending.rows)
        level = "FULL" if any(pending.durable for pending in batch) else "NORMAL"
        execute = self._connection.execute
        execute(f"PRAGMA synchronous={level}")
        if not rows:
            if level == "FULL":  # a transaction without writes syncs nothing; a checkpoint syncs the log before it copies from it
                execute("PRAGMA wal_checkpoint(PASSIVE)")
            return
        execute("BEGIN IMMEDIATE")
        try:
            for (name, ns, key), row in rows.items():
                if row is None:
                    execute(f"DELETE FROM {name} WHERE ns = ? AND key = ?", (ns, key))  # noqa: S608 - our own table names
                else:
                    execute(f"INSERT OR REPLACE INTO {name} VALUES (?, ?, ?, ?)", (ns, key, *row))  # noqa: S608
            execute("COMMIT")
            self._commits += 1
            if self._commits % SPARE_EVERY == 0:
                dbfile.spare(self._connection)
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                execute("ROLLBACK")
            raise

    def _finish(self, batch: list[_Change], work: futures.Future[None]) -> None:
        """In the loop: tell the waiters of a batch."""
        self._idle.set()
        error = work.exception()
        if error is None:
            for pending in batch:
                for hook in pending.hooks:  # the loop runs them before it wakes the waiter, and one that raises harms no other
                    self._loop.call_soon(hook)
                if not pending.done.done():
                    pending.done.set_result(None)
        else:
            self._fail(batch, error)
        self._kick()

    def _fail(self, batch: list[_Change], error: BaseException) -> None:
        """Fail ``batch`` and all behind it (they were checked against what is not so), then go back to what the disk says."""
        behind, self._queue = self._queue, []
        if getattr(error, "sqlite_errorname", "") in _FSYNC_FAILED:
            self._refusal = f"{self.path}: an fsync failed, changes are refused until the daemon is restarted"
        try:
            self.load()
        except (sqlite3.Error, errors.DataLoss) as failure:
            self._refusal = f"{self.path} cannot be read back after a failed write ({failure}), changes are refused"
        for pending in (*batch, *behind):
            if not pending.done.done():
                pending.done.set_exception(_translate(self.path, error))


@contextlib.asynccontextmanager
async def open(path: Path, schema: Schema) -> AsyncIterator[Database]:
    """Open or create the file at ``path``, bring it to the schema and yield it; flush and close it afterwards.

    Raises DataLoss for a damaged or foreign file, FailedPrecondition for a newer schema, Unavailable while another process has it.
    """
    thread = futures.ThreadPoolExecutor(1, thread_name_prefix=path.name)
    try:
        connection = await asyncio.wrap_future(thread.submit(dbfile.prepare, path, schema.title, schema.steps()))
    except BaseException:
        thread.shutdown(wait=False)
        raise
    database = Database(path, schema, connection, thread)
    try:
        with dbfile.explained(path):
            await asyncio.wrap_future(thread.submit(database.load))
            await asyncio.wrap_future(thread.submit(dbfile.spare, connection))
        yield database
    finally:
        await database.close()


def _read(connection: sqlite3.Connection, table: Table[T], path: Path) -> Iterator[tuple[str, str, T]]:
    form = table.form
    for ns, key, text, total in connection.execute(f"SELECT ns, key, value, sum FROM {table.name}"):  # noqa: S608
        try:
            if _crc(ns, key, text) != total:
                raise ValueError("its checksum does not fit")
            yield ns, key, form.from_text(text)
        except ValueError as error:
            raise errors.DataLoss(f"{path} is damaged: record {key!r} of {table.name}: {error}; the file was left as it is") from error


def _crc(ns: str, key: str, text: str) -> int:
    try:
        return zlib.crc32(f"{ns}\0{key}\0{text}".encode())
    except UnicodeEncodeError:
        raise errors.InvalidArgument(f"{key!r} is not UTF-8") from None


def _translate(path: Path, error: BaseException) -> errors.PydockError:
    """Return a fresh error for one waiter."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    full = name in _FULL
    made = errors.ResourceExhausted(f"{path}: no space left on device") if full else errors.Internal(f"{path}: {name}: {error}")
    made.__cause__ = error
    return made
