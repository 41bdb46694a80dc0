"""containerd.services.tasks.v1: what runs.

A task is made from the container record of its id; the runtime options are the request's, else the record's.  Task events are published
by the runtime.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf import empty_pb2

from pydock._proto.containerd.runc.v1 import options_pb2
from pydock._proto.containerd.services.tasks.v1 import tasks_pb2 as pb
from pydock._proto.containerd.types import metrics_pb2
from pydock._proto.containerd.v1.types import task_pb2
from pydock.base import errors, filters, names
from pydock.core import containers, mounts, plugin, tasks
from pydock.services import calls, codec, routing

RESTORE_ANNOTATION = "RestoreFromPath"  # on a checkpoint descriptor: a directory of this host to restore from


class Tasks:
    """Answers the Tasks service."""

    wire = pb.DESCRIPTOR.services_by_name["Tasks"]
    raw = frozenset[str]()

    def __init__(self, records: containers.Store, runtime: tasks.Runtime) -> None:
        self._records, self._runtime = records, runtime

    async def create(self, request: pb.CreateTaskRequest, call: calls.Call) -> pb.CreateTaskResponse:
        """Start a shim and create the container's init process."""
        record = await self._records.get(call.ns, request.container_id)
        options = codec.any_or_none(request.options)
        creation = tasks.Creation(
            container_id=request.container_id,
            rootfs=tuple(codec.decode(mounts.Mount, item) for item in request.rootfs),
            stdio=codec.decode(tasks.Stdio, request),
            checkpoint=_restored_from(request, options),
            options=options if options is not None and options.value else record.runtime_options,
            runtime_path=request.runtime_path,
        )
        pid = await self._runtime.create(call.ns, record, creation)
        return pb.CreateTaskResponse(container_id=request.container_id, pid=pid)

    async def start(self, request: pb.StartRequest, call: calls.Call) -> pb.StartResponse:
        """Start the init process, or an exec'd one."""
        return pb.StartResponse(pid=await self._runtime.start(call.ns, request.container_id, request.exec_id))

    async def delete(self, request: pb.DeleteTaskRequest, call: calls.Call) -> pb.DeleteResponse:
        """Remove a stopped task and its shim."""
        return _deleted(await self._runtime.delete(call.ns, request.container_id), "")

    async def delete_process(self, request: pb.DeleteProcessRequest, call: calls.Call) -> pb.DeleteResponse:
        """Remove an exec'd process that has ended."""
        done = await self._runtime.delete_process(call.ns, request.container_id, request.exec_id)
        return _deleted(done, request.exec_id)

    async def get(self, request: pb.GetRequest, call: calls.Call) -> pb.GetResponse:
        """Return the state of one process."""
        return pb.GetResponse(process=_process(await self._runtime.get(call.ns, request.container_id, request.exec_id)))

    async def list(self, _: pb.ListTasksRequest, call: calls.Call) -> pb.ListTasksResponse:
        """Return the state of every task; the request's filter has never been read by any server."""
        return pb.ListTasksResponse(tasks=[_process(item) for item in await self._runtime.list(call.ns)])

    async def kill(self, request: pb.KillRequest, call: calls.Call) -> empty_pb2.Empty:
        """Signal one process, or all of the container."""
        await self._runtime.kill(call.ns, request.container_id, request.exec_id, request.signal, request.all)
        return empty_pb2.Empty()

    async def exec(self, request: pb.ExecProcessRequest, call: calls.Call) -> empty_pb2.Empty:
        """Add a process to a running container; ``Start`` starts it."""
        if not request.exec_id:
            raise errors.InvalidArgument("exec id cannot be empty")
        added = tasks.Exec(names.identifier(request.exec_id), codec.any_of(request.spec), codec.decode(tasks.Stdio, request))
        await self._runtime.exec(call.ns, request.container_id, added)
        return empty_pb2.Empty()

    async def resize_pty(self, request: pb.ResizePtyRequest, call: calls.Call) -> empty_pb2.Empty:
        """Give a process's terminal a size in characters."""
        await self._runtime.resize(call.ns, request.container_id, request.exec_id, request.width, request.height)
        return empty_pb2.Empty()

    async def close_io(self, request: pb.CloseIORequest, call: calls.Call) -> empty_pb2.Empty:
        """Close a process's stdin; without ``stdin`` there is nothing to close."""
        if request.stdin:
            await self._runtime.close_stdin(call.ns, request.container_id, request.exec_id)
        return empty_pb2.Empty()

    async def pause(self, request: pb.PauseTaskRequest, call: calls.Call) -> empty_pb2.Empty:
        """Freeze all processes of a task."""
        await self._runtime.pause(call.ns, request.container_id)
        return empty_pb2.Empty()

    async def resume(self, request: pb.ResumeTaskRequest, call: calls.Call) -> empty_pb2.Empty:
        """Thaw them."""
        await self._runtime.resume(call.ns, request.container_id)
        return empty_pb2.Empty()

    async def list_pids(self, request: pb.ListPidsRequest, call: calls.Call) -> pb.ListPidsResponse:
        """Return the processes in a task, by the host's pids."""
        found = await self._runtime.pids(call.ns, request.container_id)
        return pb.ListPidsResponse(processes=[codec.encode(task_pb2.ProcessInfo, item) for item in found])

    async def checkpoint(self, request: pb.CheckpointTaskRequest, call: calls.Call) -> pb.CheckpointTaskResponse:
        """Write a task's state to the directory the options name; into content is not offered."""
        options = codec.any_or_none(request.options)
        path = _option(options, options_pb2.CheckpointOptions, "image_path")
        if not path:
            raise errors.Unimplemented("checkpoint without an image path")
        await self._runtime.checkpoint(call.ns, request.container_id, path, options)
        return pb.CheckpointTaskResponse()

    async def update(self, request: pb.UpdateTaskRequest, call: calls.Call) -> empty_pb2.Empty:
        """Change the limits of a running task."""
        await self._runtime.update(call.ns, request.container_id, codec.any_of(request.resources), dict(request.annotations))
        return empty_pb2.Empty()

    async def metrics(self, request: pb.MetricsRequest, call: calls.Call) -> pb.MetricsResponse:
        """Return the figures of the tasks that any of the filters matches; one without figures is left out."""
        wanted = filters.parse(request.filters)
        ids = [item.container_id for item in await self._runtime.list(call.ns)]
        picked = [id for id in ids if wanted.match(_fields(call.ns, id))]
        found = await self._runtime.metrics(call.ns, picked) if picked else ()
        return pb.MetricsResponse(metrics=[codec.encode(metrics_pb2.Metric, item) for item in found])

    async def wait(self, request: pb.WaitRequest, call: calls.Call) -> pb.WaitResponse:
        """Answer when a process has ended, at once when it has."""
        done = await self._runtime.wait(call.ns, request.container_id, request.exec_id)
        return pb.WaitResponse(exit_status=done.status, exited_at=codec.stamp(done.exited_at))


