"""What the daemon knows of a task without asking: its processes, their states and ends.

Vocabulary: a *record* is one task (namespace, id) with its shim's link; a *process* is its init ("") or an exec.  A record's *phase*:

=========  ==========================================================================================================
CREATING   its shim or init is being made; nobody sees it yet
LOADING    found at daemon start, its shim has not answered yet; who asks waits a little
LIVE       its shim answers; what is recorded is true, kept by the shim's events and by the answers of calls
HUNG       its shim lives and did not answer in time; calls are tried, its status is unknown until it answers
DEAD       its shim is gone; ends are recorded, only deletion is left
GONE       deleted
=========  ==========================================================================================================

Invariants: an end is final: no later answer or event makes a process run again; whoever waits for a process gets its end from whatever
tells it first, the shim's answer, its event, its exit record or the aftermath of its death; a record is changed by callbacks and
coroutines of one event loop only.
"""

from __future__ import annotations

import asyncio
import enum
import os
import time
from pathlib import Path

from pydock.core import tasks
from pydock_plugins.runtime import bundle as bundles
from pydock_plugins.runtime import exits
from pydock_plugins.runtime.launcher import Asked
from pydock_plugins.runtime.shim import Shim


class Phase(enum.Enum):
    """Where a record stands; see the module's table."""

    CREATING = enum.auto()
    LOADING = enum.auto()
    LIVE = enum.auto()
    HUNG = enum.auto()
    DEAD = enum.auto()
    GONE = enum.auto()


class Process:
    """One process of a task."""

    __slots__ = ("born", "end", "ended", "exec_id", "pid", "status", "stdio", "watched")

    def __init__(self, exec_id: str, stdio: tasks.Stdio, status: tasks.Status = tasks.Status.CREATED, pid: int = 0) -> None:
        self.exec_id = exec_id
        self.stdio = stdio
        self.status = status
        self.pid = pid
        self.born = time.time_ns()
        self.end: tasks.Exit | None = None
        self.ended: asyncio.Future[tasks.Exit] | None = None
        self.watched = False

    def started(self, pid: int) -> None:
        """It runs, unless it has ended meanwhile."""
        self.pid = pid
        if self.end is None:
            self.status = tasks.Status.RUNNING

    def finish(self, end: tasks.Exit) -> None:
        """It ended; only the first telling counts."""
        if self.end is not None:
            return
        self.end = end
        self.status = tasks.Status.STOPPED
        self.pid = self.pid or end.pid
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(end)

    async def wait(self) -> tasks.Exit:
        """Return its end when it has one."""
        if self.end is not None:
            return self.end
        if self.ended is None:
            self.ended = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self.ended)

    def view(self, container_id: str, exec_id: str) -> tasks.Process:
        """Return what a client sees."""
        end = self.end
        return tasks.Process(
            container_id=container_id,
            id=exec_id or container_id,
            pid=self.pid,
            status=self.status,
            stdio=self.stdio,
            exit_status=end.status if end else 0,
            exited_at=end.exited_at if end else 0,
        )


class Record:
    """One task: its bundle, its shim, its processes by exec id ("" is the init)."""

    def __init__(self, bundle: bundles.Bundle, phase: Phase) -> None:
        self.bundle = bundle
        self.phase = phase
        self.shim: Shim | None = None
        self.pidfd = -1
        self.socket = ""
        self.asked: Asked | None = None
        self.farewell: asyncio.TimerHandle | None = None
        self.born = phase is Phase.CREATING
        self.processes: dict[str, Process] = {}
        self.lock = asyncio.Lock()
        self.known = asyncio.Event()
        self.left = asyncio.Event()
        self.published = exits.Published(bundle.path / "published", fresh=phase is Phase.CREATING)
        if phase is not Phase.LOADING:
            self.known.set()

    @property
    def ns(self) -> str:
        """Return its namespace."""
        return self.bundle.ns

    @property
    def id(self) -> str:
        """Return its container's id."""
        return self.bundle.id

    @property
    def visible(self) -> bool:
        """Tell whether clients see it."""
        return self.phase is not Phase.CREATING and self.phase is not Phase.GONE

    def settle(self, phase: Phase) -> None:
        """Enter ``phase`` and let go on who waited to know."""
        self.phase = phase
        self.known.set()

    def let_go(self) -> None:
        """Forget a shim that is gone or going: connection, process, socket."""
        self.detach()
        if self.socket:
            Path(self.socket).unlink(missing_ok=True)
            self.socket = ""

    def detach(self) -> None:
        """Close what the daemon holds of a shim that lives on."""
        if self.farewell is not None:
            self.farewell.cancel()
            self.farewell = None
        if self.shim is not None:
            self.shim.close()
            self.shim = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
