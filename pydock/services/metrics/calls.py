"""Counts of gRPC calls under the names Go's servers use: ``grpc_server_started_total``, ``_handled_total``, ``_handling_seconds``."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import prometheus_client as prometheus

from pydock.services import around

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
LABELS = ("grpc_type", "grpc_service", "grpc_method")
Behaviour = Callable[[Any, Any], Awaitable[Any]]
_KINDS = {(False, False): "unary", (False, True): "server_stream", (True, False): "client_stream", (True, True): "bidi_stream"}


class Calls:
    """A `core.plugin.GrpcWrapper` that counts each call of the methods it wraps."""

    def __init__(self, registry: prometheus.CollectorRegistry) -> None:
        words = "RPCs on the server, {}."
        self._started = prometheus.Counter("grpc_server_started", words.format("started"), LABELS, registry=registry)
        self._handled = prometheus.Counter(
            "grpc_server_handled", words.format("completed, by code"), (*LABELS, "grpc_code"), registry=registry
        )
        self._seconds = prometheus.Histogram(
            "grpc_server_handling_seconds", words.format("seconds from first to last"), LABELS, buckets=BUCKETS, registry=registry
        )

    def wrap(self, path: str, method: Any) -> Any:
        """Return ``method`` counted; ``path`` is ``/service/method``. Handlers may be coroutines or iterators."""
        key = (bool(method.request_streaming), bool(method.response_streaming))
        service, _, name = path.strip("/").rpartition("/")
        return around.remade(method, self._counted(around.behaviour(method), (_KINDS[key], service, name)))

    def _counted(self, inner: Behaviour, labels: tuple[str, str, str]) -> Any:
        started, seconds = self._started.labels(*labels), self._seconds.labels(*labels)

        def ended(code: str, since: float) -> None:
            self._handled.labels(*labels, code).inc()
            seconds.observe(time.perf_counter() - since)

        async def behaviour(request: Any, context: Any) -> Any:
            started.inc()
            since, code = time.perf_counter(), "Canceled"
            try:
                answer = await inner(request, context)
                code = code_name(context.code())
            except asyncio.CancelledError:
                raise
            except BaseException:
                code = code_name(context.code(), "Unknown")
                raise
            finally:
                ended(code, since)
            return answer

        async def iterated(request: Any, context: Any) -> AsyncIterator[Any]:
            started.inc()
            since, code = time.perf_counter(), "Canceled"
            try:
                async for one in inner(request, context):  # type: ignore[attr-defined]
                    yield one
                code = code_name(context.code())
            finally:
                ended(code, since)

        return iterated if inspect.isasyncgenfunction(inner) else behaviour


def code_name(code: Any, default: str = "OK") -> str:
    """Return a status as Go names it, ``NotFound``; ``default`` for none."""
    if isinstance(code, int):
        code = next((item for item in grpc.StatusCode if item.value[0] == code), None)
    if not isinstance(code, grpc.StatusCode):
        return default
    if code is grpc.StatusCode.OK:
        return "OK"
    if code is grpc.StatusCode.CANCELLED:
        return "Canceled"
    return code.name.title().replace("_", "")
