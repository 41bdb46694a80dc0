"""containerd.services.introspection.v1: what this daemon is made of, and which daemon it is.

On disk: ``uuid`` in the plugin's root, written once; it outlives restarts and names this root for ever.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from google.rpc import code_pb2, status_pb2

from pydock._proto.containerd.services.introspection.v1 import introspection_pb2 as pb
from pydock._proto.containerd.types import introspection_pb2, platform_pb2
from pydock.base import durable, errors, filters, offload
from pydock.core import plugin, tasks
from pydock.services import calls, codec, routing

RUNTIME = ("io.containerd.runtime.v2", "task")


class Introspection:
    """Answers the Introspection service; no call needs a namespace."""

    wire = pb.DESCRIPTOR.services_by_name["Introspection"]
    raw = frozenset[str]()

    def __init__(self, table: plugin.PluginTable, identity: str, inspector: tasks.Inspector | None) -> None:
        self._table, self._identity, self._inspector = table, identity, inspector

    async def plugins(self, request: pb.PluginsRequest, _: calls.Call) -> pb.PluginsResponse:
        """Return the plugins that any of the filters (fields: type, id) matches."""
        wanted = filters.parse(request.filters)
        return pb.PluginsResponse(plugins=[_row(row) for row in self._table.rows() if wanted.match(_fields(row))])

    async def server(self, _: object, __: calls.Call) -> pb.ServerResponse:
        """Return this root's id, and this process by pid and pid namespace."""
        return pb.ServerResponse(uuid=self._identity, pid=os.getpid(), pidns=os.stat("/proc/self/ns/pid").st_ino)

    async def plugin_info(self, request: pb.PluginInfoRequest, _: calls.Call) -> pb.PluginInfoResponse:
        """Return one plugin, with what it says of itself when the request has options for it."""
        row = next((row for row in self._table.rows() if (row.type, row.id) == (request.type, request.id)), None)
        if row is None:
            raise errors.NotFound(f"plugin {request.type}.{request.id} not found")
        response = pb.PluginInfoResponse(plugin=_row(row))
        if request.HasField("options"):
            if row.init_error:
                raise errors.FailedPrecondition("cannot get extra info, plugin not successfully loaded")
            response.extra.CopyFrom(codec.wire_any(codec.pack(await self._runtime_info(request))))
        return response

    async def _runtime_info(self, request: pb.PluginInfoRequest) -> introspection_pb2.RuntimeInfo:
        if (request.type, request.id) != RUNTIME or self._inspector is None:
            raise errors.Unimplemented("plugin does not provided extra information")
        asked = codec.parse(introspection_pb2.RuntimeRequest, codec.any_of(request.options))
        info = await self._inspector.inspect(asked.runtime_path, codec.any_or_none(asked.options))
        return codec.encode(introspection_pb2.RuntimeInfo, info)


def _fields(row: plugin.PluginInfo) -> filters.Adaptor:
    fields: dict[filters.Path, str] = {("type",): row.type, ("id",): row.id}
    return lambda path: filters.text(fields.get(path, ""))


def _row(row: plugin.PluginInfo) -> pb.Plugin:
    return pb.Plugin(
        type=row.type,
        id=row.id,
        requires=row.requires,
        platforms=[_platform(text) for text in row.platforms],
        capabilities=row.capabilities,
        exports=row.exports,
        init_err=status_pb2.Status(code=code_pb2.UNKNOWN, message=row.init_error) if row.init_error else None,
    )


def _platform(text: str) -> platform_pb2.Platform:
    system, architecture, variant, *_ = [*text.split("/"), "", ""]
    return platform_pb2.Platform(os=system, architecture=architecture, variant=variant)


def identity(root: Path) -> str:
    """Return the id kept in ``root``, made and kept when there is none (or half of one)."""
    path = root / "uuid"
    kept = path.read_text("ascii", "replace").strip() if path.exists() else ""
    try:
        return str(uuid.UUID(kept))
    except ValueError:
        made = str(uuid.uuid4())
        durable.write(path, made.encode())
        return made


@plugin.plugin("io.containerd.grpc.v1", "introspection")
async def service(
    root: plugin.PluginRoot, table: plugin.PluginTable, inspector: tasks.Inspector | None
) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Introspection service."""
    yield routing.Service(Introspection(table, await offload.run(identity, root), inspector))
