"""The one table from failure classes to what each front answers, and the judgement of failures nobody classified.

Rows: code -> (gRPC status, HTTP status).  The HTTP column is the Docker Engine API's (moby ``api/server/httpstatus``).
"""

from __future__ import annotations

import asyncio
import errno
from typing import NamedTuple

import grpc

from pydock.base import errors

Code = errors.Code


class Statuses(NamedTuple):
    """What one code becomes on each wire."""

    grpc: grpc.StatusCode
    http: int


STATUSES: dict[Code, Statuses] = {
    Code.CANCELLED: Statuses(grpc.StatusCode.CANCELLED, 499),
    Code.UNKNOWN: Statuses(grpc.StatusCode.UNKNOWN, 500),
    Code.INVALID_ARGUMENT: Statuses(grpc.StatusCode.INVALID_ARGUMENT, 400),
    Code.DEADLINE_EXCEEDED: Statuses(grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    Code.NOT_FOUND: Statuses(grpc.StatusCode.NOT_FOUND, 404),
    Code.ALREADY_EXISTS: Statuses(grpc.StatusCode.ALREADY_EXISTS, 409),
    Code.PERMISSION_DENIED: Statuses(grpc.StatusCode.PERMISSION_DENIED, 403),
    Code.RESOURCE_EXHAUSTED: Statuses(grpc.StatusCode.RESOURCE_EXHAUSTED, 507),
    Code.FAILED_PRECONDITION: Statuses(grpc.StatusCode.FAILED_PRECONDITION, 409),
    Code.ABORTED: Statuses(grpc.StatusCode.ABORTED, 409),
    Code.OUT_OF_RANGE: Statuses(grpc.StatusCode.OUT_OF_RANGE, 400),
    Code.UNIMPLEMENTED: Statuses(grpc.StatusCode.UNIMPLEMENTED, 501),
    Code.INTERNAL: Statuses(grpc.StatusCode.INTERNAL, 500),
    Code.UNAVAILABLE: Statuses(grpc.StatusCode.UNAVAILABLE, 503),
    Code.DATA_LOSS: Statuses(grpc.StatusCode.DATA_LOSS, 500),
    Code.UNAUTHENTICATED: Statuses(grpc.StatusCode.UNAUTHENTICATED, 401),
}


# The host has no more of something: disk, quota, descriptors, memory.
_EXHAUSTED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def classified(error: BaseException, request_id: str) -> errors.PydockError | None:
    """Return the error a client is told, or None when ``error`` is a fault of pydock that wants its traceback logged.

    A group, as a TaskGroup raises it, is judged by its first classified member.
    """
    if isinstance(error, errors.PydockError):
        return error
    if isinstance(error, TimeoutError):
        return errors.DeadlineExceeded(str(error))
    if isinstance(error, asyncio.CancelledError):
        return errors.Canceled()
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        return errors.ResourceExhausted(str(error))
    if isinstance(error, BaseExceptionGroup):
        found = (classified(item, request_id) for item in error.exceptions)
        return next((item for item in found if item is not None), None)
    return None


def fault(error: BaseException, request_id: str) -> errors.PydockError:
    """Return what a client is told of a fault of pydock: its kind, an OS error's words, and where the log has the rest."""
    told = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
    return errors.Internal(f"{told} (request {request_id})")
