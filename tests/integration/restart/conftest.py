"""Containers on a whole daemon that is killed and started again, driven over gRPC."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2

from pydock._proto.containerd.services.containers.v1 import containers_pb2
from pydock._proto.containerd.services.tasks.v1 import tasks_pb2
from pydock._proto.containerd.types import mount_pb2
from pydock.testing import daemon as harness
from pydock.testing import leakcheck

METADATA = (("containerd-namespace", "default"),)
SPECS = "types.containerd.io/opencontainers/runtime-spec/1"
PLACES = (("/proc", "proc"), ("/dev", "tmpfs"), ("/tmp", "tmpfs"))
KINDS = ("pid", "ipc", "uts", "mount", "network")


class Engine:
    """One daemon at one place and a plain gRPC client of it."""

    def __init__(self, daemon: harness.Daemon, rootfs: Path) -> None:
        self.daemon = daemon
        self.rootfs = rootfs

    def tasks(self, method: str, timeout: float = 20, **fields: object) -> object:
        """Call a method of the Tasks service."""
        kinds = {"Start": "StartRequest", "Kill": "KillRequest", "Get": "GetRequest", "Wait": "WaitRequest", "List": "ListTasksRequest"}
        named = {"Create": "CreateTaskRequest", "Delete": "DeleteTaskRequest", "Exec": "ExecProcessRequest"}
        replies = {"Kill": None, "Exec": None, "List": "ListTasksResponse", "Create": "CreateTaskResponse"}
        request = getattr(tasks_pb2, {**kinds, **named}[method])(**fields)
        reply = replies.get(method, f"{method}Response")
        return self._call(f"/containerd.services.tasks.v1.Tasks/{method}", request, getattr(tasks_pb2, reply) if reply else None, timeout)

    def run(self, id: str, *args: str) -> int:
        """Make a container and start it; returns the pid of its init."""
        spec = any_pb2.Any(
            type_url="types.containerd.io/opencontainers/runtime-spec/1/Spec", value=json.dumps(self._spec(id, args)).encode()
        )
        container = containers_pb2.Container(id=id, spec=spec, runtime=containers_pb2.Container.Runtime(name="io.containerd.runc.v2"))
        request = containers_pb2.CreateContainerRequest(container=container)
        self._call("/containerd.services.containers.v1.Containers/Create", request, None, 20)
        mount = mount_pb2.Mount(type="bind", source=str(self.rootfs), options=["rbind", "ro"])
        self.tasks("Create", container_id=id, rootfs=[mount])
        return self.tasks("Start", container_id=id).pid  # type: ignore[attr-defined]

    def exec(self, id: str, exec_id: str, *args: str) -> int:
        """Add a process and start it; returns its pid."""
        spec = any_pb2.Any(type_url=f"{SPECS}/Process", value=json.dumps(process_of(args)).encode())
        self.tasks("Exec", container_id=id, exec_id=exec_id, spec=spec)
        return self.tasks("Start", container_id=id, exec_id=exec_id).pid  # type: ignore[attr-defined]

    def states(self) -> dict[str, tuple[int, int]]:
        """(pid, status) of every task by id."""
        return {task.id: (task.pid, task.status) for task in self.tasks("List").tasks}  # type: ignore[attr-defined]

    def remove(self, *ids: str) -> None:
        """Kill and delete tasks."""
        for id in ids:
            if self.tasks("Get", container_id=id).process.status == 2:  # type: ignore[attr-defined]
                self.tasks("Kill", container_id=id, signal=signal.SIGKILL)
            self.tasks("Wait", container_id=id)
            self.tasks("Delete", container_id=id)

    @property
    def bundles(self) -> Path:
        """Where the daemon keeps bundles of the namespace."""
        return self.daemon.state / "io.containerd.runtime.v2.task" / "default"

    def launcher(self) -> int:
        """Pid of the daemon's launcher."""
        pid = self.daemon.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"launch" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        return 0

    def _spec(self, id: str, args: Sequence[str]) -> dict[str, object]:
        mounts = [
            {"destination": at, "type": kind, "source": kind} for at, kind in (("/proc", "proc"), ("/dev", "tmpfs"), ("/tmp", "tmpfs"))
        ]
        linux = {"namespaces": [{"type": kind} for kind in KINDS], "cgroupsPath": f"/pydock-rs/{self.daemon.place.name}-{id}"}
        root = {"path": "rootfs", "readonly": True}
        return {"ociVersion": "1.0.2", "process": process_of(args), "root": root, "mounts": mounts, "linux": linux}

    def _call(self, path: str, request: object, reply: type | None, timeout: float) -> object:
        with grpc.insecure_channel(f"unix://{self.daemon.address}") as channel:
            decode = reply.FromString if reply else bytes  # type: ignore[attr-defined]
            method = channel.unary_unary(path, type(request).SerializeToString, decode)  # type: ignore[attr-defined]
            return method(request, metadata=METADATA, timeout=timeout)


def process_of(args: Sequence[str]) -> dict[str, object]:
    return {"user": {"uid": 0, "gid": 0}, "args": list(args), "env": ["PATH=/bin"], "cwd": "/", "terminal": False}


@pytest.fixture(scope="session")
def rootfs() -> Iterator[Path]:
    """A root file system of one static busybox."""
    binary = shutil.which("busybox")
    if os.geteuid() or binary is None:
        pytest.skip("needs root and a static busybox")
    with harness.place("pydock-rootfs-") as base:
        for name in ("bin", "proc", "tmp", "dev"):
            (base / name).mkdir()
        shutil.copy(binary, base / "bin" / "busybox")
        for name in ("sh", "sleep", "true"):
            (base / "bin" / name).symlink_to("busybox")
        yield base
    for parent in Path("/sys/fs/cgroup").glob("*/pydock-rs"):
        parent.rmdir()


@pytest.fixture
def engine(rootfs: Path) -> Iterator[Engine]:
    """A ready daemon whose containers are all gone at the end, with everything of theirs."""
    with harness.running() as daemon:
        made = Engine(daemon, rootfs)
        yield made
        made.remove(*made.states())
        leakcheck.settle(lambda: " ".join(str(path) for path in Path("/sys/fs/cgroup").glob(f"*/pydock-rs/{daemon.place.name}-*")))
        leakcheck.settle(lambda: " ".join(map(str, [*made.bundles.glob("*"), *(daemon.state / "s").glob("*")])))
