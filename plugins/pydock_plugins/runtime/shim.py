"""The Task service of one shim, typed: every method with its time bound.

Vocabulary: *bounds* are seconds after which a call is given up (the shim may hang, be stopped or wait for a disk); ``None`` waits for
ever, which only Wait does.
Errors: what the shim answers, DeadlineExceeded past the bound, Unavailable when the connection is gone, Internal for an answer that is
no message.
Source: containerd.task.v2 and v3, whose messages are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydock.base import errors
from pydock.core import containers, tasks
from pydock_plugins.runtime import connection
from pydock_shim import wire

SERVICE = "containerd.task.v3.Task"

BOUNDS: dict[str, float | None] = {
    "Create": 120.0,
    "Start": 60.0,
    "Exec": 30.0,
    "Delete": 30.0,
    "Checkpoint": 600.0,
    "Pause": 30.0,
    "Resume": 30.0,
    "Update": 30.0,
    "Kill": 10.0,
    "Pids": 10.0,
    "ResizePty": 10.0,
    "CloseIO": 10.0,
    "State": 10.0,
    "Stats": 5.0,
    "Connect": 5.0,
    "Shutdown": 3.0,
    "Wait": None,
}


class Shim:
    """A connection to a shim and the container id its calls name."""

    def __init__(self, link: connection.Connection, id: str, service: str = SERVICE) -> None:
        self._link = link
        self.id = id
        self._service = service

    @property
    def alive(self) -> bool:
        """Tell whether calls can be made."""
        return self._link.alive

    def close(self) -> None:
        """Close the connection without anybody being told."""
        self._link.close()

    async def call(self, method: str, **fields: object) -> wire.Message:
        """Call ``method`` within its bound and return the answer's fields."""
        return await self.call_within(BOUNDS[method], method, **fields)

    async def call_within(self, seconds: float | None, method: str, **fields: object) -> wire.Message:
        """As ``call`` with a bound of the caller's."""
        request, response = wire.TASK_METHODS[method]
        payload = wire.encode(request, {"id": self.id, **fields})
        return decode(response, await self._link.call(self._service, method, payload, seconds))

    def wait(self, exec_id: str) -> asyncio.Future[bytes]:
        """Ask for the end of a process; the future's bytes are for ``ended``."""
        request, _ = wire.TASK_METHODS["Wait"]
        return self._link.request(self._service, "Wait", wire.encode(request, {"id": self.id, "exec_id": exec_id}))

    def say(self, method: str, **fields: object) -> None:
        """Send a call whose answer nobody needs."""
        request, _ = wire.TASK_METHODS[method]
        future = self._link.request(self._service, method, wire.encode(request, {"id": self.id, **fields}))
        future.add_done_callback(_ignore)

    async def create(self, bundle: str, request: tasks.Creation, options: containers.Any | None) -> int:
        """Create the init process; returns its pid."""
        rootfs = [
            {"type": mount.type, "source": mount.source, "target": mount.target, "options": list(mount.options)} for mount in request.rootfs
        ]
        answer = await self.call(
            "Create",
            bundle=bundle,
            rootfs=rootfs,
            checkpoint=request.checkpoint,
            options=packed(options),
            **stdio_fields(request.stdio),
        )
        return int(answer["pid"])

    async def pids(self) -> Sequence[tasks.PidInfo]:
        """Return every process in the container."""
        answer = await self.call("Pids")
        return [tasks.PidInfo(item["pid"], unpacked(item["info"])) for item in answer["processes"]]

    async def stats(self, seconds: float) -> containers.Any | None:
        """Return the packed cgroup figures."""
        return unpacked((await self.call_within(seconds, "Stats"))["stats"])


def decode(message: str, data: bytes) -> wire.Message:
    """Return the fields of an answer.  Raises Internal when it is no such message."""
    try:
        return wire.decode(message, data)
    except ValueError as error:
        raise errors.Internal(f"the shim's answer is no {message}: {error}") from None


def ended(data: bytes) -> tuple[int, int]:
    """Return (status, time in ns) of a Wait answer."""
    answer = decode(wire.TASK_METHODS["Wait"][1], data)
    return answer["exit_status"], answer["exited_at"]


def stdio_fields(stdio: tasks.Stdio) -> dict[str, object]:
    """Return the four fields that name a process's streams."""
    return {"stdin": stdio.stdin, "stdout": stdio.stdout, "stderr": stdio.stderr, "terminal": stdio.terminal}


def packed(value: containers.Any | None) -> wire.Message | None:
    """Return an Any as the wire takes it."""
    return {"type_url": value.type_url, "value": value.value} if value is not None else None


def unpacked(value: wire.Message | None) -> containers.Any | None:
    """Return an Any as the rest of pydock knows it."""
    return containers.Any(value["type_url"], value["value"]) if value is not None else None


def _ignore(future: asyncio.Future[bytes]) -> None:
    if not future.cancelled():
        future.exception()
