"""The layers below an overlay upper directory: asked only for parents and hard link targets the archive itself does not bring.

Vocabulary: *lowers* are descriptors of layer directories, topmost first, fetched on the first question (they may still be in the making).
Invariants: a path is resolved inside one layer as that layer's own root; a layer that has a whiteout, a file or an opaque directory on
the way ends the search, since what lies deeper is hidden.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Final

from pydock.base import safefs

_OPAQUE: Final = b"trusted.overlay.opaque"


class Lowers:
    """Look-ups in the layers below; ``fetch`` gives their descriptors once and may wait."""

    def __init__(self, fetch: Callable[[], Sequence[int]]) -> None:
        self._fetch = fetch
        self._fds: Sequence[int] | None = None

    @property
    def fds(self) -> Sequence[int]:
        """The layers' descriptors, topmost first."""
        if self._fds is None:
            self._fds = self._fetch()
        return self._fds

    def root_names(self) -> list[bytes]:
        """Every name in the roots of the layers, once."""
        return list(dict.fromkeys(name for fd in self.fds for name in safefs.names(fd, b".")))

    def entry(self, parts: Sequence[bytes], flags: int = os.O_PATH) -> int | None:
        """A descriptor of the entry ``parts`` as a container on these layers would see it, or None; a link is not followed."""
        return self._search(b"/".join(parts), parts, flags | os.O_NOFOLLOW)

    def directory(self, parts: Sequence[bytes]) -> int | None:
        """As ``entry``, but a link is followed, and only a directory is an answer."""
        return self._search(b"/".join(parts), parts, os.O_PATH | os.O_DIRECTORY)

    def _search(self, path: bytes, parts: Sequence[bytes], flags: int) -> int | None:
        for layer in self.fds:
            try:
                fd = safefs.open_in_root(layer, path, flags)
            except FileNotFoundError:
                if _hides(layer, parts):
                    return None
                continue
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    return None
                raise
            if is_whiteout(os.fstat(fd)):
                os.close(fd)
                return None
            return fd
        return None


def is_whiteout(status: os.stat_result) -> bool:
    """Whether ``status`` is overlayfs's mark for a name that is gone."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _hides(layer: int, parts: Sequence[bytes]) -> bool:
    """Whether a directory on the way to ``parts`` is opaque in ``layer``."""
    for size in range(1, len(parts)):
        try:
            fd = safefs.open_in_root(layer, b"/".join(parts[:size]), os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return False
        with safefs.opened(fd):
            if safefs.get_xattr(fd, b".", _OPAQUE) == b"y":
                return True
    return False
