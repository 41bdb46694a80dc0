"""The file under `pydock.base.db`: made atomically, checked before it is believed, migrated in one transaction.

Invariants: a file appears under its name only when it is whole, so an empty one is damage, not a beginning; a newer or foreign file is
told by its header (application id at byte 68, user version at byte 60) and not opened at all.  The lock is SQLite's exclusive one, which
also keeps the log's index in memory: no ``-shm`` file that a full disk could tear away under a mapping.  Room for small changes is
reserved on the disk, so that on a full one a client can still delete what fills it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pydock.base import durable, errors

APPLICATION_ID = 0x70796474
Steps = tuple[tuple[str, ...], ...]

# The log is folded into the file when it has so many pages, which keeps it within its reserve.
CHECKPOINT_PAGES = 200
PAGE = 4096
LOG_RESERVE = 1 << 20  # bytes
SPARE_PAGES = 32  # free pages within the file

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE, linux/falloc.h
_MAGIC = b"SQLite format 3\0"
_HEADER = 100
_LOCKED = {"SQLITE_BUSY", "SQLITE_LOCKED"}
_NO_SPACE = {"SQLITE_FULL"}


def prepare(path: Path, title: str, steps: Steps) -> sqlite3.Connection:
    """Return an exclusive connection to the file at ``path``, made or migrated as needed (blocks)."""
    with explained(path):
        if not path.exists():
            _create(path, steps)
        version = _check_header(path, title, len(steps))
        connection = _connect(path)
        try:
            _check(connection, path)
            if version < len(steps):
                _migrate(connection, steps)
            reserve_log(path)
        except BaseException:
            connection.close()
            raise
    return connection


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says into our errors, so that the operator reads what to do."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name in _LOCKED:
            raise errors.Unavailable(f"{path} is in use by another process") from error
        if name in _NO_SPACE:
            raise errors.ResourceExhausted(f"{path}: no space left on device") from error
        if isinstance(error, sqlite3.OperationalError):
            raise errors.Internal(f"{path}: {name}: {error}") from error
        raise _damaged(path, str(error)) from error


def reserve_log(path: Path) -> None:
    """Ask the file system to keep room for the log of the file at ``path``; refusal is no error.

    Not for the file itself: closing a second descriptor of it would drop SQLite's locks (fcntl(2)), and each checkpoint cuts what is
    behind its end. Its reserve is `spare`.
    """
    with contextlib.suppress(OSError):
        fd = os.open(path.with_name(f"{path.name}-wal"), os.O_WRONLY | os.O_CLOEXEC)
        try:
            size = ctypes.c_int64(LOG_RESERVE)
            ctypes.CDLL(None).fallocate(ctypes.c_int(fd), ctypes.c_int(_KEEP_SIZE), ctypes.c_int64(0), size)
        finally:
            os.close(fd)


def spare(connection: sqlite3.Connection) -> None:
    """Keep `SPARE_PAGES` free pages in the file, so that small changes need not grow it; a disk without room for them is no error."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free >= SPARE_PAGES:
        return
    drop = "DROP TABLE IF EXISTS spare"  # a crash may have left it
    try:
        for statement in (drop, "CREATE TABLE spare (filler)", "INSERT INTO spare VALUES (zeroblob(?))", drop):
            connection.execute(statement, (SPARE_PAGES * PAGE,) if "?" in statement else ())
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname not in _NO_SPACE:
            raise
        connection.execute(drop)


def _create(path: Path, steps: Steps) -> None:
    """Make the file beside its place and move it there when it is whole."""
    new = path.with_name(f"{path.name}.new-{secrets.token_hex(4)}")
    for stale in path.parent.glob(f"{path.name}.new-*"):
        stale.unlink(missing_ok=True)
    orphan = path.with_name(f"{path.name}-wal")
    if orphan.exists():
        raise _damaged(path, f"it is gone but its log {orphan.name} is there")
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        connection = sqlite3.connect(new, isolation_level=None)
        try:
            # The settings that are part of the file: log mode is one, so later opens need not write.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute("PRAGMA journal_mode=WAL")
            _migrate(connection, steps)
        finally:
            connection.close()
        durable.rename(new, path)
    finally:
        new.unlink(missing_ok=True)


def _check_header(path: Path, title: str, known: int) -> int:
    """Return the schema version in the header without opening the file as a database."""
    with path.open("rb") as stream:
        header = stream.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise _damaged(path, "it is empty" if not header else "it is not a database")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise _damaged(path, "it belongs to another program")
    version = int.from_bytes(header[60:64], "big")
    if version > known:
        raise errors.FailedPrecondition(
            f"{path} has version {version} of the {title}, made by a newer pydock; this one knows up to {known} and left it untouched"
        )
    return version


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=64)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA cache_size=-512")  # the views hold the records: pages need not be held as well
        connection.execute("BEGIN IMMEDIATE")  # takes the lock now and reads the log
        connection.execute("ROLLBACK")
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    problems = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    if problems != ["ok"]:
        raise _damaged(path, "; ".join(problems))


def _migrate(connection: sqlite3.Connection, steps: Steps) -> None:
    """Apply the steps the file lacks, all or none, and move them from the log into the file, so that its header tells."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in steps[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(steps)}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _damaged(path: Path, problem: str) -> errors.DataLoss:
    return errors.DataLoss(f"{path} is damaged ({problem}); it was left as it is: put a good copy there, or move it away to begin empty")
