"""Named sets of mounts, performed by the daemon and remembered: `activations.Manager`.

On disk, below the plugin's state directory (which a boot empties, as it does the mount table)::

    index.db               a record per set: (namespace, name) -> `Record`
    sets/<id>/<number>     mount points of the set's mounts, in their order

Invariants: a record is written after its mounts are made and goes after they are undone, so a crash leaves mounts without a record, which
the next start undoes, or a record without its mounts, which the next start drops; a directory is removed by rmdir alone, never with what
is in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Final

from pydock.base import clock, db, errors, fieldmask, filters, labels, locks, names, offload
from pydock.core import activations, mounts, plugin

_TRANSFORMS: Final = ("format", "mkfs", "mkdir", "overlay")
_HANDLED: Final = ("loop",)
_MOST: Final = 255
_KINDS: Final = {
    errno.ENOENT: errors.NotFound, errno.ENOTDIR: errors.InvalidArgument, errno.EINVAL: errors.InvalidArgument,
    errno.ENODEV: errors.InvalidArgument, errno.EPERM: errors.PermissionDenied, errno.EACCES: errors.PermissionDenied,
    errno.EBUSY: errors.FailedPrecondition, errno.ENOSPC: errors.ResourceExhausted,
}  # fmt: skip

Mounted = list[activations.ActiveMount]


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A set and the ``directory`` (a name in ``sets``) of its mount points."""

    info: activations.ActivationInfo
    directory: str


SETS: Final = db.Table("sets", Record)
SCHEMA: Final = db.Schema("mount index", (SETS,))


class MountManager:
    """See `activations.Manager`."""

    def __init__(self, database: db.Database, folder: Path, mounter: mounts.Mounter) -> None:
        self._database, self._folder, self._mounter = database, folder, mounter
        self._records = database.records(SETS)
        self._locks = locks.Keyed()

    async def activate(self, ns: str, request: activations.Request) -> activations.ActivationInfo:
        """Perform the mounts of a set."""
        names.opaque("mount name", request.name)
        wanted = labels.validate(request.labels)
        _check(request)
        async with self._locks.hold(f"{ns}/{request.name}"):
            if self._records.get(ns, request.name) is not None:
                raise errors.AlreadyExists(f"mount {names.quote(request.name)}")
            directory = uuid.uuid4().hex
            active = await self._mount(self._folder / directory, request.mounts)
            system = (mounts.Mount("bind", active[-1].mount_point, options=("rbind",)),)
            info = activations.ActivationInfo(request.name, tuple(active), system, wanted)
            try:
                await self._database.change(lambda tx: tx.put(SETS, ns, request.name, Record(info, directory)))
            except errors.PydockError:
                await self._undo(self._folder / directory)
                raise
        return info

    async def deactivate(self, ns: str, name: str) -> None:
        """Undo a set. Raises NotFound."""
        async with self._locks.hold(f"{ns}/{name}"):
            record = self._get(ns, name)
            await self._undo(self._folder / record.directory)
            await self._database.change(lambda tx: tx.delete(SETS, ns, name))

    async def info(self, ns: str, name: str) -> activations.ActivationInfo:
        """Return one set. Raises NotFound."""
        return self._get(ns, name).info

    async def update(self, ns: str, info: activations.ActivationInfo, paths: Sequence[str] = ()) -> activations.ActivationInfo:
        """Change labels. Raises NotFound, InvalidArgument."""

        def refuse(path: str) -> errors.PydockError:
            return errors.InvalidArgument(f"cannot update {names.quote(path)} field on mount {names.quote(info.name)}")

        def step(tx: db.Transaction) -> activations.ActivationInfo:
            old = tx.get(SETS, ns, info.name)
            if old is None:
                raise _missing(info.name)
            merged = labels.validate(fieldmask.labels(old.info.labels, info.labels, paths, refuse))
            made = dataclasses.replace(old.info, labels=merged)
            tx.put(SETS, ns, info.name, dataclasses.replace(old, info=made))
            return made

        return await self._database.change(step)

    async def list(self, ns: str, filters_: Iterable[str] = ()) -> Sequence[activations.ActivationInfo]:
        """Return the sets that any of the filters picks, by name."""
        wanted = filters.parse(filters_)
        rows = sorted(self._records.items(ns).items())
        return [row.info for _, row in rows if wanted.match(functools.partial(_field, row.info))]

    async def reconcile(self) -> None:
        """Bring records and mounts together after a crash."""
        there = await offload.run(mount_points)
        kept = set()
        for ns in self._records.namespaces():
            for name, record in sorted(self._records.items(ns).items()):
                if all(active.mount_point in there for active in record.info.active):
                    kept.add(record.directory)
                else:
                    await self._database.change(functools.partial(_forget, ns, name))
        for place in await offload.run(lambda: sorted(self._folder.iterdir())):
            if place.name not in kept:
                await self._undo(place)

    def _get(self, ns: str, name: str) -> Record:
        record = self._records.get(ns, name)
        if record is None:
            raise _missing(name)
        return record

    async def _mount(self, place: Path, wanted: Sequence[mounts.Mount]) -> Sequence[activations.ActiveMount]:
        active: Mounted = []
        try:
            await offload.run(place.mkdir, 0o700)
            for number, mount in enumerate(wanted):
                target = place / f"{number:03}"
                await offload.run(target.mkdir, 0o700)
                await self._mounter.mount_all([mount], target)
                active.append(activations.ActiveMount(mount, clock.now(), str(target)))
        except OSError as error:
            await self._undo(place)
            kind = _KINDS.get(error.errno or 0, errors.Unknown)
            raise kind(f"mount {len(active)} of {len(wanted)} failed: {error.strerror}") from error
        except BaseException:
            await self._undo(place)
            raise
        return active

    async def _undo(self, place: Path) -> None:
        """Undo the mounts of a set, last first, and remove its directory."""
        for target in await offload.run(lambda: sorted(place.iterdir(), reverse=True) if place.is_dir() else []):
            await self._mounter.unmount_all(target)
            await offload.run(target.rmdir)
        with contextlib.suppress(FileNotFoundError):
            await offload.run(place.rmdir)


