"""Getting to a shim and keeping to it: after a daemon start, and after a connection broke.

A record is *tended* by one coroutine from the loss of its shim (or from being found at start) until it is LIVE or DEAD:

1. the shim's process, by pid and start ticks; gone means ``aftermath``;
2. its socket, tried again with growing pauses while the process lives;
3. the state of the init and of every exec it has a trace of; no bound, for a stopped shim answers when it is continued;
4. LIVE, and every wait of a client is asked for again.

A record that is not settled ``LOAD_SECONDS`` after its tending began is HUNG, which lets those go on who want to know; the tending
goes on too.  So neither the daemon's start nor any other task waits for a shim that hangs, and none is killed for being slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from pydock.base import errors
from pydock.core import tasks
from pydock_plugins.runtime import aftermath, connection, held, intake
from pydock_plugins.runtime.records import Phase, Process, Record
from pydock_plugins.runtime.registry import Registry
from pydock_plugins.runtime.shim import Shim, ended

LOG = logging.getLogger(__name__)

LOAD_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
FAREWELL_SECONDS = 3.0
BIRTH_SECONDS = 1.0  # a shim that was being born when the daemon died has this long to show itself


Keep = Callable[[str, Callable[[], Awaitable[None]]], None]


class Tending:
    """Tends records in background tasks made by ``keep``, which gets a name and what to run, and runs it again if it fails."""

    def __init__(self, records: Registry, events: intake.Intake, keep: Keep) -> None:
        self._records = records
        self._events = events
        self._keep = keep

    def begin(self, record: Record) -> None:
        """Tend ``record`` from now on."""
        record.phase = Phase.LOADING
        record.known.clear()
        self._keep(f"tend {record.ns}/{record.id}", lambda: self._tend(record))

    def on_lost(self, record: Record) -> Callable[[], None]:
        """Return what the record's connection calls when it ends."""

        def lost() -> None:
            record.shim = None
            for process in record.processes.values():
                process.watched = False
            if record.phase in (Phase.LIVE, Phase.HUNG):
                self.begin(record)
            elif record.farewell is not None:
                self._parted(record)

        return lost

    def watch(self, record: Record, process: Process) -> None:
        """Ask the shim for the end of ``process``, once."""
        if process.watched or process.end is not None or record.shim is None:
            return

        def told(answer: asyncio.Future[bytes]) -> None:
            process.watched = False
            if answer.cancelled() or answer.exception() is not None:
                return  # the shim's event, its exit record or the aftermath will tell
            status, moment = ended(answer.result())
            process.finish(tasks.Exit(process.exec_id or record.id, process.pid, status, moment))

        with contextlib.suppress(errors.Unavailable):
            record.shim.wait(process.exec_id).add_done_callback(told)
            process.watched = True

    def part(self, record: Record) -> None:
        """See a shim off that was told to shut down: its connection ends with it (``on_lost``), or it is killed."""

        def force() -> None:
            if record.pidfd >= 0:
                LOG.warning("the shim of task %s/%s did not shut down; it is killed", record.ns, record.id)
                held.kill(record.pidfd)
            self._parted(record)

        record.farewell = asyncio.get_running_loop().call_later(FAREWELL_SECONDS, force)

    def _parted(self, record: Record) -> None:
        record.let_go()
        self._records.remove(record)

    async def _tend(self, record: Record) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(LOAD_SECONDS, _hangs, record)
        pause, until = FIRST_PAUSE, time.monotonic() + BIRTH_SECONDS
        try:
            while record.phase in (Phase.LOADING, Phase.HUNG):
                if await self._try(record, expected=time.monotonic() < until):
                    return
                await _pause(record, pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            timer.cancel()

    async def _try(self, record: Record, expected: bool) -> bool:
        """Tell whether the record was settled; ``expected`` says that a shim may still be about to appear."""
        try:
            if self._hold(record):
                await self._meet(record)
            elif record.born or not expected:
                await self._dead(record)
            else:
                return False
        except errors.Unavailable:
            return False
        except OSError as error:  # out of descriptors or disk: nothing is known by that, so nothing is done
            LOG.warning("task %s/%s: %s", record.ns, record.id, error)
            return False
        return True

    def _hold(self, record: Record) -> bool:
        """Tell whether the shim's process lives, holding it when it is first found."""
        if record.pidfd >= 0:
            return held.is_alive(record.pidfd)
        birth = record.bundle.read_record("shim.json")
        if birth is None:
            return False
        record.born = True
        pid, ticks = birth.get("pid"), birth.get("start_ticks")
        record.socket = record.bundle.read_text("address").removeprefix("unix://")
        record.pidfd = held.hold(pid, ticks) if isinstance(pid, int) and isinstance(ticks, int) else -1
        return record.pidfd >= 0

    async def _meet(self, record: Record) -> None:
        """Connect and ask for the state of every process.  Raises Unavailable when the connection cannot be had or breaks."""
        if not record.socket:
            raise errors.Unavailable("the shim has no socket yet")
        link = await connection.connect(record.socket, record.ns, self.on_lost(record))
        shim = Shim(link, record.id)
        known = {"", *record.processes, *record.bundle.exec_ids()}
        try:
            states = await asyncio.gather(*(_state(shim, exec_id) for exec_id in sorted(known)))
        except errors.PydockError as error:
            shim.close()
            raise errors.Unavailable(f"state of task {record.id}: {error}") from error
        found = {exec_id: state for exec_id, state in zip(sorted(known), states, strict=True) if state is not None}
        record.shim = shim
        if not found.get(""):
            await self._empty(record)
            return
        _take(record, found)
        record.settle(Phase.LIVE)
        for process in record.processes.values():
            if process.ended is not None:
                self.watch(record, process)

    async def _empty(self, record: Record) -> None:
        """A shim without a container, left by a creation or deletion that was cut off: the task does not exist."""
        LOG.warning("task %s/%s was cut off while it was made or deleted; it is removed", record.ns, record.id)
        record.phase = Phase.GONE
        if record.shim is not None:
            record.shim.say("Shutdown", now=True)
        if not await aftermath.ends(record.pidfd, BIRTH_SECONDS):
            held.kill(record.pidfd)
            await aftermath.ends(record.pidfd, BIRTH_SECONDS)
        await aftermath.clean(record.bundle)
        self._forget(record)

    async def _dead(self, record: Record) -> None:
        """The shim is gone: end what it left, or forget a task that never came to be."""
        if not record.born and not record.bundle.exit_records():
            await aftermath.clean(record.bundle)
            self._forget(record)
            return
        if not await aftermath.conclude(record, self._events):
            self._forget(record)

    def _forget(self, record: Record) -> None:
        record.let_go()
        record.settle(Phase.GONE)
        moment = time.time_ns()
        for process in record.processes.values():
            process.finish(tasks.Exit(process.exec_id or record.id, process.pid, aftermath.KILLED, moment))
        with contextlib.suppress(errors.FailedPrecondition):
            record.bundle.bury()
        self._records.remove(record)


async def sweep(sockets: Sequence[Path]) -> None:
    """Remove sockets that belong to no bundle: a shim behind one was never given a container and is told to end."""
    for path in sockets:
        try:
            link = await connection.connect(path, "")
        except errors.Unavailable:
            path.unlink(missing_ok=True)
            continue
        try:
            await Shim(link, "").call("Shutdown", now=True)
            path.unlink(missing_ok=True)
        except errors.PydockError as error:
            LOG.warning("a shim without a bundle at %s does not end: %s", path, error)
        finally:
            link.close()


async def _state(shim: Shim, exec_id: str) -> tasks.Process | None:
    """The state of one process, None when the shim knows none."""
    try:
        answer = await shim.call_within(None, "State", exec_id=exec_id)
    except errors.NotFound:
        return None
    stdio = tasks.Stdio(answer["stdin"], answer["stdout"], answer["stderr"], answer["terminal"])
    status = tasks.Status(answer["status"]) if answer["status"] in tasks.Status.__members__.values() else tasks.Status.UNKNOWN
    return tasks.Process(shim.id, exec_id, answer["pid"], status, stdio, answer["exit_status"], answer["exited_at"])


def _take(record: Record, found: dict[str, tasks.Process]) -> None:
    """Make the record's processes what the shim says they are."""
    for exec_id in [exec_id for exec_id in record.processes if exec_id not in found]:
        del record.processes[exec_id]
    for exec_id, state in found.items():
        process = record.processes.get(exec_id)
        if process is None:
            process = record.processes[exec_id] = Process(exec_id, state.stdio)
            process.born = 0
        process.stdio, process.pid = state.stdio, state.pid
        if state.status is tasks.Status.STOPPED:
            process.finish(tasks.Exit(exec_id or record.id, state.pid, state.exit_status, state.exited_at))
        elif process.end is None:
            process.status = state.status


def _hangs(record: Record) -> None:
    if record.phase is Phase.LOADING:
        LOG.warning("the shim of task %s/%s does not answer; its state is unknown until it does", record.ns, record.id)
        init = record.processes.get("")
        if init is not None and init.end is None:
            init.status = tasks.Status.UNKNOWN
        record.settle(Phase.HUNG)


async def _pause(record: Record, seconds: float) -> None:
    """Wait, but not beyond the end of the shim."""
    if record.pidfd >= 0:
        await aftermath.ends(record.pidfd, seconds)
    else:
        await asyncio.sleep(seconds)
