"""A bounded look at the account files in a container's root file system, which is the image's and therefore not to be trusted.

Invariants: links are resolved inside the root; only regular files are opened for reading, and of those at most `LARGEST` bytes are read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from pydock.base import errors, safefs
from pydock.client import mounting
from pydock.client.snapshots import Mount
from pydock.oci import user

LARGEST = 4 << 20


def ids(mounts: Sequence[Mount], wanted: str) -> user.Ids:
    """Return whom ``wanted`` ("user[:group]", "" for root) is in the root these mounts give. Raises InvalidArgument, OSError."""
    return mounting.peek(mounts, lambda root: resolve(root, wanted))


def resolve(root: int, wanted: str) -> user.Ids:
    """As `ids`, in the directory descriptor ``root``."""
    return user.resolve(wanted, read(root, b"etc/passwd"), read(root, b"etc/group"))


def read(root: int, path: bytes) -> str:
    """Return a small text file below ``root``; "" when there is none. Raises InvalidArgument for anything but a small regular file."""
    try:
        # Neither a device nor a FIFO is opened for real before it is known to be none.
        handle = safefs.open_in_root(root, path, os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return ""
        raise errors.InvalidArgument(f"{safefs.show(path)} of the image: {os.strerror(error.errno or 0)}") from error
    with safefs.opened(handle):
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise errors.InvalidArgument(f"{safefs.show(path)} of the image is not a regular file")
        if status.st_size > LARGEST:
            raise errors.InvalidArgument(f"{safefs.show(path)} of the image has more than {LARGEST} bytes")
        with Path(f"/proc/self/fd/{handle}").open("rb") as file:
            return file.read(LARGEST).decode("utf-8", "surrogateescape")
