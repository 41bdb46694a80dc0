"""Daemons that are killed at a failpoint, by order of a test, and what is asked of them afterwards.

Vocabulary: a *world* is one daemon over its restarts, with a root file system for containers and a registry to pull from; a *run* is one
script in a namespace of its own, its history kept, its plan given to the failpoints when the script says so (`Run.arm`).
Invariant: a world in which something went wrong is not used again (`World.spoiled`), so that one failure is not told as many.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydock.base import errors, failpoint
from pydock.client import anys, connection, containers, content, images, leases, snapshots, tasks
from pydock.testing import daemon as harness
from pydock.testing import leakcheck, model

CALL_SECONDS = 30.0
DEATH_SECONDS = 15.0
APPLETS = ("sh", "sleep", "true")
NAMESPACES = ("pid", "ipc", "uts", "mount", "network")
CGROUPS = "pydock-crash"


@contextlib.contextmanager
def rootfs() -> Iterator[Path]:
    """Yield a root file system of one static busybox. Raises FileNotFoundError without one."""
    binary = shutil.which("busybox")
    if binary is None:
        raise FileNotFoundError("busybox is not installed (Debian package busybox-static)")
    with harness.place("pydock-rootfs-") as base:
        for name in ("bin", "proc", "tmp", "dev"):
            (base / name).mkdir()
        shutil.copy(binary, base / "bin" / "busybox")
        for name in APPLETS:
            (base / "bin" / name).symlink_to("busybox")
        yield base


class World:
    """One daemon whose failpoints can be planned at any time."""

    def __init__(self, directory: Path, tree: Path, config: str = "") -> None:
        self.plan = directory / "failpoints"
        self.hits = directory / "failpoints.hits"
        self.tree = tree
        self.spoiled = False
        self.ears = model.Ears()
        self.daemon = harness.Daemon(directory, config=config, env={failpoint.VARIABLE: f"@{self.plan}"})
        self.before: leakcheck.Snapshot | None = None  # what it held when it was new
        self._runs = 0

    def start(self) -> None:
        """Start the daemon, and listen to it."""
        self.daemon.start()
        self.ears.listen(str(self.daemon.address))

    def arm(self, plan: str) -> None:
        """Let ``plan`` hold from now on. Raises ValueError for one that is none."""
        self.hits.unlink(missing_ok=True)
        fresh = self.plan.with_suffix(".new")
        fresh.write_text(failpoint.render(failpoint.parse(plan)))
        fresh.replace(self.plan)  # whole at once: a point passed meanwhile would write back the half it has read

    def disarm(self) -> None:
        """Let nothing happen any more."""
        self.plan.unlink(missing_ok=True)

    def hit(self, point: str) -> bool:
        """Tell whether something was done at ``point`` since the last `arm`."""
        with contextlib.suppress(FileNotFoundError):
            return point in self.hits.read_text().split()
        return False

    def await_hit(self, point: str) -> None:
        """Wait until something was done at ``point``. Raises Leaked after some seconds."""
        leakcheck.settle(lambda: "" if self.hit(point) else f"{point} is not hit", DEATH_SECONDS)

    def await_death(self) -> int:
        """Return how the daemon ended. Raises DaemonFailed where it does not."""
        process = self.daemon.process
        if process is None:
            raise harness.DaemonFailed("the daemon does not run")
        try:
            status = process.wait(DEATH_SECONDS)
        except Exception as error:
            raise harness.DaemonFailed(f"the daemon lives:\n{self.daemon.log_tail()}") from error
        self.daemon.process = None
        return status

    @contextlib.contextmanager
    def connected(self, ns: str) -> Iterator[connection.Connection]:
        """Yield a connection with some time left."""
        with connection.connect(str(self.daemon.address), ns) as made:
            yield made.within(CALL_SECONDS)

    @contextlib.contextmanager
    def run(self) -> Iterator[Run]:
        """Yield a run in a new namespace; afterwards nothing of it may be left."""
        self._runs += 1
        made = Run(self, f"run{self._runs}")
        self.spoiled = True
        yield made
        self.spoiled = False

    def look(self) -> leakcheck.Snapshot:
        """Return what the host holds of this world, but for what a restart replaces and what ends by itself."""
        found = leakcheck.take(self.daemon)
        lasting = tuple(sorted(self._orphaned()))
        own = tuple(one for one in found.cgroups if self.daemon.place.name in one)
        return dataclasses.replace(found, descriptors=(), processes=lasting, cgroups=own)

    def leaked(self) -> str:
        """Say what there is more or less than when the world was new."""
        return self.before.difference(self.look()) if self.before else ""

    def _orphaned(self) -> Iterator[str]:
        """Yield the processes of this world that are neither the daemon nor its children: shims, containers, what dead daemons left."""
        for pid in harness.strays(self.daemon.place):
            with contextlib.suppress(OSError):
                state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
                if pid != self.daemon.pid and int(parent) != self.daemon.pid:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    yield f"{'zombie ' if state == 'Z' else ''}{command}"

    def orphans(self) -> str:
        """Say what is left of blobs, ingests and snapshots; to be asked when all runs are cleared."""
        root = self.daemon.root
        blobs = [path.name for path in root.glob("io.containerd.content.v1.content/blobs/*/*")]
        ingests = [path.name for path in root.glob("io.containerd.content.v1.content/ingest/*")]
        filled = [str(path) for path in root.glob("io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/*")]
        return "\n".join(
            [
                *(f"blob {name}" for name in blobs),
                *(f"ingest {name}" for name in ingests),
                *(f"snapshot {name}" for name in filled),
            ]
        )


class Run:
    """One script's namespace ``ns``, history, and the steps scripts are made of."""

    def __init__(self, world: World, ns: str) -> None:
        self.world, self.ns = world, ns
        self.history = model.History()
        self.planned = ""
        self.tasks: set[str] = set()

    def arm(self) -> None:
        """Give the plan to the failpoints, once."""
        plan, self.planned = self.planned, ""
        if plan:
            self.world.arm(plan)

    def key(self, kind: str, name: str) -> model.Key:
        """Return the key of something in this namespace."""
        return kind, self.ns, name

    def cgroup(self, id: str) -> str:
        """Return the cgroup of a task."""
        return f"/{CGROUPS}/{self.world.daemon.place.name}-{self.ns}-{id}"

    def spec(self, id: str, args: Sequence[str]) -> dict[str, Any]:
        """Return the runtime spec of a container that runs ``args``."""
        mounts = [
            {"destination": f"/{at}", "type": kind, "source": kind} for at, kind in (("proc", "proc"), ("dev", "tmpfs"), ("tmp", "tmpfs"))
        ]
        linux = {"namespaces": [{"type": kind} for kind in NAMESPACES], "cgroupsPath": self.cgroup(id)}
        root = {"path": "rootfs", "readonly": True}
        return {"ociVersion": "1.0.2", "process": process(args), "root": root, "mounts": mounts, "linux": linux}

    def container(self, conn: connection.Connection, id: str, *args: str) -> None:
        """Store a container."""
        runtime = containers.Container.Runtime(name="io.containerd.runc.v2")
        made = containers.Container(id=id, spec=anys.pack_json(anys.SPEC, self.spec(id, args)), runtime=runtime)
        with self.history.moving(self.key("container", id), model.THERE):
            containers.create(conn, made)

    def create(self, conn: connection.Connection, id: str) -> int:
        """Make the task of a stored container; returns its pid."""
        self.tasks.add(id)
        bind = snapshots.Mount(type="bind", source=str(self.world.tree), options=["rbind", "ro"])
        with self.history.moving(self.key("task", id), "created"):
            return tasks.create(conn, id, [bind], tasks.Stdio())

    def start(self, conn: connection.Connection, id: str) -> None:
        """Start the task."""
        with self.history.moving(self.key("task", id), "running"):
            tasks.start(conn, id)

    def kill(self, conn: connection.Connection, id: str, number: int = signal.SIGKILL) -> None:
        """Kill the task and wait for its end, or send a signal that does not end it."""
        moving = self.history.moving(self.key("task", id), "stopped") if number == signal.SIGKILL else contextlib.nullcontext()
        with moving:
            ended = tasks.wait(conn, id)
            tasks.kill(conn, id, number)
            if number == signal.SIGKILL and ended.result().exit_status != 137:
                raise model.Broken(f"task {id} was killed and ended with {ended.result().exit_status}")
            ended.cancel()

    def delete(self, conn: connection.Connection, id: str) -> None:
        """Delete the task."""
        with self.history.moving(self.key("task", id), model.ABSENT):
            tasks.delete(conn, id)

    def forget(self, conn: connection.Connection, id: str) -> None:
        """Delete the container."""
        with self.history.moving(self.key("container", id), model.ABSENT):
            containers.delete(conn, id)

    def exec(self, conn: connection.Connection, id: str, exec_id: str, status: int) -> None:
        """Run a process that ends with ``status`` in a task, and delete it."""
        key = self.key("exec", f"{id}/{exec_id}")
        with self.history.moving(key, "created"):
            tasks.add_exec(conn, id, exec_id, process(("sh", "-c", f"exit {status}")), tasks.Stdio())
        with self.history.moving(key, "stopped", "running"):
            tasks.start(conn, id, exec_id)
            ended = tasks.wait(conn, id, exec_id).result()
        if ended.exit_status != status:
            raise model.Broken(f"exec {exec_id} ended with {ended.exit_status}, not {status}")
        with self.history.moving(key, model.ABSENT):
            tasks.delete(conn, id, exec_id)

    def check(self) -> None:
        """Compare with the history, within five seconds. Raises Leaked with what still differs then."""
        with self.world.connected(self.ns) as conn:
            leakcheck.settle(lambda: self._differences(conn))

    def _differences(self, conn: connection.Connection) -> str:
        try:
            self.history.check(conn)
        except model.Broken as broken:
            return str(broken)
        wrong = [model.astray(conn, id, self.cgroup(id)) for id in sorted(self.tasks)]
        return "\n".join(filter(None, [*wrong, *(f"told twice: {one}" for one in self.world.ears.twice())]))

    def clear(self) -> None:
        """End, delete and collect all there is in the namespace. Raises what the daemon raises."""
        with self.world.connected(self.ns) as conn:
            for task in tasks.listing(conn):
                end(conn, task.id)
            for container in containers.listing(conn):
                containers.delete(conn, container.id)
            for image in images.listing(conn):
                images.delete(conn, image.name)
            for status in content.statuses(conn):
                content.abort(conn, status.ref)
            self._clear_snapshots(conn)
            for lease in leases.listing(conn):
                leases.delete(conn, lease.id)
            leases.delete(conn, leases.create(conn, "", {}).id, sync=True)
        self.history = model.History()

    def _clear_snapshots(self, conn: connection.Connection) -> None:
        for one in list(snapshots.listing(conn, model.SNAPSHOTTER)):
            if model.KINDS[one.kind] != "committed" or snapshots.ROOT_LABEL in one.labels:
                snapshots.remove(conn, model.SNAPSHOTTER, one.name)


