"""The runtime: every verb on tasks, answered from the records where they are true, by the shim where only it knows.

Invariants: one hung shim delays only the calls that name its task (List, Get and Metrics never wait for more than a bound, all shims
being asked at once); an id is free when its delete has been answered; what the shim was asked to change is noted also when
the client leaves before it has answered; errors are worded as containerd words them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

from pydock.base import errors, groups, names
from pydock.base.failpoint import failpoint
from pydock.core import containers, tasks
from pydock_plugins.runtime import aftermath, intake, warmth
from pydock_plugins.runtime.birth import Birth
from pydock_plugins.runtime.records import Phase, Process, Record
from pydock_plugins.runtime.registry import Parts
from pydock_plugins.runtime.shim import Shim, packed, stdio_fields
from pydock_plugins.runtime.tending import Tending
from pydock_shim import wire

METRICS_SECONDS = 2.0
LIST_SECONDS = 1.0  # for shims that have not answered since the daemon's start; their tasks are listed as UNKNOWN then


class Manager:
    """Implements ``tasks.Runtime``."""

    def __init__(self, parts: Parts, events: intake.Intake, tending: Tending) -> None:
        self._parts = parts
        self._records = parts.records
        self._events = events
        self._tending = tending
        self._warmth = warmth.Warmth()
        self._birth = Birth(parts, tending, self._warmth)

    # a task's life

    async def create(self, ns: str, container: containers.Container, request: tasks.Creation) -> int:
        """Start a shim and create the init process; returns its pid.  AlreadyExists ``task <id>``."""
        _, pid = await self._birth.create(ns, container, request)
        return pid

    async def start(self, ns: str, id: str, exec_id: str = "") -> int:
        """Let a created process run; returns its pid."""
        record = await self._known(ns, id)
        return await groups.finish(self._start(record, self._process(record, exec_id), exec_id))

    async def _start(self, record: Record, process: Process, exec_id: str) -> int:
        failpoint("task.start")
        with self._warmth.kept() if exec_id else contextlib.nullcontext():  # an init is in its cgroup already
            answer = await self._shim(record).call("Start", exec_id=exec_id)
        failpoint("task.started")
        process.started(answer["pid"])
        return process.pid

    async def delete(self, ns: str, id: str) -> tasks.Exit:
        """Remove a task whose init has ended or never ran, its shim and its bundle.  FailedPrecondition while it runs."""
        return await groups.finish(self._delete(await self._known(ns, id)))

    async def _delete(self, record: Record) -> tasks.Exit:
        async with record.lock:
            if record.phase is Phase.GONE:
                raise errors.NotFound(f"task {record.id} not found")
            failpoint("task.delete")
            end = await self._delete_init(record)
            failpoint("task.deleted")
            for process in record.processes.values():
                process.finish(tasks.Exit(process.exec_id or record.id, process.pid, end.status, end.exited_at))
            self._leave(record)
        return end

    async def delete_process(self, ns: str, id: str, exec_id: str) -> tasks.Exit:
        """Remove an exec that has ended or never ran."""
        record = await self._known(ns, id)
        return await groups.finish(self._delete_process(record, self._process(record, exec_id), exec_id))

    async def _delete_process(self, record: Record, process: Process, exec_id: str) -> tasks.Exit:
        answer = await self._ask_to_delete(record, exec_id)
        if answer is None:
            end = process.end or tasks.Exit(exec_id, process.pid, aftermath.KILLED, time.time_ns())
        else:
            end = tasks.Exit(exec_id, answer["pid"], answer["exit_status"], answer["exited_at"])
        process.finish(end)
        if record.processes.get(exec_id) is process:
            del record.processes[exec_id]
        return end

    async def exec(self, ns: str, id: str, request: tasks.Exec) -> None:
        """Add a process to a task; it runs when started.  AlreadyExists ``id <exec id>``."""
        record = await self._known(ns, id)
        exec_id = names.identifier(request.exec_id)
        shim = self._shim(record)
        if exec_id in record.processes:
            raise errors.AlreadyExists(f"id {exec_id}")
        process = record.processes[exec_id] = Process(exec_id, request.stdio)
        self._warmth.stir()
        await groups.finish(self._exec(record, shim, process, request))

    async def _exec(self, record: Record, shim: Shim, process: Process, request: tasks.Exec) -> None:
        exec_id, made = process.exec_id, False
        try:
            failpoint("task.exec")
            await shim.call("Exec", exec_id=exec_id, spec=packed(request.spec), **stdio_fields(request.stdio))
            failpoint("task.execed")
            made = True
        finally:
            if not made and record.processes.get(exec_id) is process:
                del record.processes[exec_id]

    # what is known

    async def get(self, ns: str, id: str, exec_id: str = "") -> tasks.Process:
        """Return the state of a process; its status is UNKNOWN while its shim hangs."""
        record = await self._known(ns, id)
        return self._process(record, exec_id).view(id, exec_id)

    async def list(self, ns: str) -> Sequence[tasks.Process]:
        """Return the init process of every task."""
        records = self._records.of(ns)
        if not all(record.known.is_set() for record in records):
            await _known_soon(records)
        return [record.processes[""].view(record.id, "") for record in records if record.visible and "" in record.processes]

    async def wait(self, ns: str, id: str, exec_id: str = "") -> tasks.Exit:
        """Return how a process ended, when it has."""
        record = await self._known(ns, id)
        process = self._process(record, exec_id)
        self._tending.watch(record, process)
        return await process.wait()

    # what the shim does

    async def kill(self, ns: str, id: str, exec_id: str, signal: int, all: bool = False) -> None:
        """Signal a process.  NotFound ``process already finished`` when there is nothing left to signal."""
        record = await self._known(ns, id)
        self._process(record, exec_id)
        if record.phase is Phase.DEAD:
            raise errors.NotFound("process already finished")
        failpoint("task.kill")
        await self._shim(record).call("Kill", exec_id=exec_id, signal=signal, all=all)
        failpoint("task.killed")

    async def resize(self, ns: str, id: str, exec_id: str, width: int, height: int) -> None:
        """Tell a terminal its size, in characters."""
        record = await self._known(ns, id)
        await self._shim(record).call("ResizePty", exec_id=exec_id, width=width, height=height)

    async def close_stdin(self, ns: str, id: str, exec_id: str) -> None:
        """Close the shim's end of a process's stdin."""
        record = await self._known(ns, id)
        await self._shim(record).call("CloseIO", exec_id=exec_id, stdin=True)

    async def pause(self, ns: str, id: str) -> None:
        """Freeze every process of a task."""
        await self._freeze(ns, id, "Pause", tasks.Status.PAUSED)

    async def resume(self, ns: str, id: str) -> None:
        """Let a frozen task go on."""
        await self._freeze(ns, id, "Resume", tasks.Status.RUNNING)

    async def pids(self, ns: str, id: str) -> Sequence[tasks.PidInfo]:
        """Return every process in the container, also those nobody exec'd."""
        record = await self._known(ns, id)
        return await self._shim(record).pids()

    async def checkpoint(self, ns: str, id: str, path: str, options: containers.Any | None) -> None:
        """Write the task's state to ``path``."""
        record = await self._known(ns, id)
        await self._shim(record).call("Checkpoint", path=path, options=packed(options))

    async def update(self, ns: str, id: str, resources: containers.Any, annotations: Mapping[str, str]) -> None:
        """Change the cgroup limits of a task."""
        record = await self._known(ns, id)
        await self._shim(record).call("Update", resources=packed(resources), annotations=dict(annotations))

    async def metrics(self, ns: str, ids: Sequence[str]) -> Sequence[tasks.Metric]:
        """Return the figures of the tasks named (of all when none is), as far as their shims answer in time."""
        wanted = set(ids)
        records = [record for record in self._records.of(ns) if record.shim is not None and (not wanted or record.id in wanted)]
        found = await asyncio.gather(*(self._metric(record) for record in records))
        return [metric for metric in found if metric is not None]

    # parts of the above

    async def _known(self, ns: str, id: str) -> Record:
        """The record, once it is known how its shim is; a bounded wait after a daemon start."""
        record = self._records.find(ns, id)
        if not record.known.is_set():
            await record.known.wait()
            record = self._records.find(ns, id)
        return record

    def _process(self, record: Record, exec_id: str) -> Process:
        process = record.processes.get(exec_id)
        if process is None:
            if record.phase is Phase.HUNG:
                raise errors.Unavailable(f"the shim of task {record.id} does not answer")
            raise errors.NotFound(f"process does not exist {exec_id}" if exec_id else f"task {record.id} not found")
        return process

    def _shim(self, record: Record) -> Shim:
        if record.phase is Phase.DEAD:
            raise errors.FailedPrecondition(f"task {record.id} has stopped and its shim is gone")
        if record.shim is None:
            raise errors.Unavailable(f"the shim of task {record.id} does not answer")
        return record.shim

    async def _delete_init(self, record: Record) -> tasks.Exit:
        init = self._process(record, "")
        answer = await self._ask_to_delete(record, "")
        if answer is None:
            end = init.end or tasks.Exit(record.id, init.pid, aftermath.KILLED, time.time_ns())
            self._events.deleted(record, end)
            return end
        return tasks.Exit(record.id, answer["pid"], answer["exit_status"], answer["exited_at"])

    async def _ask_to_delete(self, record: Record, exec_id: str) -> wire.Message | None:
        """The shim's answer to Delete; None when it is dead, or dies under the call: there is nothing left to ask then."""
        for last in (False, True):
            if record.phase is Phase.DEAD:
                return None
            try:
                return await self._shim(record).call("Delete", exec_id=exec_id)
            except errors.Unavailable:
                if last or record.known.is_set():
                    raise
                await record.known.wait()
        return None

    def _leave(self, record: Record) -> None:
        """Forget a deleted task; its shim ends by itself, or by force when it does not, and then the id is free."""
        record.phase = Phase.GONE
        if record.shim is not None and record.shim.alive:
            record.shim.say("Shutdown", now=True)
            self._tending.part(record)
        else:
            record.let_go()
            self._records.remove(record)
        failpoint("task.parted")
        record.bundle.bury()
        failpoint("task.buried")

    async def _freeze(self, ns: str, id: str, method: str, status: tasks.Status) -> None:
        record = await self._known(ns, id)
        await self._shim(record).call(method)
        init = record.processes.get("")
        if init is not None and init.end is None:
            init.status = status

    async def _metric(self, record: Record) -> tasks.Metric | None:
        if record.shim is None:
            return None
        try:
            data = await record.shim.stats(METRICS_SECONDS)
        except errors.PydockError:
            return None
        return tasks.Metric(record.id, time.time_ns(), data) if data is not None else None


async def _known_soon(records: Sequence[Record]) -> None:
    """Wait, for a moment at most, until it is known how the shims of ``records`` are."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LIST_SECONDS):
            for record in records:
                await record.known.wait()
