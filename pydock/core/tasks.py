"""Tasks: the running side of a container, and the processes in it.

Statuses are numbered as on the wire (containerd.v1.types.Status).  A process is (namespace, container id, exec id); exec id "" is the init.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydock.core import containers, mounts


class Status(enum.IntEnum):
    UNKNOWN = 0
    CREATED = 1
    RUNNING = 2
    STOPPED = 3
    PAUSED = 4
    PAUSING = 5


@dataclass(frozen=True, slots=True)
class Stdio:
    """Paths or log URIs of a process's streams ("" = /dev/null)."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """State of one process; ``exited_at`` in ns since the epoch, 0 while it lives."""

    container_id: str
    id: str
    pid: int
    status: Status
    stdio: Stdio
    exit_status: int = 0
    exited_at: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: 128+n for signal n; ns since the epoch."""

    id: str
    pid: int
    status: int
    exited_at: int


@dataclass(frozen=True, slots=True)
class Creation:
    """What `Runtime.create` needs of a client."""

    container_id: str
    rootfs: Sequence[mounts.Mount] = ()
    stdio: Stdio = Stdio()
    checkpoint: str = ""
    options: containers.Any | None = None
    runtime_path: str = ""


@dataclass(frozen=True, slots=True)
class PidInfo:
    pid: int
    info: containers.Any | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """cgroup figures of a task, packed as io.containerd.cgroups.v1.Metrics or v2.Metrics."""

    id: str
    timestamp: int
    data: containers.Any


@dataclass(frozen=True, slots=True)
class Exec:
    """A further process: ``spec`` is a packed OCI runtime-spec Process (JSON)."""

    exec_id: str
    spec: containers.Any
    stdio: Stdio = field(default_factory=Stdio)


class Runtime(Protocol):
    """Runs tasks under shims.  NotFound carries ``task <id> not found``, or ``process does not exist <exec id>``."""

    async def create(self, ns: str, container: containers.Container, request: Creation) -> int:
        """Start a shim and create the init process; returns its pid.  AlreadyExists ``task <id>``."""

    async def start(self, ns: str, id: str, exec_id: str = "") -> int: ...
    async def delete(self, ns: str, id: str) -> Exit: ...
    async def delete_process(self, ns: str, id: str, exec_id: str) -> Exit: ...
    async def get(self, ns: str, id: str, exec_id: str = "") -> Process: ...
    async def list(self, ns: str) -> Sequence[Process]: ...
    async def kill(self, ns: str, id: str, exec_id: str, signal: int, all: bool = False) -> None: ...
    async def exec(self, ns: str, id: str, request: Exec) -> None: ...
    async def resize(self, ns: str, id: str, exec_id: str, width: int, height: int) -> None: ...
    async def close_stdin(self, ns: str, id: str, exec_id: str) -> None: ...
    async def pause(self, ns: str, id: str) -> None: ...
    async def resume(self, ns: str, id: str) -> None: ...
    async def pids(self, ns: str, id: str) -> Sequence[PidInfo]: ...
    async def checkpoint(self, ns: str, id: str, path: str, options: containers.Any | None) -> None: ...
    async def update(self, ns: str, id: str, resources: containers.Any, annotations: Mapping[str, str]) -> None: ...
    async def metrics(self, ns: str, ids: Sequence[str]) -> Sequence[Metric]: ...
    async def wait(self, ns: str, id: str, exec_id: str = "") -> Exit: ...


@dataclass(frozen=True, slots=True)
class RuntimeVersion:
    version: str
    revision: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What a runtime says of itself; ``features`` is a packed OCI runtime-spec Features (JSON), ``options`` its options' type."""

    name: str
    version: RuntimeVersion | None = None
    options: containers.Any | None = None
    features: containers.Any | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


class Inspector(Protocol):
    """Asks a runtime (``path``: a runtime name or binary, "" the default one) what it can."""

    async def inspect(self, path: str, options: containers.Any | None) -> RuntimeInfo: ...
