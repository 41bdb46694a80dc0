"""containerd.services.mounts.v1: named sets of mounts that the daemon performs and keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.mounts.v1 import mounts_pb2 as pb
from pydock._proto.containerd.types import mount_pb2
from pydock.core import activations, plugin
from pydock.services import calls, codec, routing


class Mounts:
    """Answers the Mounts service."""

    wire = pb.DESCRIPTOR.services_by_name["Mounts"]
    raw = frozenset[str]()

    def __init__(self, manager: activations.Manager) -> None:
        self._manager = manager

    async def activate(self, request: pb.ActivateRequest, call: calls.Call) -> pb.ActivateResponse:
        """Perform the mounts of a set."""
        info = await self._manager.activate(call.ns, codec.decode(activations.Request, request))
        return pb.ActivateResponse(info=_wire(info))

    async def deactivate(self, request: pb.DeactivateRequest, call: calls.Call) -> empty_pb2.Empty:
        """Undo a set."""
        await self._manager.deactivate(call.ns, request.name)
        return empty_pb2.Empty()

    async def info(self, request: pb.InfoRequest, call: calls.Call) -> pb.InfoResponse:
        """Return one set."""
        return pb.InfoResponse(info=_wire(await self._manager.info(call.ns, request.name)))

    async def update(self, request: pb.UpdateRequest, call: calls.Call) -> pb.UpdateResponse:
        """Change labels, those that the mask names or all."""
        asked = activations.ActivationInfo(request.info.name, labels=dict(request.info.labels))
        return pb.UpdateResponse(info=_wire(await self._manager.update(call.ns, asked, tuple(request.update_mask.paths))))

    async def list(self, request: pb.ListRequest, call: calls.Call, send: calls.Send) -> None:
        """Send the sets that any of the filters matches, a message each."""
        for info in await self._manager.list(call.ns, tuple(request.filters)):
            await send(pb.ListMessage(info=_wire(info)))


def _wire(info: activations.ActivationInfo) -> mount_pb2.ActivationInfo:
    return codec.encode(mount_pb2.ActivationInfo, info)


@plugin.plugin("io.containerd.grpc.v1", "mounts")
async def service(manager: activations.Manager) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Mounts service."""
    yield routing.Service(Mounts(manager))
