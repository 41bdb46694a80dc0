"""The edge every gRPC call crosses: what its metadata says is bound once, and what it raises is translated once.

Vocabulary: a *call* is the part of a request that is not its message: namespace, lease, deadline; a *handler* is a method of a service
class, in one of three forms by what its method streams:

=========================== ==================================================
one request, one response   ``async def get(self, request, call) -> response``
streaming responses         ``async def list(self, request, call, send)``
streaming both ways         ``async def write(self, requests, call, send)``
=========================== ==================================================

Invariant: handlers hold no ``try`` for errors that only need telling; this file is one of the two places that catch everything.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc.aio

from pydock.base import errors, names, request
from pydock.services import errors as statuses

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
else:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext

Send = Callable[[Any], Awaitable[None]]
Requests = AsyncIterator[Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]

NAMESPACE_HEADER = "containerd-namespace"
LEASE_HEADER = "containerd-lease"

_log = logging.getLogger(__name__)
_prefix = os.urandom(3).hex()
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Call:
    """``namespace`` and ``lease`` as the client sent them ("" when it did not); ``remaining`` seconds to its deadline, None without one.

    ``context`` is grpc's own of the call, for the few methods that speak by metadata; None in tests without a server.
    """

    namespace: str = ""
    lease: str = ""
    remaining: float | None = None
    context: Context | None = None

    def header(self, name: str) -> str | None:
        """Return what the client's metadata holds under ``name``, None for nothing."""
        pairs = (self.context.invocation_metadata() or ()) if self.context is not None else ()
        return next((str(value) for key, value in pairs if key == name), None)

    async def announce(self, metadata: Mapping[str, str]) -> None:
        """Send initial metadata, before any response."""
        if self.context is not None:
            await self.context.send_initial_metadata(tuple(metadata.items()))

    def conclude(self, metadata: Mapping[str, str]) -> None:
        """Set the trailing metadata that follows the last response, or the failure."""
        if self.context is not None:
            self.context.set_trailing_metadata(tuple(metadata.items()))

    @property
    def ns(self) -> str:
        """Return the namespace this call must have. Raises FailedPrecondition without one, InvalidArgument out of the grammar."""
        if not self.namespace:
            raise errors.FailedPrecondition("namespace is required")
        return names.namespace(self.namespace)


def unary(handler: Callable[[Any, Call], Awaitable[Any]]) -> Behaviour:
    """Return the gRPC behaviour of a handler with one request and one response."""

    async def behaviour(message: Any, context: Context) -> Any:
        began = time.perf_counter()
        try:
            answer = await handler(message, _bind(context))
        except Exception as error:  # noqa: BLE001 - the edge
            return await _refuse(context, error)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("answered %s in %.2f ms", type(message).__name__, (time.perf_counter() - began) * 1000)
        return answer

    return behaviour


def streaming(handler: Callable[[Any, Call, Send], Awaitable[None]]) -> Behaviour:
    """Return the gRPC behaviour of a handler that streams responses; ``requests`` is a message or an iterator, as the method has it."""

    async def behaviour(requests: Any, context: Context) -> None:
        try:
            await handler(requests, _bind(context), context.write)
        except Exception as error:  # noqa: BLE001 - the edge
            await _refuse(context, error)

    return behaviour


async def _refuse(context: Context, error: BaseException) -> None:
    """End the call with the status of ``error``."""
    number = request.request_id.get()
    told = statuses.classified(error, number)
    if told is None:
        _log.error("request failed", exc_info=error)
        told = statuses.fault(error, number)
    else:
        _log.debug("request refused: %s", told)
    await context.abort(statuses.STATUSES[told.code].grpc, str(told))


def _bind(context: Context) -> Call:
    """Return the call of ``context`` and name it in the log lines of everything below."""
    namespace = lease = ""
    for key, value in context.invocation_metadata() or ():
        if key == NAMESPACE_HEADER:
            namespace = str(value)
        elif key == LEASE_HEADER:
            lease = str(value)
    request.request_id.set(f"{_prefix}-{next(_numbers)}")
    request.namespace.set(namespace)
    return Call(namespace, lease, context.time_remaining(), context)
