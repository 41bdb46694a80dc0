"""Tasks over the wire: what reaches the runtime, and what comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, timestamp_pb2

from pydock._proto.containerd.runc.v1 import options_pb2
from pydock._proto.containerd.services.tasks.v1 import tasks_pb2 as pb
from pydock._proto.containerd.v1.types import task_pb2
from pydock.base import errors
from pydock.core import containers, mounts, tasks
from pydock.services import codec
from pydock.services import tasks as service

RECORD = containers.Container(
    "c1", runtime="io.containerd.runc.v2", runtime_options=containers.Any("containerd.runc.v1.Options", b"\x08\x01")
)

NEVER = timestamp_pb2.Timestamp(seconds=-62135596800)  # the zero time of Go, which containerd sends for what has not been


class Records:
    """Knows one container."""

    async def get(self, ns: str, id: str) -> containers.Container:
        if id != RECORD.id:
            raise errors.NotFound(f'container "{id}"')
        return RECORD


class Runtime:
    """Remembers every call by its name, and answers from ``answers``."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        async def method(*args: Any) -> Any:
            self.calls.append((name, *args))
            found = self.answers.get(name)
            if isinstance(found, Exception):
                raise found
            return found

        return method


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
async def client(dial: Any, runtime: Runtime) -> AsyncIterator[Any]:
    async with dial(service.Tasks(Records(), runtime)) as client:  # type: ignore[arg-type]
        yield client


async def test_create_hands_over_the_record_the_rootfs_and_the_stdio(client: Any, runtime: Runtime) -> None:
    runtime.answers["create"] = 77
    request = pb.CreateTaskRequest(container_id="c1", stdin="/f/0", stdout="/f/1", terminal=True, runtime_path="/bin/crun")
    request.rootfs.add(type="bind", source="/s", options=["rbind", "ro"])
    assert await client.Create(request) == pb.CreateTaskResponse(container_id="c1", pid=77)
    [(_, ns, record, creation)] = runtime.calls
    assert (ns, record) == ("default", RECORD)
    assert creation == tasks.Creation(
        "c1",
        (mounts.Mount("bind", "/s", "", ("rbind", "ro")),),
        tasks.Stdio("/f/0", "/f/1", "", True),
        options=RECORD.runtime_options,
        runtime_path="/bin/crun",
    )


async def test_options_of_the_request_win_over_those_of_the_record(client: Any, runtime: Runtime) -> None:
    runtime.answers["create"] = 1
    options = codec.pack(options_pb2.Options(binary_name="crun", criu_image_path="/var/ck"))
    await client.Create(pb.CreateTaskRequest(container_id="c1", options=codec.wire_any(options)))
    creation = runtime.calls[0][3]
    assert (creation.options, creation.checkpoint) == (options, "/var/ck")


async def test_create_without_a_record_is_not_found(client: Any, runtime: Runtime) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await client.Create(pb.CreateTaskRequest(container_id="no"))
    assert caught.value.details() == 'container "no": not found'
    assert runtime.calls == []


async def test_restoring_from_content_is_unimplemented(client: Any) -> None:
    request = pb.CreateTaskRequest(container_id="c1")
    request.checkpoint.digest = "sha256:" + "0" * 64
    with pytest.raises(grpc.RpcError) as caught:
        await client.Create(request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("method", "request_", "called"),
    [
        ("Kill", pb.KillRequest(container_id="c1", exec_id="e", signal=9, all=True), ("kill", "default", "c1", "e", 9, True)),
        ("ResizePty", pb.ResizePtyRequest(container_id="c1", width=80, height=24), ("resize", "default", "c1", "", 80, 24)),
        ("CloseIO", pb.CloseIORequest(container_id="c1", stdin=True), ("close_stdin", "default", "c1", "")),
        ("Pause", pb.PauseTaskRequest(container_id="c1"), ("pause", "default", "c1")),
        ("Resume", pb.ResumeTaskRequest(container_id="c1"), ("resume", "default", "c1")),
        (
            "Update",
            pb.UpdateTaskRequest(container_id="c1", resources=any_pb2.Any(type_url="t", value=b"v"), annotations={"a": "b"}),
            ("update", "default", "c1", containers.Any("t", b"v"), {"a": "b"}),
        ),
        (
            "Exec",
            pb.ExecProcessRequest(container_id="c1", exec_id="e", stdout="/f", spec=any_pb2.Any(type_url="t", value=b"{}")),
            ("exec", "default", "c1", tasks.Exec("e", containers.Any("t", b"{}"), tasks.Stdio(stdout="/f"))),
        ),
    ],
)
async def test_a_command_reaches_the_runtime(client: Any, runtime: Runtime, method: str, request_: Any, called: tuple[Any, ...]) -> None:
    await getattr(client, method)(request_)
    assert runtime.calls == [called]