def _check(request: activations.Request) -> None:
    """Raise Unimplemented for what is not the daemon's to do, or not known to it."""
    for mount in request.mounts:
        transform, slash, _ = mount.type.partition("/")
        if (slash and transform in _TRANSFORMS) or mount.type in _HANDLED:
            raise errors.Unimplemented(f"mounts of type {names.quote(mount.type)} are not offered by this daemon")
    if not request.temporary or not request.mounts:
        raise errors.Unimplemented
    if len(request.mounts) > _MOST:
        raise errors.InvalidArgument(f"{len(request.mounts)} mounts in a set, at most {_MOST}")


def mount_points() -> frozenset[str]:
    """Return where anything is mounted in this mount namespace (proc(5), mountinfo: some characters stand as octal numbers)."""
    rows = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines())
    return frozenset(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), row[4]) for row in rows)


def _forget(ns: str, name: str, tx: db.Transaction) -> None:
    tx.delete(SETS, ns, name)


def _field(info: activations.ActivationInfo, path: filters.Path) -> tuple[str, bool]:
    match path:
        case ("name",):
            return filters.text(info.name)
        case ("labels", *rest):
            return filters.pick(info.labels, tuple(rest))
    return filters.ABSENT


def _missing(name: str) -> errors.NotFound:
    return errors.NotFound(f"mount {names.quote(name)}")


@contextlib.asynccontextmanager
async def opened(state: Path, mounter: mounts.Mounter) -> AsyncIterator[MountManager]:
    """Open the manager below ``state``, as a crash may have left it."""
    folder = Path(os.path.realpath(state)) / "sets"
    await offload.run(lambda: folder.mkdir(mode=0o700, exist_ok=True))
    async with db.open(state / "index.db", SCHEMA) as database:
        manager = MountManager(database, folder, mounter)
        await manager.reconcile()
        yield manager


@plugin.plugin("io.containerd.mount-manager.v1", "bolt")
async def bolt(state: plugin.PluginState, mounter: mounts.Mounter) -> AsyncIterator[activations.Manager]:
    """Named sets of mounts; the plugin has containerd's name, by which clients look for it."""
    async with opened(state, mounter) as manager:
        yield manager
