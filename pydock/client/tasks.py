"""Tasks: the running side of containers, and processes executed in them.

Vocabulary: an empty exec id means the task's first process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf import any_pb2, empty_pb2

from pydock._proto.containerd.services.tasks.v1 import tasks_pb2 as api
from pydock._proto.containerd.types import metrics_pb2, mount_pb2
from pydock._proto.containerd.v1.types import task_pb2
from pydock.client import anys
from pydock.client.connection import Connection, Pending

_SERVICE = "/containerd.services.tasks.v1.Tasks"
STATES = {number: name for name, number in task_pb2.Status.items()}
CREATED = task_pb2.CREATED
RUNNING = task_pb2.RUNNING
STOPPED = task_pb2.STOPPED

Process = task_pb2.Process
ProcessInfo = task_pb2.ProcessInfo
Metric = metrics_pb2.Metric
WaitResponse = api.WaitResponse
DeleteResponse = api.DeleteResponse


@dataclass(frozen=True, slots=True)
class Stdio:
    """Where a process's streams go: FIFO paths or URIs, "" for nowhere."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


def create(conn: Connection, container: str, rootfs: Sequence[mount_pb2.Mount], stdio: Stdio, options: any_pb2.Any | None = None) -> int:
    """Make the task of a container; return the pid of its waiting first process. Raises AlreadyExists, NotFound."""
    request = api.CreateTaskRequest(
        container_id=container, rootfs=rootfs, stdin=stdio.stdin, stdout=stdio.stdout, stderr=stdio.stderr,
        terminal=stdio.terminal, options=options,
    )  # fmt: skip
    return conn.unary(f"{_SERVICE}/Create", request, api.CreateTaskResponse).pid


def start(conn: Connection, container: str, exec_id: str = "") -> int:
    """Let a created process go; return its pid."""
    return conn.unary(f"{_SERVICE}/Start", api.StartRequest(container_id=container, exec_id=exec_id), api.StartResponse).pid


def add_exec(conn: Connection, container: str, exec_id: str, process: object, stdio: Stdio) -> None:
    """Prepare one more process (a runtime spec "process" object) in a task. Raises AlreadyExists, NotFound."""
    request = api.ExecProcessRequest(
        container_id=container, exec_id=exec_id, spec=anys.pack_json(anys.PROCESS, process), stdin=stdio.stdin,
        stdout=stdio.stdout, stderr=stdio.stderr, terminal=stdio.terminal,
    )  # fmt: skip
    conn.unary(f"{_SERVICE}/Exec", request, empty_pb2.Empty)


def get(conn: Connection, container: str, exec_id: str = "") -> Process:
    """Return the state of a process. Raises NotFound."""
    return conn.unary(f"{_SERVICE}/Get", api.GetRequest(container_id=container, exec_id=exec_id), api.GetResponse).process


def listing(conn: Connection, filter: str = "") -> Sequence[Process]:
    """Return the first processes of all tasks."""
    return conn.unary(f"{_SERVICE}/List", api.ListTasksRequest(filter=filter), api.ListTasksResponse).tasks


def wait(conn: Connection, container: str, exec_id: str = "") -> Pending[WaitResponse]:
    """Begin to wait for a process's end."""
    return conn.begin(f"{_SERVICE}/Wait", api.WaitRequest(container_id=container, exec_id=exec_id), api.WaitResponse)


def begin_delete(conn: Connection, container: str, exec_id: str = "") -> Pending[DeleteResponse]:
    """Begin to forget an ended process, or with an empty exec id the task."""
    if exec_id:
        return conn.begin(f"{_SERVICE}/DeleteProcess", api.DeleteProcessRequest(container_id=container, exec_id=exec_id), DeleteResponse)
    return conn.begin(f"{_SERVICE}/Delete", api.DeleteTaskRequest(container_id=container), DeleteResponse)


def delete(conn: Connection, container: str, exec_id: str = "") -> DeleteResponse:
    """Do what `begin_delete` begins. Raises NotFound, FailedPrecondition while it runs."""
    return begin_delete(conn, container, exec_id).result()


def kill(conn: Connection, container: str, signal: int, exec_id: str = "", *, everyone: bool = False) -> None:
    """Send a signal to one process or to all of a task. Raises NotFound when it has ended."""
    request = api.KillRequest(container_id=container, exec_id=exec_id, signal=signal, all=everyone)
    conn.unary(f"{_SERVICE}/Kill", request, empty_pb2.Empty)


def resize(conn: Connection, container: str, columns: int, rows: int, exec_id: str = "") -> None:
    """Set the size of a process's terminal, in characters."""
    request = api.ResizePtyRequest(container_id=container, exec_id=exec_id, width=columns, height=rows)
    conn.unary(f"{_SERVICE}/ResizePty", request, empty_pb2.Empty)


def close_stdin(conn: Connection, container: str, exec_id: str = "") -> None:
    """Give a process the end of its input."""
    conn.unary(f"{_SERVICE}/CloseIO", api.CloseIORequest(container_id=container, exec_id=exec_id, stdin=True), empty_pb2.Empty)


def pause(conn: Connection, container: str) -> None:
    """Freeze a task."""
    conn.unary(f"{_SERVICE}/Pause", api.PauseTaskRequest(container_id=container), empty_pb2.Empty)


def resume(conn: Connection, container: str) -> None:
    """Let a frozen task go on."""
    conn.unary(f"{_SERVICE}/Resume", api.ResumeTaskRequest(container_id=container), empty_pb2.Empty)


def pids(conn: Connection, container: str) -> Sequence[ProcessInfo]:
    """Return all processes of a task."""
    return conn.unary(f"{_SERVICE}/ListPids", api.ListPidsRequest(container_id=container), api.ListPidsResponse).processes


def metrics(conn: Connection, filters: Iterable[str]) -> Sequence[Metric]:
    """Return the resource figures of the tasks that match any filter ("id==...")."""
    return conn.unary(f"{_SERVICE}/Metrics", api.MetricsRequest(filters=filters), api.MetricsResponse).metrics


def stdio(process: Process) -> Stdio:
    """Return where a process's streams go."""
    return Stdio(process.stdin, process.stdout, process.stderr, process.terminal)