async def test_closing_nothing_does_nothing(client: Any, runtime: Runtime) -> None:
    await client.CloseIO(pb.CloseIORequest(container_id="c1"))
    assert runtime.calls == []


@pytest.mark.parametrize("exec_id", ["", "../x", "a b"])
async def test_an_exec_id_out_of_its_grammar_is_refused(client: Any, runtime: Runtime, exec_id: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await client.Exec(pb.ExecProcessRequest(container_id="c1", exec_id=exec_id))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and runtime.calls == []


async def test_start_and_the_state_of_processes(client: Any, runtime: Runtime) -> None:
    runtime.answers["start"] = 5
    assert (await client.Start(pb.StartRequest(container_id="c1", exec_id="e"))).pid == 5
    init = tasks.Process("c1", "", 5, tasks.Status.RUNNING, tasks.Stdio("/i", "/o", "/e", True))
    ended = tasks.Process("c2", "", 6, tasks.Status.STOPPED, tasks.Stdio(), 137, 3_000_000_001)
    runtime.answers |= {"get": init, "list": [init, ended]}
    found = (await client.Get(pb.GetRequest(container_id="c1"))).process
    assert found == task_pb2.Process(
        container_id="c1", id="c1", pid=5, status=task_pb2.RUNNING, stdin="/i", stdout="/o", stderr="/e", terminal=True, exited_at=NEVER
    )
    listed = (await client.List(pb.ListTasksRequest())).tasks
    assert [(item.id, item.exit_status, item.exited_at.nanos) for item in listed] == [("c1", 0, 0), ("c2", 137, 1)]


async def test_how_a_process_ended_is_told_by_wait_and_by_both_deletes(client: Any, runtime: Runtime) -> None:
    done = tasks.Exit("c1", 5, 137, 3_000_000_001)
    runtime.answers |= {"wait": done, "delete": done, "delete_process": done}
    waited = await client.Wait(pb.WaitRequest(container_id="c1"))
    assert (waited.exit_status, waited.exited_at.seconds, waited.exited_at.nanos) == (137, 3, 1)
    deleted = await client.Delete(pb.DeleteTaskRequest(container_id="c1"))
    assert (deleted.id, deleted.pid, deleted.exit_status) == ("", 5, 137)
    assert (await client.DeleteProcess(pb.DeleteProcessRequest(container_id="c1", exec_id="e"))).id == "e"


async def test_metrics_are_asked_of_the_tasks_a_filter_picks(client: Any, runtime: Runtime) -> None:
    runtime.answers["list"] = [tasks.Process(id, "", 1, tasks.Status.RUNNING, tasks.Stdio()) for id in ("c1", "c2")]
    runtime.answers["metrics"] = [tasks.Metric("c2", 5, containers.Any("io.containerd.cgroups.v1.Metrics", b"m"))]
    found = (await client.Metrics(pb.MetricsRequest(filters=["id==c2"]))).metrics
    assert runtime.calls[-1] == ("metrics", "default", ["c2"])
    assert (found[0].id, found[0].timestamp.nanos, found[0].data.value) == ("c2", 5, b"m")
    assert len((await client.Metrics(pb.MetricsRequest(filters=["id==other"]))).metrics) == 0


async def test_pids_and_their_details(client: Any, runtime: Runtime) -> None:
    runtime.answers["pids"] = [tasks.PidInfo(1), tasks.PidInfo(2, containers.Any("t", b"x"))]
    found = (await client.ListPids(pb.ListPidsRequest(container_id="c1"))).processes
    assert [(item.pid, item.info.value) for item in found] == [(1, b""), (2, b"x")]


async def test_a_checkpoint_goes_to_the_directory_the_options_name(client: Any, runtime: Runtime) -> None:
    options = codec.pack(options_pb2.CheckpointOptions(image_path="/var/ck", exit=True))
    await client.Checkpoint(pb.CheckpointTaskRequest(container_id="c1", options=codec.wire_any(options)))
    assert runtime.calls == [("checkpoint", "default", "c1", "/var/ck", options)]
    with pytest.raises(grpc.RpcError) as caught:
        await client.Checkpoint(pb.CheckpointTaskRequest(container_id="c1"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
