"""A snapshotter in another process, as `core.snapshots.Snapshotter`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from google.protobuf import empty_pb2, field_mask_pb2

from pydock._proto.containerd.services.snapshots.v1 import snapshots_pb2 as pb
from pydock._proto.containerd.types import mount_pb2
from pydock.base import errors
from pydock.core import snapshots
from pydock.core.mounts import Mount
from pydock.services import codec, remote

SERVICE = "/containerd.services.snapshots.v1.Snapshots/"


class ProxySnapshotter:
    """Asks the snapshotter ``name`` at the other end; its keys are those of our records, opaque to it."""

    def __init__(self, name: str, far: remote.Remote) -> None:
        self._name, self._far = name, far

    async def stat(self, key: str) -> snapshots.Info:
        """Return what is known of one."""
        with remote.worded(f"snapshot {key}", errors.NotFound):
            request = pb.StatSnapshotRequest(snapshotter=self._name, key=key)
            return _info((await self._far.unary(f"{SERVICE}Stat", request, pb.StatSnapshotResponse)).info)

    async def update(self, info: snapshots.Info, paths: Sequence[str] = ()) -> snapshots.Info:
        """Set labels."""
        with remote.worded(f"snapshot {info.name}", errors.NotFound):
            mask = field_mask_pb2.FieldMask(paths=paths)
            request = pb.UpdateSnapshotRequest(snapshotter=self._name, info=codec.encode(pb.Info, info), update_mask=mask)
            return _info((await self._far.unary(f"{SERVICE}Update", request, pb.UpdateSnapshotResponse)).info)

    async def usage(self, key: str) -> snapshots.Usage:
        """Return the disk use of one alone."""
        with remote.worded(f"snapshot {key}", errors.NotFound):
            request = pb.UsageRequest(snapshotter=self._name, key=key)
            return codec.decode(snapshots.Usage, await self._far.unary(f"{SERVICE}Usage", request, pb.UsageResponse))

    async def mounts(self, key: str) -> Sequence[Mount]:
        """Return what to mount."""
        with remote.worded(f"snapshot {key}", errors.NotFound):
            request = pb.MountsRequest(snapshotter=self._name, key=key)
            return _mounts((await self._far.unary(f"{SERVICE}Mounts", request, pb.MountsResponse)).mounts)

    async def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make an active one."""
        with remote.worded(f"snapshot {key}", errors.AlreadyExists):
            request = pb.PrepareSnapshotRequest(snapshotter=self._name, key=key, parent=parent, labels=labels)
            return _mounts((await self._far.unary(f"{SERVICE}Prepare", request, pb.PrepareSnapshotResponse)).mounts)

    async def view(self, key: str, parent: str, labels: Mapping[str, str]) -> Sequence[Mount]:
        """Make a view."""
        with remote.worded(f"snapshot {key}", errors.AlreadyExists):
            request = pb.ViewSnapshotRequest(snapshotter=self._name, key=key, parent=parent, labels=labels)
            return _mounts((await self._far.unary(f"{SERVICE}View", request, pb.ViewSnapshotResponse)).mounts)

    async def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        """Turn an active one into a committed one; as durable as the other side makes it."""
        with remote.worded(f"snapshot {name}", errors.AlreadyExists):
            request = pb.CommitSnapshotRequest(snapshotter=self._name, name=name, key=key, labels=labels)
            await self._far.unary(f"{SERVICE}Commit", request, empty_pb2.Empty)

    async def remove(self, key: str) -> None:
        """Remove one that is nobody's parent."""
        with remote.worded(f"snapshot {key}", errors.NotFound):
            await self._far.unary(f"{SERVICE}Remove", pb.RemoveSnapshotRequest(snapshotter=self._name, key=key), empty_pb2.Empty)

    async def walk(self, filters: Iterable[str] = ()) -> AsyncIterator[snapshots.Info]:
        """Yield what any of the filters picks."""
        request = pb.ListSnapshotsRequest(snapshotter=self._name, filters=filters)
        async for block in self._far.read(f"{SERVICE}List", request, pb.ListSnapshotsResponse):
            for info in block.info:
                yield _info(info)

    async def cleanup(self) -> None:
        """Remove what no record of the other side names."""
        await self._far.unary(f"{SERVICE}Cleanup", pb.CleanupRequest(snapshotter=self._name), empty_pb2.Empty)


def _info(item: pb.Info) -> snapshots.Info:
    return codec.decode(snapshots.Info, item)


def _mounts(found: Iterable[mount_pb2.Mount]) -> list[Mount]:
    return [codec.decode(Mount, item) for item in found]
