"""After a shim died: its container is ended, every process has one true end, what the runtime left is removed.

The ends: a process with an exit record has the status and time in it; any other was running and is killed, so its status is 137 and its
time now.  Killing and cleaning are the work of the shim package's ``delete`` command, a process of its own: it knows the OCI runtime,
finds the init by pid and start ticks and removes cgroups and state.  The daemon then publishes what the shim could not (execs before
the init) and keeps the record, stopped, until a client deletes it.
Invariant: nothing here is done while the shim's process lives: slow is not dead.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import time
from pathlib import Path

from pydock.core import tasks
from pydock_plugins.runtime import bundle as bundles
from pydock_plugins.runtime import held, intake, launcher
from pydock_plugins.runtime.records import Phase, Process, Record
from pydock_shim import wire

LOG = logging.getLogger(__name__)

KILLED = 137
CLEAN_SECONDS = 30.0
LARGEST_ANSWER = 4096


async def ends(pidfd: int, seconds: float) -> bool:
    """Wait for the held process to end; tell whether it did within ``seconds``."""
    if not held.is_alive(pidfd):
        return True
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    watched = os.dup(pidfd)  # an own number: the loop takes one reader per descriptor
    loop.add_reader(watched, _resolve, gone)
    try:
        async with asyncio.timeout(seconds):
            await gone
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(watched)
        os.close(watched)
    return True


def _resolve(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)


async def conclude(record: Record, events: intake.Intake) -> bool:
    """Bring the record of a dead shim to its end: DEAD, all processes stopped, events published.  False when it never had a process.

    May be called again after it failed (OSError): what is done stays done.
    """
    LOG.warning("the shim of task %s/%s died", record.ns, record.id)
    record.let_go()
    read_ends(record)
    kill_init(record.bundle)
    pid = await clean(record.bundle)
    init = record.processes.get("")
    if init is not None and init.pid == 0:
        init.pid = pid
    if all(process.pid == 0 for process in record.processes.values()):
        return False
    moment = time.time_ns()
    for process in intake.ends_in_order(record):
        if process.end is None:
            end = tasks.Exit(process.exec_id or record.id, process.pid, KILLED, moment)
            if process.pid:
                write_end(record, process, end)
            process.finish(end)
    record.settle(Phase.DEAD)
    await events.opened()
    for process in intake.ends_in_order(record):
        if process.end is not None and process.pid and record.phase is Phase.DEAD:
            events.exit(record, process, process.end)
    return True


def read_ends(record: Record) -> None:
    """Take the ends the shim wrote down; processes nobody knew of appear with them."""
    for found in record.bundle.exit_records():
        exec_id = found.get("exec_id") or ""
        pid, status, moment = (found.get(name) for name in ("pid", "status", "exited_at_ns"))
        if not (isinstance(exec_id, str) and isinstance(pid, int) and isinstance(status, int) and isinstance(moment, int)):
            continue
        process = record.processes.get(exec_id)
        if process is None:
            process = record.processes[exec_id] = Process(exec_id, tasks.Stdio(), pid=pid)
        if process.pid in (0, pid):
            process.finish(tasks.Exit(exec_id or record.id, pid, status, moment))


def kill_init(bundle: bundles.Bundle) -> None:
    """Kill the init the shim wrote down, if it is still that process; the rest is for ``clean``, which takes longer and may fail."""
    init = bundle.read_record("init.json") or {}
    pid, ticks = init.get("pid"), init.get("start_ticks")
    pidfd = held.hold(pid, ticks) if isinstance(pid, int) and isinstance(ticks, int) else -1
    if pidfd >= 0:
        held.kill(pidfd)
        os.close(pidfd)


def write_end(record: Record, process: Process, end: tasks.Exit) -> None:
    """Write an exit record as the shim would have, so that the next daemon knows the end too."""
    found = {
        "id": record.id,
        "exec_id": process.exec_id,
        "pid": end.pid,
        "start_ticks": 0,
        "status": end.status,
        "exited_at_ns": end.exited_at,
        "oom": False,
        "reason": "shim-died",
    }
    name = bundles.exit_name(process.exec_id)
    with tempfile.NamedTemporaryFile(dir=record.bundle.path, delete=False) as stream:
        stream.write(json.dumps(found).encode())
    Path(stream.name).rename(record.bundle.path / name)


async def clean(bundle: bundles.Bundle) -> int:
    """Kill what is left of the container and remove its cgroups and runtime state; returns the pid its init had, 0 when unknown.

    A failure is logged and the record goes on: whoever deletes the task must not be held up by what cannot be helped.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        words = ("-namespace", bundle.ns, "-id", bundle.id, "-bundle", str(bundle.path), "delete")
        pid, pidfd = held.spawn(launcher.command(*words), {1: writer})
        os.close(writer)
        writer = -1
        try:
            if not await ends(pidfd, CLEAN_SECONDS):
                held.end(pidfd)
                LOG.error("cleaning up after task %s/%s took more than %.0f s", bundle.ns, bundle.id, CLEAN_SECONDS)
                return 0
            if code := held.reap(pidfd):
                LOG.error("cleaning up after task %s/%s failed: exit status %d (process %d)", bundle.ns, bundle.id, code, pid)
                return 0
            return _init_pid(reader)
        finally:
            os.close(pidfd)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def _init_pid(reader: int) -> int:
    """The pid in the DeleteResponse that the command printed."""
    try:
        answer = wire.decode(wire.TASK_METHODS["Delete"][1], os.read(reader, LARGEST_ANSWER))
    except (BlockingIOError, ValueError):
        return 0
    return int(answer["pid"])
