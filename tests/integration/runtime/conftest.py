"""A runtime with real launcher, shims and OCI runtime on tmpfs, without the rest of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pydock.core import containers, events, mounts, plugin, tasks
from pydock_plugins.runtime import plugin as runtime
from pydock_shim import wire

NS = "default"


class Heard:
    """An exchange that remembers what was forwarded."""

    def __init__(self) -> None:
        self.envelopes: list[events.Envelope] = []

    def publish(self, ns: str, event: events.Event) -> None:
        raise NotImplementedError

    def publish_packed(self, ns: str, topic: str, event: containers.Any) -> None:
        raise NotImplementedError

    def forward(self, envelope: events.Envelope) -> None:
        self.envelopes.append(envelope)

    def subscribe(self, filters: Iterable[str] = ()) -> AbstractAsyncContextManager[AsyncIterator[events.Envelope]]:
        raise NotImplementedError

    def topics(self) -> list[str]:
        return [envelope.topic for envelope in self.envelopes]

    def exits(self) -> list[tuple[str, str, int]]:
        """(container id, process id, status) of every exit heard."""
        found = [wire.decode("containerd.events.TaskExit", e.event.value) for e in self.envelopes if e.topic == "/tasks/exit"]
        return [(exit["container_id"], exit["id"], exit["exit_status"]) for exit in found]


class Supervisor:
    """Lets a failure through, so that the test sees it."""

    async def keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        await loop()


@dataclass
class Running:
    """A started runtime and what it told."""

    verbs: tasks.Runtime
    heard: Heard


@dataclass
class Place:
    """Where runtimes run one after the other, as daemons do."""

    base: Path
    rootfs: Path
    made: list[str] = field(default_factory=list)

    @property
    def bundles(self) -> Path:
        return self.base / "state" / "tasks"

    @contextlib.asynccontextmanager
    async def daemon(self) -> AsyncIterator[Running]:
        state = self.base / "state"
        self.bundles.mkdir(parents=True, exist_ok=True)
        daemon = plugin.Daemon(self.base / "root", state, state / "pydock.sock")
        heard = Heard()
        factory = runtime.task.factory(runtime.RuntimeConfig(), daemon, plugin.PluginState(self.bundles), heard, Supervisor())
        async with asyncio.timeout(30), contextlib.asynccontextmanager(lambda: factory)() as (verbs, _):
            yield Running(verbs, heard)

    def container(self, id: str, *args: str, **changes: object) -> containers.Container:
        """A container whose init runs ``args`` in the busybox root."""
        self.made.append(id)
        spec = json.dumps(spec_of(f"/pydock-rt/{self.base.name}-{id}", args, changes)).encode()
        return containers.Container(
            id, runtime="io.containerd.runc.v2", spec=containers.Any("types.containerd.io/opencontainers/runtime-spec/1/Spec", spec)
        )

    def creation(self, id: str, stdout: str = "") -> tasks.Creation:
        rootfs = [mounts.Mount("bind", str(self.rootfs), options=("rbind", "ro"))]
        return tasks.Creation(id, rootfs, tasks.Stdio(stdout=stdout))

    async def create(self, run: Running, id: str, *args: str, **changes: object) -> int:
        return await run.verbs.create(NS, self.container(id, *args, **changes), self.creation(id))

    async def start(self, run: Running, id: str, *args: str, **changes: object) -> int:
        await self.create(run, id, *args, **changes)
        return await run.verbs.start(NS, id)

    async def exec(self, run: Running, id: str, exec_id: str, *args: str) -> None:
        """Add an exec that runs ``args`` when started."""
        spec = containers.Any("types.containerd.io/opencontainers/runtime-spec/1/Process", json.dumps(process_of(*args)).encode())
        await run.verbs.exec(NS, id, tasks.Exec(exec_id, spec))

    def shims(self) -> dict[str, int]:
        """Pids of the shims by container id."""
        return {path.parent.name: json.loads(path.read_text())["pid"] for path in self.bundles.glob("*/*/shim.json")}

    def lives(self, pid: int) -> bool:
        """Tell whether a process runs; a zombie that nobody has reaped does not."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def left(self) -> dict[str, list[str]]:
        """Everything that belongs to the place: files, sockets, mounts, cgroups, processes, and our own descriptors and tasks."""
        mark = str(self.base)
        processes = [pid.name for pid in Path("/proc").glob("[0-9]*") if belongs(pid, mark)]
        return {
            "files": sorted(str(path) for path in self.base.rglob("*")),
            "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line],
            "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/pydock-rt/{self.base.name}-*")],
            "processes": processes,
            "fds": sorted(filter(None, map(descriptor, os.listdir("/proc/self/fd")))),
            "tasks": sorted(task.get_name() for task in asyncio.all_tasks()),
        }

    async def until(self, true: Callable[[], object], seconds: float = 10) -> None:
        """Let the loop turn until ``true()``."""
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.005)

    async def stop(self, run: Running, *ids: str) -> None:
        """Kill and delete tasks."""
        for id in ids:
            with contextlib.suppress(Exception):
                await run.verbs.kill(NS, id, "", 9)
            await run.verbs.wait(NS, id)
            await run.verbs.delete(NS, id)


def spec_of(cgroup: str, args: Sequence[str], changes: dict[str, object]) -> dict[str, object]:
    kinds = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]
    return {
        "ociVersion": "1.0.2",
        "process": process_of(*args),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": kinds, "cgroupsPath": cgroup},
        **changes,
    }


def process_of(*args: str) -> dict[str, object]:
    return {"user": {"uid": 0, "gid": 0}, "args": list(args), "env": ["PATH=/bin"], "cwd": "/", "terminal": False}


def belongs(process: Path, mark: str) -> bool:
    """Tell whether a process has the mark in its words, or is one of a container of ours."""
    try:
        return (
            mark.encode() in (process / "cmdline").read_bytes()
            or f"/pydock-rt/{Path(mark).name}-".encode() in (process / "cgroup").read_bytes()
        )
    except OSError:
        return False


def descriptor(fd: str) -> str:
    """What kind of thing is open as ``fd``."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}").partition(":[")[0]
    except OSError:
        return ""


@pytest.fixture(scope="session")
def rootfs() -> Iterator[Path]:
    """A root file system of one static busybox."""
    binary = shutil.which("busybox")
    if os.geteuid() or binary is None:
        pytest.skip("needs root and a static busybox")
    base = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="pdroot"))
    for name in ("bin", "proc", "tmp", "dev", "sys", "etc"):
        (base / name).mkdir()
    shutil.copy(binary, base / "bin" / "busybox")
    for name in ("sh", "sleep", "true", "false", "kill", "cat", "echo", "ls"):
        (base / "bin" / name).symlink_to("busybox")
    yield base
    shutil.rmtree(base)
    for parent in Path("/sys/fs/cgroup").glob("*/pydock-rt"):
        with contextlib.suppress(OSError):  # another run beside this one may be in it; what is ours is checked by each test
            parent.rmdir()


@pytest.fixture
def place(rootfs: Path) -> Iterator[Place]:
    base = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="pd"))
    yield Place(base, rootfs)
    shutil.rmtree(base)
