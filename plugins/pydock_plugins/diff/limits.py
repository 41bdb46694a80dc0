"""The bounds a layer archive must keep, and the two errors that name the entry which does not.

Vocabulary: the *ratio* is bytes out of the decompressor per byte in; it counts only past a floor, since a small file of zeros is no bomb.
Invariant: whatever the archive says, memory is bounded by ``pax_bytes`` + ``window`` + a few buffers, plus a record per directory.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from pydock.base import errors, safefs

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one layer; sizes in bytes. The defaults are far above every real image seen."""

    entries: int = 3_000_000
    bytes: int = 512 * GIB
    ratio: int = 400
    ratio_floor: int = 4 * GIB
    path: int = 4095
    pax_bytes: int = MIB
    extensions: int = 16
    xattrs: int = 256
    xattr_bytes: int = MIB
    sparse_pieces: int = 65_536
    window: int = 128 * MIB


def invalid(name: bytes, reason: str) -> errors.InvalidArgument:
    """The archive is malformed at entry ``name``."""
    return errors.InvalidArgument(f"layer entry {safefs.show(name)}: {reason}")


def exhausted(name: bytes, reason: str) -> errors.ResourceExhausted:
    """The archive goes over a limit, or fills the disk, at entry ``name``."""
    return errors.ResourceExhausted(f"layer entry {safefs.show(name)}: {reason}")


_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EMLINK, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG, errno.E2BIG))
_NOT_ALLOWED = frozenset((errno.EROFS, errno.EACCES))
_HOST = frozenset((errno.EIO, errno.ESTALE, errno.EBADF, errno.ENOSYS))


def from_os(name: bytes, error: OSError) -> errors.PydockError:
    """The kernel refused entry ``name``: a full disk or table is ours to tell from a name or link it will not have."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return exhausted(name, reason)
    if error.errno in _NOT_ALLOWED:
        return errors.PermissionDenied(f"layer entry {safefs.show(name)}: {reason}")
    if error.errno in _HOST:
        return errors.Internal(f"layer entry {safefs.show(name)}: {reason}")
    return invalid(name, reason)
