"""gRPC services made from their descriptors: the wire names every method, its messages and what it streams; a class handles them.

Vocabulary: a *service class* names its wire service and has a method in snake_case for each of the wire's that it offers; what it lacks
answers UNIMPLEMENTED.  Methods named in its ``raw`` answer with bytes that are sent as they are.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import grpc
from google.protobuf import descriptor, message_factory

from pydock.base import errors
from pydock.services import calls


class ServiceClass(Protocol):
    """What ``service`` turns into a gRPC service."""

    @property
    def wire(self) -> descriptor.ServiceDescriptor:
        """Return the service's descriptor, as the generated module has it in ``DESCRIPTOR.services_by_name``."""

    @property
    def raw(self) -> frozenset[str]:
        """Return the wire names of the methods that answer with serialised messages."""


class Service:
    """One gRPC service for the daemon's server (`pydock.core.plugin.GrpcService`)."""

    def __init__(self, handlers: ServiceClass) -> None:
        self.name: str = handlers.wire.full_name
        methods = {method.name: _method(method, handlers) for method in handlers.wire.methods}
        self.handler: object = grpc.method_handlers_generic_handler(self.name, methods)


def snake_case(name: str) -> str:
    """Return ``list_statuses`` for ``ListStatuses`` and ``close_io`` for ``CloseIO``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _method(method: descriptor.MethodDescriptor, handlers: ServiceClass) -> Any:
    handler = getattr(handlers, snake_case(method.name), None) or _missing(method.name)
    request = message_factory.GetMessageClass(method.input_type).FromString
    response = None if method.name in handlers.raw else message_factory.GetMessageClass(method.output_type).SerializeToString
    behaviour: Any = calls.streaming(handler) if method.server_streaming else calls.unary(handler)
    return _MAKERS[method.client_streaming, method.server_streaming](behaviour, request, response)


def _missing(name: str) -> Any:
    async def refuse(*_: object) -> None:
        raise errors.Unimplemented(f"method {name}")

    return refuse


_MAKERS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
