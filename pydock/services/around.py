"""Puts something around the handler of a gRPC method, whatever it streams."""

from __future__ import annotations

from typing import Any

import grpc

_MAKERS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behaviour(method: Any) -> Any:
    """Return the function that handles ``method`` (a ``grpc.RpcMethodHandler``)."""
    return next(one for one in (method.unary_unary, method.unary_stream, method.stream_unary, method.stream_stream) if one is not None)


def remade(method: Any, handler: Any) -> Any:
    """Return ``method`` handled by ``handler``."""
    key = (bool(method.request_streaming), bool(method.response_streaming))
    return _MAKERS[key](handler, method.request_deserializer, method.response_serializer)
