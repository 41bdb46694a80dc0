"""Spans of gRPC calls, and where spans go: to an OpenTelemetry collector, by OTLP over HTTP in its JSON form.

On where the environment has ``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``; ``OTEL_SERVICE_NAME`` names us.
The OpenTelemetry libraries are not needed: they cost 10 MB and would tie the version of protobuf.
Invariants: a collector that is slow or away delays nobody and costs at most `LIMIT` spans of memory; what does not fit is dropped.
Source: https://opentelemetry.io/docs/specs/otlp/ (OTLP/HTTP, JSON Protobuf Encoding).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydock.base import errors, tracing
from pydock.core import plugin
from pydock.services import around

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

LIMIT = 2048  # spans waiting
EVERY = 2.0  # seconds between two sendings
SEND_SECONDS = 10.0
_SERVER, _INTERNAL, _ERROR = 2, 1, 2


class Tracer:
    """A `core.plugin.GrpcWrapper` that makes each call a span, part of the client's where it says so."""

    def wrap(self, path: str, method: Any) -> Any:
        """Return ``method`` in a span named after it."""
        inner = around.behaviour(method)
        service, _, name = path.strip("/").rpartition("/")
        fixed = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}

        async def handler(request: Any, context: Any) -> Any:
            sent = {key: str(value) for key, value in context.invocation_metadata() or ()}
            attributes = {**fixed, "containerd.namespace": sent.get("containerd-namespace", "")}
            with tracing.span(path.strip("/"), attributes, traceparent=sent.get("traceparent", "")) as made:
                try:
                    return await inner(request, context)
                except BaseException:
                    if made is not None:
                        made.error = str(context.details() or "")
                    raise

        return around.remade(method, handler) if asyncio.iscoroutinefunction(inner) else method


def document(spans: Iterable[tracing.Span], service: str) -> dict[str, Any]:
    """Return an ExportTraceServiceRequest as JSON has it."""
    resource = {"attributes": _attributes({"service.name": service})}
    return {
        "resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "pydock"}, "spans": [_span(one) for one in spans]}]}]
    }


def _span(one: tracing.Span) -> dict[str, Any]:
    return {
        "traceId": one.trace,
        "spanId": one.id,
        "parentSpanId": one.parent,
        "name": one.name,
        "kind": _SERVER if one.serves else _INTERNAL,
        "startTimeUnixNano": str(one.start),
        "endTimeUnixNano": str(one.end),
        "attributes": _attributes(one.attributes),
        "status": {"code": _ERROR, "message": one.error} if one.error else {},
    }


def _attributes(pairs: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in pairs.items()]


class Exporter:
    """Collects spans and sends them off, some at a time."""

    def __init__(self, url: str, service: str, session: aiohttp.ClientSession) -> None:
        self._url, self._service, self._session = url, service, session
        self._waiting: collections.deque[tracing.Span] = collections.deque(maxlen=LIMIT)
        self._failing = False

    def add(self, span: tracing.Span) -> None:
        """Keep a span for the next sending; the oldest goes where there are too many."""
        self._waiting.append(span)

    async def run(self) -> None:
        """Send every `EVERY` seconds, for ever."""
        while True:
            await asyncio.sleep(EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Send what waits; what cannot be sent is dropped, and said once."""
        import aiohttp

        if not self._waiting:
            return
        spans = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            async with self._session.post(self._url, json=document(spans, self._service)) as answer:
                answer.raise_for_status()
        except (aiohttp.ClientError, TimeoutError) as error:
            if not self._failing:
                log.warning("traces cannot be sent", extra={"url": self._url, "reason": str(error) or type(error).__name__})
            self._failing = True
        else:
            self._failing = False


def endpoint(environment: Mapping[str, str]) -> str:
    """Return the URL that spans go to, "" for none. Raises InvalidArgument for one that is not HTTP."""
    exact = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    url = exact or (f"{base.rstrip('/')}/v1/traces" if base else "")
    if url and not url.startswith(("http://", "https://")):
        raise errors.InvalidArgument(f"trace endpoint {url!r}: expected http:// or https://")
    return url


@plugin.plugin("io.containerd.tracing.processor.v1", "otlp")
async def otlp(supervisor: plugin.Supervisor) -> AsyncIterator[plugin.GrpcWrapper]:
    """Send spans where the environment says."""
    url = endpoint(os.environ)
    if not url:
        raise plugin.SkipPlugin("no OpenTelemetry endpoint is configured")
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SEND_SECONDS)) as session:
        exporter = Exporter(url, os.environ.get("OTEL_SERVICE_NAME", "pydockd"), session)
        tracing.record(exporter.add)
        try:
            async with plugin.background() as spawn:
                spawn(supervisor.keep("traces", exporter.run), name="traces")
                yield Tracer()
        finally:
            tracing.record(None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await exporter.flush()
