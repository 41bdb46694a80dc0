"""A gRPC server in the test's loop with the services under test, and a client that speaks to it by method name."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf import message_factory

from pydock.services import front, routing


class Client:
    """Calls methods of a service by their wire names; ``ns`` and ``lease`` go into the metadata."""

    def __init__(self, channel: grpc.aio.Channel, wire: Any) -> None:
        self.channel, self.wire = channel, wire

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = self.wire.methods_by_name[name]
        kind = ("stream" if method.client_streaming else "unary") + "_" + ("stream" if method.server_streaming else "unary")
        multi = getattr(self.channel, kind)(
            f"/{self.wire.full_name}/{name}",
            request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )

        def call(request: Any, ns: str = "default", lease: str = "", **options: Any) -> Any:
            metadata = [(key, value) for key, value in (("containerd-namespace", ns), ("containerd-lease", lease)) if value]
            return multi(request, metadata=metadata, **options)

        return call


Dial = Callable[..., contextlib.AbstractAsyncContextManager[Client]]


@pytest.fixture
def dial(tmp_path: Path) -> Dial:
    """``async with dial(ServiceClass(...)) as client``."""

    @contextlib.asynccontextmanager
    async def dial(handlers: Any) -> AsyncIterator[Client]:
        service = routing.Service(handlers)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((front.Front([service]),))
        address = f"unix:{tmp_path}/grpc.sock"
        server.add_insecure_port(address)
        await server.start()
        async with grpc.aio.insecure_channel(address) as channel:
            yield Client(channel, handlers.wire)
        await server.stop(0)

    return dial
