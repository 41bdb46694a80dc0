"""One inotify descriptor for the whole shim, made when first needed: who opens a FIFO, and when ``memory.events`` changes."""

from __future__ import annotations

import os
import struct

from pydock_shim import linux, loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_EVENT = struct.Struct("iIII")
IN_IGNORED = 0x8000


class Watcher:
    """``add`` a path and a callback; ``remove`` it again.  The watch of a path that goes away ends by itself."""

    def __init__(self, main: loop.Loop) -> None:
        self._loop = main
        self.fd = -1
        self._calls: dict[int, Callable[[], None]] = {}

    def add(self, path: str, mask: int, call: Callable[[], None]) -> int:
        """Call ``call`` on each event; a handle for ``remove``.  ``OSError`` where the kernel has no watch left."""
        if self.fd < 0:
            self.fd = linux.inotify_init()
            self._loop.watch(self.fd, loop.IN, self._ready)
        handle = linux.inotify_add_watch(self.fd, path, mask)
        self._calls[handle] = call
        return handle

    def remove(self, handle: int) -> None:
        if self._calls.pop(handle, None) is not None:
            linux.inotify_rm_watch(self.fd, handle)

    def _ready(self, _: int) -> None:
        try:
            data = os.read(self.fd, 4096)
        except BlockingIOError:
            return
        at = 0
        while at + _EVENT.size <= len(data):
            handle, mask, _cookie, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            call = self._calls.get(handle)
            if mask & IN_IGNORED:
                self._calls.pop(handle, None)
            elif call is not None:
                call()
