"""Containers and their processes: what is known of each, and how its end becomes known to the world.

An end is told in this order: output drained (a terminal's only), ``exit.json`` written and synced, waiters answered, TaskExit queued.  The
end of an init waits for the ends of all execs, and no end overtakes the start of its process.
"""

from __future__ import annotations

import os

from pydock_shim import cgroup, engine_oci, linux, loop, std, stdio, wire
from pydock_shim.failpoint import failpoint
from pydock_shim.state import check, invalid, not_found
from pydock_shim.std import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pydock_shim import console, events

DRAIN = 2.0  # seconds that output of a terminal may hold back the end of its process
ID_LIMIT = 76
NEVER_STARTED = 255  # exit status of an exec that the runtime could not start


def check_id(what: str, id: str) -> None:
    """``RpcError`` InvalidArgument unless ``id`` is fit to be part of a file name (containerd's identifiers)."""
    plain = id.replace("_", "").replace("-", "").replace(".", "")
    fine = plain.isascii() and plain.isalnum() and len(id) <= ID_LIMIT and id[0].isalnum() and id[-1].isalnum()
    if not id or not fine:
        raise invalid(f"{what} {id[:ID_LIMIT]!r} must be 1 to {ID_LIMIT} letters, digits, '.', '_' and '-'")


class Process:
    """An init (``exec_id`` "") or an exec."""

    def __init__(self, container: Container, exec_id: str, request: dict[str, Any]) -> None:
        self.container, self.exec_id = container, exec_id
        self.state = "created"
        self.pid, self.pidfd, self.start_ticks = 0, -1, 0
        self.status, self.exited_at, self.oom = 0, 0, False
        self.terminal: bool = request["terminal"]
        self.paths: tuple[str, str, str] = (request["stdin"], request["stdout"], request["stderr"])
        self.streams: stdio.Streams | None = None
        self.console: console.Terminal | None = None
        self.exited = loop.Promise()  # settled when the end may be told
        self.starting: loop.Promise | None = None  # while Start is under way
        self.doomed = False  # by Delete, for whose lock a Start that comes now has to wait

    @property
    def shown_state(self) -> str:
        """Its state as clients see it: a paused container pauses its execs."""
        init = self.container.init.state
        return init if self.state == "running" and init in ("paused", "pausing") else self.state

    @property
    def name(self) -> str:
        """What its files in the bundle are called."""
        return f"exec-{self.exec_id}" if self.exec_id else "init"

    def adopt(self, main: loop.Loop, pid: int) -> loop.Promise:
        """It is process ``pid`` now; a promise of its end."""
        self.pid = pid
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError:
            return main.child(pid)  # ended and reaped already
        parent, self.start_ticks = linux.parent_and_start(pid)
        if parent == main.subreaper:
            main.forget_stranger(pid)
        else:  # it has ended, and its pid is somebody else's by now
            os.close(self.pidfd)
            self.pidfd, self.start_ticks = -1, 0
        return main.child(pid)

    def signal(self, number: int) -> None:
        """Send a signal.  NotFound once it has ended, FailedPrecondition before it began."""
        if self.state == "stopped" or (self.pid and self.pidfd < 0):
            raise not_found("process already finished")
        if not self.pid:
            raise loop.RpcError(wire.FAILED_PRECONDITION, "process not created: failed precondition")
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError as error:
            raise not_found("process already finished") from error
        except (OSError, ValueError) as error:
            raise invalid(f"signal {number}") from error

    def close(self) -> None:
        """Let go of everything; the process is deleted."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        for io in (self.streams, self.console):
            if io is not None:
                io.close()
        self.streams = self.console = None

    def record(self) -> None:
        """Write the truth about its end to the bundle, before anybody is told."""
        entry = {
            "id": self.container.id,
            "exec_id": self.exec_id,
            "pid": self.pid,
            "start_ticks": self.start_ticks,
            "status": self.status,
            "exited_at_ns": self.exited_at,
            "oom": self.oom,
        }
        linux.replace_file(self.record_path, std.dumps(entry), sync=True)

    @property
    def record_path(self) -> str:
        return f"{self.container.bundle}/exit-{self.exec_id}.json" if self.exec_id else f"{self.container.bundle}/exit.json"


class Container:
    """An init, its execs, its cgroup and its runtime."""

    def __init__(self, id: str, bundle: str, engine: engine_oci.Engine, request: dict[str, Any]) -> None:
        self.id, self.bundle, self.engine = id, bundle, engine
        self.init = Process(self, "", request)
        self.execs: dict[str, Process] = {}
        self.cgroup: cgroup.Cgroup | None = None
        self.shares_pids = False  # no pid namespace of its own: its processes outlive its init
        self.lock = loop.Lock()
        self.oom_told = 0
        self.deleted = False

    def process(self, exec_id: str) -> Process:
        if not exec_id:
            return self.init
        if exec_id not in self.execs:
            raise not_found(f"process does not exist {exec_id}")
        return self.execs[exec_id]

    def check(self, verb: str) -> None:
        check(verb, "deleted" if self.deleted else self.init.state)


class Ends:
    """Turns the exits of children into ends that the world is told of."""

    def __init__(self, main: loop.Loop, publisher: events.Events) -> None:
        self.loop, self.events = main, publisher

    def follow(self, process: Process, gone: loop.Promise) -> None:
        gone.then(lambda promise: self._start(process, promise.value))

    def _start(self, process: Process, ended: loop.Exit) -> None:
        if process.pidfd >= 0:
            # Its pid may be given to another from now on.
            os.close(process.pidfd)
            process.pidfd = -1
        self.loop.start(self._end(process, ended)).then(self._told)

    def _told(self, promise: loop.Promise) -> None:
        if promise.error is not None:
            self.loop.log(f"exit: {promise.error}")

    def _end(self, process: Process, ended: loop.Exit) -> loop.Routine:
        container = process.container
        if process.starting is not None and not process.doomed:
            yield process.starting
        if not process.exec_id:
            if container.shares_pids and container.cgroup is not None:
                container.cgroup.signal_all(signal.SIGKILL)
            for other in list(container.execs.values()):
                if other.starting is not None:
                    yield other.starting
                if other.pid:
                    yield other.exited
        yield from self._drain(process)
        process.status, process.exited_at = ended.status, ended.at
        self.look_for_oom(container)
        process.oom = container.oom_told > 0
        failpoint("shim.ended")
        try:
            process.record()
        except OSError as error:  # a full disk must not hide the end from those who ask
            self.loop.log(f"{process.record_path}: {error}")
        failpoint("shim.recorded")
        process.state = "stopped"
        process.exited.resolve()
        self.events.publish(
            "/tasks/exit",
            "TaskExit",
            {
                "container_id": container.id,
                "id": process.exec_id or container.id,
                "pid": process.pid,
                "exit_status": process.status,
                "exited_at": process.exited_at,
            },
        )

    def _drain(self, process: Process) -> loop.Routine:
        if process.console is not None:
            process.console.process_ended()
            yield self.loop.within(DRAIN, process.console.drained)
        if process.streams is not None:
            process.streams.process_ended()

    def look_for_oom(self, container: Container) -> None:
        """Publish TaskOOM if something was killed since the last look."""
        if container.cgroup is None:
            return
        kills = container.cgroup.oom_kills()
        if kills > container.oom_told:
            container.oom_told = kills
            self.events.publish("/tasks/oom", "TaskOOM", {"container_id": container.id})
