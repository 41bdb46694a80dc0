"""containerd.services.diff.v1: layers put onto mounts (Apply) and made from them (Diff)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable

from pydock._proto.containerd.services.diff.v1 import diff_pb2 as pb
from pydock._proto.containerd.types import mount_pb2
from pydock.base import digest, errors
from pydock.core import content, diff, mounts, plugin
from pydock.domain import compare
from pydock.services import calls, codec, routing


class Diff:
    """Answers the Diff service; stream processors' ``payloads`` are not read, and the applier alone decides what it syncs."""

    wire = pb.DESCRIPTOR.services_by_name["Diff"]
    raw = frozenset[str]()

    def __init__(self, store: content.Store, applier: diff.Applier, comparer: diff.Comparer | None = None) -> None:
        self._store, self._applier, self._comparer = store, applier, comparer

    async def apply(self, request: pb.ApplyRequest, call: calls.Call) -> pb.ApplyResponse:
        """Unpack a layer of this namespace's content onto the mounts, and return the uncompressed layer's descriptor."""
        layer = codec.descriptor_of(request.diff)
        async with contextlib.AsyncExitStack() as stack:
            blob = await self._store.open(call.ns, digest.validate(layer.digest))
            stack.push_async_callback(blob.close)
            applied = await self._applier.apply(layer, blob, _mounts(request.mounts))
        response = pb.ApplyResponse()
        codec.fill(response.applied, applied)
        return response

    async def diff(self, request: pb.DiffRequest, call: calls.Call) -> pb.DiffResponse:
        """Write what changed from the left mounts to the right ones into this namespace's content, and return its descriptor."""
        if self._comparer is None:
            raise errors.Unimplemented("no plugin of this daemon makes layers")
        epoch = codec.time_of(request.source_date_epoch) if request.HasField("source_date_epoch") else None
        wanted = compare.Request(
            diff.Trees(_mounts(request.left), _mounts(request.right)),
            diff.LayerOptions(request.media_type, epoch),
            request.ref,
            dict(request.labels),
            call.lease,
        )
        made = await compare.layer(self._store, self._comparer, call.ns, wanted)
        response = pb.DiffResponse()
        codec.fill(response.diff, made)
        return response


def _mounts(found: Iterable[mount_pb2.Mount]) -> list[mounts.Mount]:
    return [codec.decode(mounts.Mount, item) for item in found]


@plugin.plugin("io.containerd.grpc.v1", "diff")
async def service(store: content.Store, applier: diff.Applier, comparer: diff.Comparer | None) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Diff service."""
    yield routing.Service(Diff(store, applier, comparer))
