"""containerd.services.namespaces.v1: the walls between clients."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.namespaces.v1 import namespace_pb2 as pb
from pydock.core import namespaces, plugin
from pydock.services import calls, codec, routing


class Namespaces:
    """Answers the Namespaces service; no call needs a namespace of its own."""

    wire = pb.DESCRIPTOR.services_by_name["Namespaces"]
    raw = frozenset[str]()

    def __init__(self, store: namespaces.Store) -> None:
        self._store = store

    async def get(self, request: pb.GetNamespaceRequest, _: calls.Call) -> pb.GetNamespaceResponse:
        """Return one namespace with its labels."""
        return pb.GetNamespaceResponse(namespace=_wire(await self._store.get(request.name)))

    async def list(self, _: pb.ListNamespacesRequest, __: calls.Call) -> pb.ListNamespacesResponse:
        """Return all namespaces; the request's filter has never been read by any server."""
        return pb.ListNamespacesResponse(namespaces=[_wire(item) for item in await self._store.list()])

    async def create(self, request: pb.CreateNamespaceRequest, _: calls.Call) -> pb.CreateNamespaceResponse:
        """Make a namespace."""
        item = codec.decode(namespaces.Namespace, request.namespace)
        return pb.CreateNamespaceResponse(namespace=_wire(await self._store.create(item)))

    async def update(self, request: pb.UpdateNamespaceRequest, _: calls.Call) -> pb.UpdateNamespaceResponse:
        """Change labels, those that the mask names or all."""
        item = codec.decode(namespaces.Namespace, request.namespace)
        return pb.UpdateNamespaceResponse(namespace=_wire(await self._store.update(item, tuple(request.update_mask.paths))))

    async def delete(self, request: pb.DeleteNamespaceRequest, _: calls.Call) -> empty_pb2.Empty:
        """Remove an empty namespace."""
        await self._store.delete(request.name)
        return empty_pb2.Empty()


def _wire(item: namespaces.Namespace) -> pb.Namespace:
    return codec.encode(pb.Namespace, item)


@plugin.plugin("io.containerd.grpc.v1", "namespaces")
async def service(store: namespaces.Store) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Namespaces service."""
    yield routing.Service(Namespaces(store))
