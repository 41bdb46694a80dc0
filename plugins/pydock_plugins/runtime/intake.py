"""Events that shims forward: each updates the record it is about and goes to the exchange, an exit exactly once.

Invariants: the order of one shim's events is kept; what is forwarded is what the shim stamped; an exit that was published before is
acknowledged and dropped (``exits`` says how and why).

Who listened to the last daemon needs a moment to come back to this one.  So what happened before this daemon was there is published
``GRACE_SECONDS`` after its start: shims that come with such events are told Unavailable until then, and come again.
"""

from __future__ import annotations

import asyncio
import time

from pydock.base import errors
from pydock.base.failpoint import failpoint
from pydock.core import containers, events, tasks
from pydock_plugins.runtime import server
from pydock_plugins.runtime.records import Phase, Process, Record
from pydock_plugins.runtime.registry import Registry
from pydock_shim import wire

FORWARD = "containerd.services.events.ttrpc.v1.ForwardRequest"
TOPICS = {
    "containerd.events.TaskExit": "/tasks/exit",
    "containerd.events.TaskDelete": "/tasks/delete",
}
EXIT, PAUSED, RESUMED = "containerd.events.TaskExit", "containerd.events.TaskPaused", "containerd.events.TaskResumed"
LARGEST_EVENT = 1 << 20
GRACE_SECONDS = 1.0


class Intake:
    """Where events of shims come in, and where the daemon speaks for a shim that cannot."""

    def __init__(self, records: Registry, exchange: events.Exchange) -> None:
        self._records = records
        self._exchange = exchange
        self._began = time.time_ns()
        self._opens = time.monotonic() + GRACE_SECONDS

    def handlers(self) -> server.Handlers:
        """Return what the ttrpc socket serves."""
        return {(wire.EVENTS_SERVICE, "Forward"): self.forward}

    def forward(self, payload: bytes) -> bytes:
        """Take one ForwardRequest.  Raises InvalidArgument for a malformed one."""
        if len(payload) > LARGEST_EVENT:
            raise errors.ResourceExhausted(f"an event of {len(payload)} bytes; {LARGEST_EVENT} are allowed")
        try:
            envelope = wire.decode(FORWARD, payload)["envelope"]
        except ValueError as error:
            raise errors.InvalidArgument(f"event: {error}") from None
        if envelope is None or envelope["event"] is None:
            raise errors.InvalidArgument("an event without envelope")
        packed = containers.Any(envelope["event"]["type_url"], envelope["event"]["value"])
        if envelope["timestamp"] < self._began and self._left() > 0:
            raise errors.Unavailable("those who listen are not back yet; send it again")
        self._take(events.Envelope(envelope["timestamp"], envelope["namespace"], envelope["topic"], packed))
        return b""

    async def opened(self) -> None:
        """Wait until what happened before this daemon's start may be published."""
        if (left := self._left()) > 0:
            await asyncio.sleep(left)

    def exit(self, record: Record, process: Process, end: tasks.Exit) -> None:
        """Publish the end of a process whose shim is gone, unless it was published."""
        fields = {
            "container_id": record.id,
            "id": process.exec_id or record.id,
            "pid": end.pid,
            "exit_status": end.status,
            "exited_at": end.exited_at,
        }
        process.finish(end)
        self._publish_exit(record, (process.exec_id, end.pid, end.exited_at), _envelope(record, EXIT, fields))

    def deleted(self, record: Record, end: tasks.Exit) -> None:
        """Publish the deletion of a task whose shim is gone, after the ends of its processes."""
        for process in ends_in_order(record):
            if process.end is not None and process.pid:
                self.exit(record, process, process.end)
        fields = {"container_id": record.id, "pid": end.pid, "exit_status": end.status, "exited_at": end.exited_at, "id": ""}
        self._exchange.forward(_envelope(record, "containerd.events.TaskDelete", fields))

    def _left(self) -> float:
        return self._opens - time.monotonic()

    def _take(self, envelope: events.Envelope) -> None:
        kind = envelope.event.type_url.rpartition("/")[2]
        if kind == EXIT:
            self._take_exit(envelope)
            return
        if kind in (PAUSED, RESUMED):
            self._take_pause(envelope, kind)
        self._exchange.forward(envelope)

    def _take_exit(self, envelope: events.Envelope) -> None:
        fields = _fields(envelope, EXIT)
        record = self._records.get(envelope.namespace, fields["container_id"])
        if record is None:
            self._exchange.forward(envelope)
            return
        end = tasks.Exit(fields["id"], fields["pid"], fields["exit_status"], fields["exited_at"])
        process = _which(record, end)
        if process is not None:
            process.finish(end)
        exec_id = process.exec_id if process is not None else "" if end.id == record.id else end.id
        self._publish_exit(record, (exec_id, end.pid, end.exited_at), envelope)

    def _publish_exit(self, record: Record, key: tuple[str, int, int], envelope: events.Envelope) -> None:
        if key in record.published:
            return
        self._exchange.forward(envelope)
        failpoint("exit.published")
        if record.phase is not Phase.GONE:
            record.published.add(key)

    def _take_pause(self, envelope: events.Envelope, kind: str) -> None:
        record = self._records.get(envelope.namespace, _fields(envelope, kind)["container_id"])
        init = record.processes.get("") if record is not None else None
        if init is not None and init.end is None and init.status in (tasks.Status.RUNNING, tasks.Status.PAUSED, tasks.Status.PAUSING):
            init.status = tasks.Status.PAUSED if kind == PAUSED else tasks.Status.RUNNING


def ends_in_order(record: Record) -> list[Process]:
    """Return the processes in the order their ends are told: every exec before the init."""
    return sorted(record.processes.values(), key=lambda process: process.exec_id == "")


def _which(record: Record, end: tasks.Exit) -> Process | None:
    """The process that ended: the exec of that id if its pid agrees, the init when the container's own id is named."""
    process = record.processes.get(end.id)
    if process is not None and process.pid in (0, end.pid):
        return process if end.exited_at >= process.born or process.pid == end.pid else None
    init = record.processes.get("")
    if end.id in (record.id, "") and init is not None and init.pid in (0, end.pid):
        return init
    return None


def _fields(envelope: events.Envelope, kind: str) -> wire.Message:
    try:
        return wire.decode(kind, envelope.event.value)
    except ValueError as error:
        raise errors.InvalidArgument(f"event: {error}") from None


def _envelope(record: Record, kind: str, fields: wire.Message) -> events.Envelope:
    packed = containers.Any(kind, wire.encode(kind, fields))
    return events.Envelope(time.time_ns(), record.ns, TOPICS[kind], packed)
