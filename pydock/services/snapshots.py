"""containerd.services.snapshots.v1: file trees in layers, of every snapshotter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.snapshots.v1 import snapshots_pb2 as pb
from pydock._proto.containerd.types import mount_pb2
from pydock.base import errors
from pydock.core import mounts, plugin, snapshots
from pydock.services import calls, codec, routing

BLOCK = 100  # infos in one List response


class Snapshots:
    """Answers the Snapshots service."""

    wire = pb.DESCRIPTOR.services_by_name["Snapshots"]
    raw = frozenset[str]()

    def __init__(self, service: snapshots.Service) -> None:
        self._service = service

    async def prepare(self, request: pb.PrepareSnapshotRequest, call: calls.Call) -> pb.PrepareSnapshotResponse:
        """Make an active snapshot and return what to mount."""
        found = await self._service.prepare(call.ns, request.snapshotter, _preparation(request, call))
        return pb.PrepareSnapshotResponse(mounts=_mounts(found))

    async def view(self, request: pb.ViewSnapshotRequest, call: calls.Call) -> pb.ViewSnapshotResponse:
        """Make a read-only snapshot and return what to mount."""
        found = await self._service.view(call.ns, request.snapshotter, _preparation(request, call))
        return pb.ViewSnapshotResponse(mounts=_mounts(found))

    async def mounts(self, request: pb.MountsRequest, call: calls.Call) -> pb.MountsResponse:
        """Return what to mount for a snapshot that is there."""
        return pb.MountsResponse(mounts=_mounts(await self._service.mounts(call.ns, request.snapshotter, request.key)))

    async def commit(self, request: pb.CommitSnapshotRequest, call: calls.Call) -> empty_pb2.Empty:
        """Turn an active snapshot into a committed one."""
        if request.parent:
            raise errors.Unimplemented(f"rebase of snapshot {request.key} on {request.parent}")
        commitment = snapshots.Commitment(request.name, request.key, dict(request.labels), call.lease)
        await self._service.commit(call.ns, request.snapshotter, commitment)
        return empty_pb2.Empty()

    async def remove(self, request: pb.RemoveSnapshotRequest, call: calls.Call) -> empty_pb2.Empty:
        """Remove a snapshot that is no parent."""
        await self._service.remove(call.ns, request.snapshotter, request.key)
        return empty_pb2.Empty()

    async def stat(self, request: pb.StatSnapshotRequest, call: calls.Call) -> pb.StatSnapshotResponse:
        """Return what is known of one snapshot."""
        return pb.StatSnapshotResponse(info=_info(await self._service.stat(call.ns, request.snapshotter, request.key)))

    async def update(self, request: pb.UpdateSnapshotRequest, call: calls.Call) -> pb.UpdateSnapshotResponse:
        """Change labels, those that the mask names or all."""
        info = codec.decode(snapshots.Info, request.info)
        changed = await self._service.update(call.ns, request.snapshotter, info, tuple(request.update_mask.paths))
        return pb.UpdateSnapshotResponse(info=_info(changed))

    async def list(self, request: pb.ListSnapshotsRequest, call: calls.Call, send: calls.Send) -> None:
        """Send the snapshots that any of the filters matches, a hundred at a time."""
        block = pb.ListSnapshotsResponse()
        async for info in self._service.walk(call.ns, request.snapshotter, tuple(request.filters)):
            codec.fill(block.info.add(), info)
            if len(block.info) == BLOCK:
                await send(block)
                block = pb.ListSnapshotsResponse()
        if block.info:
            await send(block)

    async def usage(self, request: pb.UsageRequest, call: calls.Call) -> pb.UsageResponse:
        """Return the disk use of one snapshot without its parents."""
        return codec.encode(pb.UsageResponse, await self._service.usage(call.ns, request.snapshotter, request.key))

    async def cleanup(self, request: pb.CleanupRequest, call: calls.Call) -> empty_pb2.Empty:
        """Remove what no record names."""
        await self._service.cleanup(call.ns, request.snapshotter)
        return empty_pb2.Empty()


def _preparation(request: pb.PrepareSnapshotRequest | pb.ViewSnapshotRequest, call: calls.Call) -> snapshots.Preparation:
    return snapshots.Preparation(request.key, request.parent, dict(request.labels), call.lease)


def _mounts(found: Sequence[mounts.Mount]) -> list[mount_pb2.Mount]:
    return [codec.encode(mount_pb2.Mount, item) for item in found]


def _info(item: snapshots.Info) -> pb.Info:
    return codec.encode(pb.Info, item)


@plugin.plugin("io.containerd.grpc.v1", "snapshots")
async def service(snapshotters: snapshots.Service) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Snapshots service."""
    yield routing.Service(Snapshots(snapshotters))
