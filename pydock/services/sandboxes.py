"""containerd.services.sandbox.v1: records of sandboxes (Store), and who runs them (Controller: nobody yet)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydock._proto.containerd.services.sandbox.v1 import sandbox_pb2 as pb
from pydock._proto.containerd.types import sandbox_pb2
from pydock.base import errors, names
from pydock.core import plugin, sandboxes
from pydock.services import calls, codec, routing

CONTROLLERS = ("shim", "podsandbox")  # those of containerd


class Store:
    """Answers the sandbox Store service."""

    wire = pb.DESCRIPTOR.services_by_name["Store"]
    raw = frozenset[str]()

    def __init__(self, store: sandboxes.Store) -> None:
        self._store = store

    async def create(self, request: pb.StoreCreateRequest, call: calls.Call) -> pb.StoreCreateResponse:
        """Make a record."""
        made = await self._store.create(call.ns, codec.decode(sandboxes.Sandbox, request.sandbox))
        return pb.StoreCreateResponse(sandbox=_wire(made))

    async def update(self, request: pb.StoreUpdateRequest, call: calls.Call) -> pb.StoreUpdateResponse:
        """Change a record, the fields that are named or all that may change."""
        changed = await self._store.update(call.ns, codec.decode(sandboxes.Sandbox, request.sandbox), tuple(request.fields))
        return pb.StoreUpdateResponse(sandbox=_wire(changed))

    async def delete(self, request: pb.StoreDeleteRequest, call: calls.Call) -> pb.StoreDeleteResponse:
        """Remove a record."""
        await self._store.delete(call.ns, request.sandbox_id)
        return pb.StoreDeleteResponse()

    async def list(self, request: pb.StoreListRequest, call: calls.Call) -> pb.StoreListResponse:
        """Return the records that any of the filters matches."""
        found = await self._store.list(call.ns, tuple(request.filters))
        return pb.StoreListResponse(list=[_wire(item) for item in found])

    async def get(self, request: pb.StoreGetRequest, call: calls.Call) -> pb.StoreGetResponse:
        """Return one record."""
        return pb.StoreGetResponse(sandbox=_wire(await self._store.get(call.ns, request.sandbox_id)))


def _wire(item: sandboxes.Sandbox) -> sandbox_pb2.Sandbox:
    return codec.encode(sandbox_pb2.Sandbox, item)


class Controller:
    """Refuses every call of the Controller service in words: which controllers there are to be, and that this daemon has none yet."""

    wire = pb.DESCRIPTOR.services_by_name["Controller"]
    raw = frozenset[str]()

    def __init__(self) -> None:
        for method in self.wire.methods:
            setattr(self, routing.snake_case(method.name), self._refuse)

    async def _refuse(self, request: pb.ControllerStatusRequest, call: calls.Call) -> None:
        """Raise InvalidArgument without the name of a controller, NotFound for one nobody knows, else Unimplemented."""
        names.namespace(call.ns)
        wanted = request.sandboxer
        if not wanted:
            raise errors.InvalidArgument("sandbox controller name can not be empty")
        if wanted not in CONTROLLERS:
            raise errors.NotFound(f"sandbox controller {names.quote(wanted)}")
        raise errors.Unimplemented(f"sandbox {names.quote(request.sandbox_id)}: this daemon runs no sandboxes (controller {wanted})")


@plugin.plugin("io.containerd.grpc.v1", "sandboxes")
async def store(records: sandboxes.Store) -> AsyncIterator[plugin.GrpcService]:
    """Serve the sandbox Store service."""
    yield routing.Service(Store(records))


@plugin.plugin("io.containerd.grpc.v1", "sandbox-controllers")
async def controllers() -> AsyncIterator[plugin.GrpcService]:
    """Serve the sandbox Controller service."""
    yield routing.Service(Controller())
