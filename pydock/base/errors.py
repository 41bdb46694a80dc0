"""Every error that may cross a boundary of pydock, each with the one code its fronts translate.

Vocabulary: a *code* is a failure class shared with gRPC (https://grpc.io/docs/guides/status-codes/); a *detail* names what failed.
Invariant: ``str(error)`` is ``"<detail>: <class text>"``, the form containerd's Go clients recognise and rebuild their sentinels from;
a detail that ends in its class text (``task web not found``) is not given it twice.
Only the gRPC interceptor and the REST middleware read ``code``; nobody else translates.
"""

from __future__ import annotations

import enum


class Code(enum.Enum):
    """Failure classes; the value is the gRPC status number."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class PydockError(Exception):
    """Base of all: ``detail`` says what failed, ``code`` which class, ``text`` how containerd words that class."""

    code = Code.UNKNOWN
    text = "unknown"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        if self.detail.endswith(self.text):
            return self.detail
        return f"{self.detail}: {self.text}" if self.detail else self.text


class Canceled(PydockError):
    """The caller went away."""

    code, text = Code.CANCELLED, "context canceled"


class Unknown(PydockError):
    """A failure nobody classified."""


class InvalidArgument(PydockError):
    """The request itself is wrong, whatever the state."""

    code, text = Code.INVALID_ARGUMENT, "invalid argument"


class DeadlineExceeded(PydockError):
    """It took longer than the caller, or a bound of ours, allows."""

    code, text = Code.DEADLINE_EXCEEDED, "context deadline exceeded"


class NotFound(PydockError):
    """What was named does not exist (in this namespace)."""

    code, text = Code.NOT_FOUND, "not found"


class AlreadyExists(PydockError):
    """What was to be made is there already."""

    code, text = Code.ALREADY_EXISTS, "already exists"


class PermissionDenied(PydockError):
    """The caller, or pydock at a registry or the kernel, may not."""

    code, text = Code.PERMISSION_DENIED, "permission denied"


class ResourceExhausted(PydockError):
    """A limit of ours or the host's is reached: disk, memory, entries, bytes."""

    code, text = Code.RESOURCE_EXHAUSTED, "resource exhausted"


class FailedPrecondition(PydockError):
    """The state does not allow it now."""

    code, text = Code.FAILED_PRECONDITION, "failed precondition"


class Aborted(PydockError):
    """A conflict with something else that runs."""

    code, text = Code.ABORTED, "aborted"


class OutOfRange(PydockError):
    """Past the end of what is there."""

    code, text = Code.OUT_OF_RANGE, "out of range"


class Unimplemented(PydockError):
    """Not offered by this daemon, kernel or plugin."""

    code, text = Code.UNIMPLEMENTED, "not implemented"


class Internal(PydockError):
    """A fault of pydock."""

    code, text = Code.INTERNAL, "internal"


class Unavailable(PydockError):
    """Try again later: locked, starting, or a peer that does not answer."""

    code, text = Code.UNAVAILABLE, "unavailable"


class DataLoss(PydockError):
    """Stored bytes are not what they were."""

    code, text = Code.DATA_LOSS, "data loss"


class Unauthenticated(PydockError):
    """A registry wants credentials it did not get, or refused those it got."""

    code, text = Code.UNAUTHENTICATED, "unauthenticated"
