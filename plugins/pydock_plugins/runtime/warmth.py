"""Paying ahead for the OCI runtime's entry into its cgroup.

On cgroup v1 a process enters a cgroup by a write to ``cgroup.procs``, under a lock that all of fork and exit take for reading.  After some
quiet its first writer waits for an RCU grace period (``rcu_sync``, kernel/cgroup/cgroup.c): 6 to 14 ms of an isolated container start; a
writer that follows soon waits 20 us.  So as soon as a container or an exec is asked for, the daemon writes itself into the cgroup it is in
already: nothing changes but that the wait is over by the time the runtime comes to it.  "Soon" is one more grace period, and on a busy
machine the runtime may come later: so it is done again every few ms while the runtime is at work.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc/self")
AGAIN_SECONDS = 0.005  # less than any grace period
LONGEST_SECONDS = 0.5  # for a runtime that hangs


class Warmth:
    """Stirs at most once at a time; does nothing on hosts without cgroup v1."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._mount, self._line = _hierarchy(proc)
        self._pending: asyncio.Future[None] | None = None
        self._users = 0
        self._until = 0.0

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Begin, and do it again while the body runs."""
        self._until = asyncio.get_running_loop().time() + LONGEST_SECONDS
        self._users += 1
        self.stir()
        try:
            yield
        finally:
            self._users -= 1

    def stir(self) -> None:
        """Begin; returns at once."""
        if self._mount and self._pending is None:
            self._pending = asyncio.get_running_loop().run_in_executor(None, self.write)
            self._pending.add_done_callback(self._done)

    def write(self) -> None:
        """Enter the cgroup this process is in now (it may have been moved since the last time); blocking."""
        with contextlib.suppress(OSError, StopIteration):
            path = next(line for line in _lines(self._proc / "cgroup") if line.startswith(self._line))[len(self._line) :]
            fd = os.open(f"{self._mount}{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"0")
            finally:
                os.close(fd)

    def _done(self, _: asyncio.Future[None]) -> None:
        self._pending = None
        loop = asyncio.get_running_loop()
        if self._users and loop.time() < self._until:
            loop.call_later(AGAIN_SECONDS, self._again)

    def _again(self) -> None:
        if self._users:
            self.stir()


def _hierarchy(proc: Path) -> tuple[str, str]:
    """Return the mount point of a v1 hierarchy and the beginning of its line in /proc/self/cgroup; "" where there is none."""
    for line in _lines(proc / "mountinfo"):
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) > 4 and kind[:1] == ["cgroup"] and fields[3] == "/":
            for named in _lines(proc / "cgroup"):
                number, controllers, _ = named.split(":", 2)
                if controllers and set(controllers.split(",")) <= set(kind[-1].split(",")):
                    return fields[4], f"{number}:{controllers}:"
    return "", ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
