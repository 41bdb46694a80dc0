"""containerd.services.containers.v1: the records tasks are made from."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.containers.v1 import containers_pb2 as pb
from pydock.core import containers, plugin
from pydock.services import calls, codec, routing


class Containers:
    """Answers the Containers service."""

    wire = pb.DESCRIPTOR.services_by_name["Containers"]
    raw = frozenset[str]()

    def __init__(self, store: containers.Store) -> None:
        self._store = store

    async def get(self, request: pb.GetContainerRequest, call: calls.Call) -> pb.GetContainerResponse:
        """Return one record."""
        return pb.GetContainerResponse(container=_wire(await self._store.get(call.ns, request.id)))

    async def list(self, request: pb.ListContainersRequest, call: calls.Call) -> pb.ListContainersResponse:
        """Return the records that any of the filters matches."""
        found = await self._store.list(call.ns, tuple(request.filters))
        return pb.ListContainersResponse(containers=[_wire(item) for item in found])

    async def list_stream(self, request: pb.ListContainersRequest, call: calls.Call, send: calls.Send) -> None:
        """As ``list``, a message each: no bound on the whole."""
        for item in await self._store.list(call.ns, tuple(request.filters)):
            await send(pb.ListContainerMessage(container=_wire(item)))

    async def create(self, request: pb.CreateContainerRequest, call: calls.Call) -> pb.CreateContainerResponse:
        """Make a record."""
        return pb.CreateContainerResponse(container=_wire(await self._store.create(call.ns, _core(request.container))))

    async def update(self, request: pb.UpdateContainerRequest, call: calls.Call) -> pb.UpdateContainerResponse:
        """Change what the mask names, or all that may change."""
        item = await self._store.update(call.ns, _core(request.container), tuple(request.update_mask.paths))
        return pb.UpdateContainerResponse(container=_wire(item))

    async def delete(self, request: pb.DeleteContainerRequest, call: calls.Call) -> empty_pb2.Empty:
        """Remove a record."""
        await self._store.delete(call.ns, request.id)
        return empty_pb2.Empty()


def _core(item: pb.Container) -> containers.Container:
    options = codec.any_or_none(item.runtime.options)
    return codec.decode(containers.Container, item, runtime=item.runtime.name, runtime_options=options, created_at=0, updated_at=0)


def _wire(item: containers.Container) -> pb.Container:
    result = codec.encode(pb.Container, item, skip=frozenset({"runtime"}))
    result.runtime.name = item.runtime
    if item.runtime_options is not None:
        result.runtime.options.CopyFrom(codec.wire_any(item.runtime_options))
    return result


@plugin.plugin("io.containerd.grpc.v1", "containers")
async def service(store: containers.Store) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Containers service."""
    yield routing.Service(Containers(store))
