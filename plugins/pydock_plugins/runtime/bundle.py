"""Bundles: the directory of a task, shared by the daemon and its shim.

On disk, below the plugin's state directory (tmpfs: it goes with the processes it describes, so nothing here is fsynced by the daemon)::

    <namespace>/<id>/config.json    OCI runtime spec, as the client gave it
    <namespace>/<id>/rootfs/        where the shim mounts the root file system, in its own mount namespace
    <namespace>/<id>/address        the shim's socket            } written by the shim before it answers anybody
    <namespace>/<id>/shim.json      the shim's pid, start ticks  }
    <namespace>/<id>/exit.json, exit-<exec id>.json   how processes ended, fsynced by the shim before it tells anyone
    <namespace>/<id>/published      exits the daemon has published, one a line (``exits``)

Vocabulary: a bundle is *born* by mkdir, which one creator wins; it is *buried* by a rename to a hidden name before its files go, so that
the id is free at once and a crash leaves only what the next start removes.
Invariants: ids are one path component each, checked again here; a root file system that is still mounted is never walked into; the
directory is 0700, or 0711 when the spec maps users, whose root must pass through it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydock.base import errors, names

LARGEST_SPEC = 4 << 20
LARGEST_RECORD = 1 << 16
BURIED = ".gone-"
INIT_EXIT = "exit.json"
EXEC_EXIT = "exit-"
EXEC_TRACES = ((EXEC_EXIT, ".json"), ("exec-", ".process.json"), ("exec-", ".json"))
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

Spec = dict[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """The place of one task."""

    ns: str
    id: str
    path: Path

    @property
    def rootfs(self) -> Path:
        """Return where the shim mounts the root file system."""
        return self.path / "rootfs"

    def write_spec(self, data: bytes, spec: Spec) -> None:
        """Write config.json; ``spec`` is what ``parse_spec`` found in ``data``."""
        with space_for(f"the spec of task {self.id}"):
            write_file(self.path / "config.json", data)
        if (spec.get("linux") or {}).get("uidMappings"):
            self.path.chmod(0o711)

    def write_identity(self, pid: int, start_ticks: int, socket: str) -> None:
        """Write what the launcher would have, had it lived: by it the next daemon finds the shim."""
        if self.read_record("shim.json") is None:
            write_file(self.path / "address", f"unix://{socket}".encode())
            write_file(self.path / "shim.json", json.dumps({"pid": pid, "start_ticks": start_ticks, "socket": socket}).encode())

    def read_record(self, name: str) -> Record | None:
        """Return the JSON object in the file ``name``; None when it is missing, damaged, too large or something else."""
        data = read_file(self.path / name, LARGEST_RECORD)
        if data is None:
            return None
        try:
            record = json.loads(data)
        except ValueError:
            return None
        return record if isinstance(record, dict) else None

    def exit_records(self) -> list[Record]:
        """Return the exit records of the task's processes, in no order."""
        names_found = (name for name in self._names() if name == INIT_EXIT or name.startswith(EXEC_EXIT))
        return [record for record in map(self.read_record, names_found) if record is not None]

    def exec_ids(self) -> set[str]:
        """Return the ids of the execs that left a trace here."""
        found = set()
        for name in self._names():
            for before, after in EXEC_TRACES:
                if name.startswith(before) and name.endswith(after):
                    found.add(name[len(before) : -len(after)])
        return found

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.path)
        except FileNotFoundError:
            return []

    def read_text(self, name: str) -> str:
        """Return the text in the file ``name`` without white space at its ends, "" when there is none."""
        data = read_file(self.path / name, LARGEST_RECORD)
        return data.decode("utf-8", "replace").strip() if data else ""

    def bury(self) -> None:
        """Remove the bundle.  Raises FailedPrecondition when its root file system is still in use."""
        grave = self.path.parent / f"{BURIED}{self.id}-{secrets.token_hex(4)}"
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return
        exhume(grave)


def exit_name(exec_id: str) -> str:
    """Return what the exit record of a process is called."""
    return f"{EXEC_EXIT}{exec_id}.json" if exec_id else INIT_EXIT


class Bundles:
    """All bundles below ``state``."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def at(self, ns: str, id: str) -> Bundle:
        """Return the bundle of a task that may not exist.  Raises InvalidArgument for names that are no identifiers."""
        return Bundle(ns, id, self._state / names.identifier(ns) / names.identifier(id))

    def create(self, ns: str, id: str) -> Bundle:
        """Make the directory.  Raises AlreadyExists ``task <id>``, ResourceExhausted when there is no space."""
        bundle = self.at(ns, id)
        with space_for(f"the bundle of task {id}"):
            try:
                os.mkdir(bundle.path, 0o700)
            except FileNotFoundError:
                bundle.path.parent.mkdir(mode=0o711, exist_ok=True)
                bundle.path.mkdir(mode=0o700)
            except FileExistsError:
                raise errors.AlreadyExists(f"task {id}") from None
            try:
                os.mkdir(bundle.rootfs, 0o711)
            except OSError:
                bundle.path.rmdir()
                raise
        return bundle

    def scan(self) -> Iterator[Bundle]:
        """Yield every bundle there is; what an interrupted removal left is removed on the way."""
        for space in sorted(_folders(self._state)):
            for folder in sorted(_folders(space)):
                if folder.name.startswith(BURIED):
                    with contextlib.suppress(errors.FailedPrecondition):
                        exhume(folder)
                    continue
                with contextlib.suppress(errors.InvalidArgument):
                    yield self.at(space.name, folder.name)


def parse_spec(data: bytes) -> Spec:
    """Return the runtime spec in ``data``.  Raises InvalidArgument unless it is a JSON object of a bounded size."""
    if len(data) > LARGEST_SPEC:
        raise errors.InvalidArgument(f"the runtime spec has {len(data)} bytes; {LARGEST_SPEC} are allowed")
    try:
        spec = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidArgument(f"the runtime spec is no JSON: {error}") from None
    if not isinstance(spec, dict) or not isinstance(spec.get("linux") or {}, dict):
        raise errors.InvalidArgument("the runtime spec is no JSON object")
    return spec


@contextlib.contextmanager
def space_for(what: str) -> Iterator[None]:
    """Turn a failure to write ``what`` into ResourceExhausted when space or a quota is used up, else Internal."""
    try:
        yield
    except OSError as error:
        kind = errors.ResourceExhausted if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE) else errors.Internal
        raise kind(f"{what}: {error.strerror}") from error


def write_file(path: Path, data: bytes) -> None:
    """Create ``path`` (0600) with ``data``, not synced."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)


def read_file(path: Path, limit: int) -> bytes | None:
    """Return the bytes of a regular file of at most ``limit`` bytes, None when there is no such file.

    Raises OSError when that cannot be told (out of descriptors, a failing disk).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    try:
        data = os.read(fd, limit + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    return data if len(data) <= limit else None


def exhume(grave: Path) -> None:
    """Remove a buried bundle's files; only the bundle's own, never through its root file system."""
    _remove_rootfs(grave / "rootfs")
    _remove_tree(grave)


def _remove_rootfs(rootfs: Path) -> None:
    """Remove the mount point, detaching what is still mounted there in our mount namespace."""
    for _ in range(16):
        try:
            rootfs.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if not _detach(rootfs):
                raise errors.FailedPrecondition(f"{rootfs} is still in use: {error.strerror}") from error
        else:
            return


def _detach(path: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.umount2(os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW) == 0)


def _remove_tree(folder: Path) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(Path(entry.path))
            else:
                os.unlink(entry.path)
    os.rmdir(folder)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