def process(args: Sequence[str]) -> dict[str, Any]:
    """Return the process of a spec."""
    return {"user": {"uid": 0, "gid": 0}, "args": list(args), "env": ["PATH=/bin"], "cwd": "/", "terminal": False}


def end(conn: connection.Connection, id: str) -> None:
    """Kill a task where it has to be, and delete it."""
    with contextlib.suppress(errors.NotFound):
        ended = tasks.wait(conn, id)
        if tasks.get(conn, id).status not in (tasks.STOPPED, tasks.CREATED):
            with contextlib.suppress(errors.NotFound):
                tasks.kill(conn, id, signal.SIGKILL)
            ended.result()
        ended.cancel()
        tasks.delete(conn, id)


@contextlib.contextmanager
def world(tree: Path, warm: Callable[[Run], None], config: str = "") -> Iterator[World]:
    """Yield a world whose daemon runs and has done ``warm`` once, so that what the first of anything makes for all is no leak."""
    with harness.place("pydock-crash-") as directory:
        made = World(directory, tree, config)
        made.start()
        try:
            with made.run() as run:
                warm(run)
                run.clear()
            leakcheck.settle(lambda: "\n".join(made.look().processes))
            made.before = made.look()
            yield made
        finally:
            made.disarm()
            made.daemon.stop()
            harness.end_strays(directory)
            remove_cgroups(directory.name)


def remove_cgroups(place: str) -> None:
    """Remove what killed tasks of a place left, and what held them all."""
    for group in [*Path("/sys/fs/cgroup").glob(f"*/{CGROUPS}/{place}-*"), *Path("/sys/fs/cgroup").glob(f"*/{CGROUPS}")]:
        with contextlib.suppress(OSError):
            group.rmdir()