def _restored_from(request: pb.CreateTaskRequest, options: containers.Any | None) -> str:
    """Return the directory of a checkpoint to start from, "" for none. Raises Unimplemented for one in content."""
    path = request.checkpoint.annotations.get(RESTORE_ANNOTATION, "") or _option(options, options_pb2.Options, "criu_image_path")
    if not path and request.checkpoint.digest:
        raise errors.Unimplemented("restore from a checkpoint in content")
    return path


def _option(options: containers.Any | None, kind: type[options_pb2.Options | options_pb2.CheckpointOptions], field: str) -> str:
    """Return the text of a field of runc's options, "" when these are none."""
    if options is None or codec.type_name(options) != kind.DESCRIPTOR.full_name:
        return ""
    return str(getattr(codec.parse(kind, options), field))


def _fields(ns: str, id: str) -> filters.Adaptor:
    fields: dict[filters.Path, str] = {("id",): id, ("namespace",): ns}
    return lambda path: filters.text(fields.get(path, ""))


def _process(item: tasks.Process) -> task_pb2.Process:
    return task_pb2.Process(
        container_id=item.container_id,
        id=item.id or item.container_id,
        pid=item.pid,
        status=task_pb2.Status.ValueType(item.status),
        stdin=item.stdio.stdin,
        stdout=item.stdio.stdout,
        stderr=item.stdio.stderr,
        terminal=item.stdio.terminal,
        exit_status=item.exit_status,
        exited_at=codec.go_stamp(item.exited_at),
    )


def _deleted(done: tasks.Exit, exec_id: str) -> pb.DeleteResponse:
    return pb.DeleteResponse(id=exec_id, pid=done.pid, exit_status=done.status, exited_at=codec.go_stamp(done.exited_at))


@plugin.plugin("io.containerd.grpc.v1", "tasks")
async def service(records: containers.Store, runtime: tasks.Runtime) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Tasks service."""
    yield routing.Service(Tasks(records, runtime))
