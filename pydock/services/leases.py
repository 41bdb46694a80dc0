"""containerd.services.leases.v1: what clients hold against garbage collection."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.leases.v1 import leases_pb2 as pb
from pydock.core import leases, plugin
from pydock.services import calls, codec, routing


class Leases:
    """Answers the Leases service."""

    wire = pb.DESCRIPTOR.services_by_name["Leases"]
    raw = frozenset[str]()

    def __init__(self, manager: leases.Manager) -> None:
        self._manager = manager

    async def create(self, request: pb.CreateRequest, call: calls.Call) -> pb.CreateResponse:
        """Make a lease, under a generated id when the request has none."""
        lease = await self._manager.create(call.ns, codec.decode(leases.Lease, request))
        return pb.CreateResponse(lease=codec.encode(pb.Lease, lease))

    async def delete(self, request: pb.DeleteRequest, call: calls.Call) -> empty_pb2.Empty:
        """Drop a lease; ``sync`` answers when what it held is collected."""
        await self._manager.delete(call.ns, request.id, request.sync)
        return empty_pb2.Empty()

    async def list(self, request: pb.ListRequest, call: calls.Call) -> pb.ListResponse:
        """Return the leases that any of the filters matches."""
        found = await self._manager.list(call.ns, tuple(request.filters))
        return pb.ListResponse(leases=[codec.encode(pb.Lease, item) for item in found])

    async def add_resource(self, request: pb.AddResourceRequest, call: calls.Call) -> empty_pb2.Empty:
        """Hold one more resource."""
        await self._manager.add_resource(call.ns, request.id, codec.decode(leases.Resource, request.resource))
        return empty_pb2.Empty()

    async def delete_resource(self, request: pb.DeleteResourceRequest, call: calls.Call) -> empty_pb2.Empty:
        """Hold one resource no more."""
        await self._manager.delete_resource(call.ns, request.id, codec.decode(leases.Resource, request.resource))
        return empty_pb2.Empty()

    async def list_resources(self, request: pb.ListResourcesRequest, call: calls.Call) -> pb.ListResourcesResponse:
        """Return what a lease holds."""
        found = await self._manager.resources(call.ns, request.id)
        return pb.ListResourcesResponse(resources=[codec.encode(pb.Resource, item) for item in found])


@plugin.plugin("io.containerd.grpc.v1", "leases")
async def service(manager: leases.Manager) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Leases service."""
    yield routing.Service(Leases(manager))
