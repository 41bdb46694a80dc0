"""Containers' figures: names, and shims that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import prometheus_client
import pytest

from pydock._proto.containerd.services.version.v1 import version_pb2
from pydock._proto.io.containerd.cgroups.v1 import metrics_pb2 as v1
from pydock._proto.io.containerd.cgroups.v2 import metrics_pb2 as v2
from pydock.base import errors
from pydock.core import containers, tasks
from pydock.services import codec, front, routing
from pydock.services.metrics import calls, cgroups
from pydock.services.metrics import tasks as task_metrics


def _named(data: containers.Any) -> dict[tuple[str, ...], float]:
    return {(item.name, *item.labels.values()): item.value for item in cgroups.figures(data)}


def test_version_2_has_containerds_names() -> None:
    message = v2.Metrics()
    message.pids.current, message.pids.limit = 3, 10
    message.cpu.usage_usec = 77
    message.memory.usage, message.memory.pgfault = 4096, 5
    message.memory_events.oom = 2
    message.io.usage.add(major=8, minor=1, rbytes=512, wios=4)
    found = _named(codec.pack(message))
    assert found["container_pids_current",] == 3
    assert found["container_pids_limit",] == 10
    assert found["container_cpu_usage_usec_microseconds",] == 77
    assert found["container_memory_usage_bytes",] == 4096
    assert found["container_memory_pgfault_bytes",] == 5
    assert found["container_memory_oom_total",] == 2
    assert found["container_io_rbytes_bytes", "8", "1"] == 512
    assert found["container_io_wios_total", "8", "1"] == 4


def test_version_1_has_containerds_names() -> None:
    message = v1.Metrics()
    message.cpu.usage.total = 10
    message.cpu.usage.per_cpu.extend([4, 6])
    message.cpu.throttling.throttled_time = 9
    message.memory.usage.usage, message.memory.kernel_tcp.failcnt = 4096, 1
    message.memory.total_pg_maj_fault = 12
    message.blkio.io_service_bytes_recursive.add(op="Read", device="sda", major=8, minor=0, value=512)
    message.hugetlb.add(pagesize="2MB", failcnt=3)
    found = _named(codec.pack(message))
    assert found["container_cpu_total_nanoseconds",] == 10
    assert found["container_per_cpu_nanoseconds", "1"] == 6
    assert found["container_cpu_throttled_time_nanoseconds",] == 9
    assert found["container_memory_usage_usage_bytes",] == 4096
    assert found["container_memory_kerneltcp_failcnt_total",] == 1
    assert found["container_memory_total_pgmajfault_bytes",] == 12
    assert found["container_blkio_io_service_bytes_recursive_bytes", "Read", "sda", "8", "0"] == 512
    assert found["container_hugetlb_failcnt_total", "2MB"] == 3


def test_a_controller_that_is_off_has_no_figures_and_another_message_none() -> None:
    assert {name for name, *_ in _named(codec.pack(v2.Metrics(pids=v2.PidsStat(current=1))))} == {
        "container_pids_current",
        "container_pids_limit",
    }
    assert _named(containers.Any("some.Other", b"\xff")) == {}


def test_every_row_is_a_field_of_its_message() -> None:
    for message, rows, lists in ((v1.Metrics, cgroups.V1, cgroups.V1_LISTS), (v2.Metrics, cgroups.V2, cgroups.V2_LISTS)):
        for path in [path for _, path in rows] + [row.path for row in lists]:
            described = message.DESCRIPTOR
            for word in path.split("."):
                field = described.fields_by_name[word]
                described = field.message_type


class Runtime:
    """Tasks of which some never answer."""

    def __init__(self, hung: set[str]) -> None:
        self.hung = hung
        self.asked: list[str] = []

    async def list(self, ns: str) -> Sequence[tasks.Process]:
        if ns == "hung":
            await asyncio.Event().wait()
        if ns == "broken":
            raise errors.Unavailable("x")
        states = {"a": tasks.Status.RUNNING, "b": tasks.Status.PAUSED, "c": tasks.Status.RUNNING, "d": tasks.Status.STOPPED}
        return [tasks.Process(id, "", 1, status, tasks.Stdio()) for id, status in states.items()]

    async def metrics(self, ns: str, ids: Sequence[str]) -> Sequence[tasks.Metric]:
        self.asked += ids
        if ids[0] in self.hung:
            await asyncio.Event().wait()
        return [tasks.Metric(ids[0], 1, containers.Any("x", b""))]


async def test_shims_are_asked_at_once_and_a_hung_one_is_left_alone_for_a_while() -> None:
    now = 0.0
    runtime = Runtime({"c"})
    rounds = task_metrics.Rounds(runtime, bound=0.05, now=lambda: now)  # type: ignore[arg-type]
    found = await rounds.collect(["default", "hung", "broken"])
    assert (set(found.metrics), found.silent) == ({("default", "a"), ("default", "b")}, {("default", "c")})
    runtime.asked.clear()
    found = await rounds.collect(["default"])
    assert (runtime.asked, found.silent) == (["a", "b"], {("default", "c")})
    now, runtime.hung = task_metrics.SILENT_SECONDS + 1, set()
    found = await rounds.collect(["default"])
    assert (len(found.metrics), found.silent) == (3, set())


@pytest.mark.parametrize(
    ("code", "name"), [(0, "OK"), (None, "OK"), (5, "NotFound"), (grpc.StatusCode.OUT_OF_RANGE, "OutOfRange"), (1, "Canceled")]
)
def test_codes_are_named_as_in_go(code: object, name: str) -> None:
    assert calls.code_name(code) == name


class Failing:
    """A service whose one method fails by turns."""

    wire = version_pb2.DESCRIPTOR.services_by_name["Version"]
    raw = frozenset[str]()
    error: errors.PydockError | None = None

    async def version(self, *_: object) -> version_pb2.VersionResponse:
        if self.error is not None:
            raise self.error
        return version_pb2.VersionResponse(version="1")


async def test_calls_are_counted_by_method_and_code() -> None:
    registry, service = prometheus_client.CollectorRegistry(), Failing()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((front.Front([routing.Service(service)], [calls.Calls(registry)]),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary("/containerd.services.version.v1.Version/Version")
        for service.error in (None, None, errors.NotFound("x")):
            try:
                await ask(b"")
            except grpc.RpcError:
                assert service.error is not None
    await server.stop(0)
    labels = {"grpc_type": "unary", "grpc_service": "containerd.services.version.v1.Version", "grpc_method": "Version"}
    assert registry.get_sample_value("grpc_server_started_total", labels) == 3
    assert registry.get_sample_value("grpc_server_handled_total", {**labels, "grpc_code": "OK"}) == 2
    assert registry.get_sample_value("grpc_server_handled_total", {**labels, "grpc_code": "NotFound"}) == 1
    assert registry.get_sample_value("grpc_server_handling_seconds_count", labels) == 3
