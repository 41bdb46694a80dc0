"""ttrpc status codes and our error classes, both ways.

Invariant: an error keeps containerd's wording on its way through: a message that already ends in its class text is not given it twice.
"""

from __future__ import annotations

from pydock.base import errors

_CLASSES: dict[int, type[errors.PydockError]] = {
    kind.code.value: kind
    for kind in (
        errors.Canceled,
        errors.Unknown,
        errors.InvalidArgument,
        errors.DeadlineExceeded,
        errors.NotFound,
        errors.AlreadyExists,
        errors.PermissionDenied,
        errors.ResourceExhausted,
        errors.FailedPrecondition,
        errors.Aborted,
        errors.OutOfRange,
        errors.Unimplemented,
        errors.Internal,
        errors.Unavailable,
        errors.DataLoss,
        errors.Unauthenticated,
    )
}


def to_error(code: int, message: str, prefix: str = "") -> errors.PydockError:
    """Return the error of a ttrpc status; ``prefix`` goes before its words, as "failed to create shim task"."""
    kind = _CLASSES.get(code, errors.Unknown)
    detail = "" if message == kind.text else message.removesuffix(f": {kind.text}")
    return kind(": ".join(part for part in (prefix, detail) if part))


def to_status(error: errors.PydockError) -> tuple[int, str]:
    """Return (code, message) that say the same to a ttrpc peer."""
    return error.code.value, str(error)
