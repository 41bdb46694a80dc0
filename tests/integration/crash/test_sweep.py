"""The sweep: for each failpoint a script is run into a crash there; then all that was told must hold and the next try must work.

``PYDOCK_SWEEP=all`` adds those of a second hit, which take the places between two layers, two processes, SIGTERM and SIGKILL.
After each: MODEL (`testing.model`), then the whole script again, then everything deleted, then LEAKCHECK and no file without a record.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pydock.base import errors, failpoint, platform
from pydock.client import connection, content, leases, manifests, snapshots, tasks, transfer
from pydock.client import images as image_records
from pydock.core import mounts
from pydock.testing import crash, flaky_registry, images, leakcheck, model

pytestmark = pytest.mark.root

World = crash.World
Registry = flaky_registry.FlakyRegistry
SIZE = 2_500_000  # of the large layer: fetched in three blocks
SLOWLY = (400_000, 0.02)  # bytes, and seconds between
ROOT = {snapshots.ROOT_LABEL: "true"}


class Script:
    """What clients do; ``do`` once into the crash, ``mend`` what may be in the way, ``do`` again."""

    def do(self, run: crash.Run, source: Registry) -> None:
        """Do all of it."""

    def mend(self, run: crash.Run) -> None:
        """Clear away what an interrupted try leaves to its client."""


def picture(seed: str) -> images.Image:
    """Return an image nobody else has, of a small and a large layer."""
    noise = random.Random(hashlib.sha256(seed.encode()).digest()).randbytes(SIZE)
    return images.image([images.layer({"seed": seed.encode()}), images.layer({"noise": noise})])


class Pull(Script):
    """An image comes from a registry and is unpacked."""

    slowly = False

    def do(self, run: crash.Run, source: Registry) -> None:
        image = picture(run.ns)
        reference = source.add(image, f"{run.ns}/image:1")
        large = max(image.blobs, key=lambda key: len(image.blobs[key]))
        source.heal()
        if self.slowly:
            source.on("GET", large, flaky_registry.change(drip=SLOWLY))
        run.arm()
        with run.world.connected(run.ns) as conn:
            with run.history.moving(run.key("image", reference), model.THERE):
                wanted = transfer.Wanted([platform.default()], snapshotter=model.SNAPSHOTTER)
                transfer.pull(conn, transfer.Registry(reference, plain_http=True), wanted, lambda _: None)
            self.sent = source.served(large)
            self.compare(run, conn)

    def compare(self, run: crash.Run, conn: connection.Connection) -> None:
        """Look whether the snapshots hold what the layers do."""
        [stored] = image_records.listing(conn)
        manifest = manifests.read(conn, manifests.descriptor(stored.target))
        for number, chain in enumerate(manifests.chain_ids(manifests.diff_ids(manifests.config(conn, manifest)))):
            made = snapshots.view(conn, model.SNAPSHOTTER, f"view-{number}", chain)
            found = mounts.directories([mounts.Mount(one.type, one.source, one.target, list(one.options)) for one in made])
            assert found is not None
            paths = [Path(one) for one in ([found[0]] if found[0] else []) + list(found[1])]
            names = {path.name: path.stat().st_size for folder in paths for path in folder.iterdir()}
            assert names == dict(list({"seed": len(run.ns), "noise": SIZE}.items())[: number + 1])
            snapshots.remove(conn, model.SNAPSHOTTER, f"view-{number}")


class SlowPull(Pull):
    """The same, the large layer in pieces."""

    slowly = True


class Collect(Pull):
    """An image is deleted, and with it what it held."""

    def do(self, run: crash.Run, source: Registry) -> None:
        planned, run.planned = run.planned, ""
        super().do(run, source)
        run.planned = planned
        run.arm()
        with run.world.connected(run.ns) as conn:
            [image] = image_records.listing(conn)
            with run.history.moving(run.key("image", image.name), model.ABSENT):
                image_records.delete(conn, image.name, sync=True)
            for lease in leases.listing(conn):
                leases.delete(conn, lease.id)
            leases.delete(conn, leases.create(conn, "", {}).id, sync=True)
            assert not list(content.listing(conn))
            assert not list(snapshots.listing(conn, model.SNAPSHOTTER))


class Blob(Script):
    """A blob is written and deleted."""

    def do(self, run: crash.Run, source: Registry) -> None:
        run.arm()
        data = run.ns.encode() * 20_000
        name = images.digest(data)
        with run.world.connected(run.ns) as conn:
            with run.history.moving(run.key("blob", name), model.THERE):
                assert content.ingest(conn, "blob", io.BytesIO(data), size=len(data)) == name
            with run.history.moving(run.key("blob", name), model.ABSENT):
                content.delete(conn, name)

    def mend(self, run: crash.Run) -> None:
        with run.world.connected(run.ns) as conn:
            for blob in list(content.listing(conn)):
                content.delete(conn, blob.digest)


class Snapshot(Script):
    """A snapshot is prepared, committed and removed."""

    def do(self, run: crash.Run, source: Registry) -> None:
        run.arm()
        active, committed = run.key("snapshot", "active"), run.key("snapshot", "committed")
        with run.world.connected(run.ns) as conn:
            with run.history.moving(active, "active"):
                [mount] = snapshots.prepare(conn, model.SNAPSHOTTER, "active", labels=ROOT)
            Path(mount.source, "file").write_text(run.ns)
            with run.history.moving(active, model.ABSENT), run.history.moving(committed, "committed"):
                snapshots.commit(conn, model.SNAPSHOTTER, "committed", "active", ROOT)
            [mount] = snapshots.view(conn, model.SNAPSHOTTER, "look", "committed")
            assert Path(mount.source, "file").read_text() == run.ns
            snapshots.remove(conn, model.SNAPSHOTTER, "look")
            with run.history.moving(committed, model.ABSENT):
                snapshots.remove(conn, model.SNAPSHOTTER, "committed")

    def mend(self, run: crash.Run) -> None:
        with run.world.connected(run.ns) as conn:
            for one in sorted(snapshots.listing(conn, model.SNAPSHOTTER), key=lambda one: one.name == "committed"):
                if one.name in ("active", "committed", "look"):
                    snapshots.remove(conn, model.SNAPSHOTTER, one.name)


class Life(Script):
    """A container runs a task, the task an exec; all end."""

    def do(self, run: crash.Run, source: Registry) -> None:
        run.arm()
        with run.world.connected(run.ns) as conn:
            run.container(conn, "web", "sleep", "1000")
            run.create(conn, "web")
            run.start(conn, "web")
            run.exec(conn, "web", "job", 3)
            run.kill(conn, "web", signal.SIGTERM)  # which number 1 of a pid namespace does not notice
            run.kill(conn, "web")
            run.delete(conn, "web")
            run.forget(conn, "web")

    def mend(self, run: crash.Run) -> None:
        with run.world.connected(run.ns) as conn:
            for task in tasks.listing(conn):
                crash.end(conn, task.id)
            with contextlib.suppress(errors.NotFound):
                run.forget(conn, "web")


@dataclass(frozen=True)
class Case:
    """A script, the point it is to crash at, and how; ``victim`` says who dies."""

    script: type[Script]
    point: str
    plan: str = "1*crash"
    victim: str = "daemon"

    def __str__(self) -> str:
        return f"{self.script.__name__.lower()}-{self.point}{'' if self.plan == '1*crash' else '-' + self.plan.replace('->', '-then-')}"


SECOND = "1*off->1*crash"
LONG = os.environ.get("PYDOCK_SWEEP") == "all"
CASES = [
    *(Case(Pull, point) for point in ("pull.resolved", "pull.manifest", "pull.before_name", "pull.named")),
    *(Case(Pull, point) for point in ("unpack.prepared", "unpack.applied", "unpack.committed")),
    *(Case(SlowPull, point, plan) for point, plan in (("pull.mid_blob", "4*off->1*crash"), ("unpack.mid_tar", "1*crash"))),
    *(Case(Collect, point) for point in ("gc.marked", "gc.recorded", "gc.mid_files")),
    *(Case(Blob, point) for point in ("content.synced", "content.renamed", "content.recorded", "content.deleted")),
    *(Case(Snapshot, f"snapshot.{word}") for word in ("made", "synced", "committed", "recorded", "forgotten", "doomed")),
    *(Case(Life, point) for point in ("container.recorded", "container.forgotten", "exit.published")),
    *(Case(Life, f"task.{word}") for word in ("bundle", "asked", "spawned", "create", "created", "start", "started", "exec", "execed")),
    *(Case(Life, f"task.{word}") for word in ("kill", "killed", "delete", "deleted", "parted", "buried")),
    *(Case(Life, f"shim.{word}", victim="shim") for word in ("create", "created", "start", "started", "exec", "execed")),
    *(Case(Life, f"shim.{word}", victim="shim") for word in ("ended", "recorded", "removed")),
]
LONGER = [
    *(Case(Pull, point, SECOND) for point in ("unpack.committed", "content.renamed", "content.recorded", "snapshot.committed")),
    *(Case(Life, point, SECOND) for point in ("exit.published", "task.start", "task.started", "task.kill")),
    *(Case(Life, point, SECOND, "shim") for point in ("shim.ended", "shim.recorded")),
]
HELD = [Case(Life, "shim.launched", "1*pause({gate})", "held")]


def test_every_failpoint_is_swept() -> None:
    assert sorted({case.point for case in CASES + HELD}) == sorted(failpoint.POINTS)


@pytest.mark.parametrize("case", CASES + (LONGER if LONG else []), ids=str)
def test_a_crash_leaves_what_was_told_and_the_next_try_works(world: World, source: Registry, case: Case) -> None:
    with world.run() as run:
        script = case.script()
        run.planned = f"{case.point}={case.plan}"
        with contextlib.suppress(errors.PydockError, AssertionError):
            script.do(run, source)
        world.await_hit(case.point)
        world.disarm()
        if case.victim == "shim":
            run.history.shim_died(run.ns, "web")
        else:
            assert world.await_death() == -signal.SIGKILL
            world.start()
        recovers(run, script, source)
    settled(world)


def test_a_daemon_that_dies_while_a_shim_is_born_leaves_no_shim(world: World, source: Registry, tmp_path: Path) -> None:
    with world.run() as run:
        script, gate = Life(), tmp_path / "gate"
        run.planned = f"shim.launched=1*pause({gate})"
        client = threading.Thread(target=suppressed(lambda: script.do(run, source)))
        client.start()
        world.await_hit("shim.launched")
        world.disarm()
        world.daemon.kill9()
        client.join()
        world.start()
        gate.touch()
        recovers(run, script, source)
    settled(world)


def test_what_a_killed_pull_had_fetched_is_not_fetched_again(world: World, source: Registry) -> None:
    with world.run() as run:
        script = SlowPull()
        run.planned = "pull.mid_blob=4*off->1*crash"  # manifest, config, small layer and the first block of the large one go on
        with contextlib.suppress(errors.PydockError):
            script.do(run, source)
        world.disarm()
        world.await_death()
        world.start()
        with world.connected(run.ns) as conn:
            kept = max(status.offset for status in content.statuses(conn))
        script.do(run, source)
        large = max(len(data) for data in picture(run.ns).blobs.values())
        assert kept >= 1 << 20
        assert script.sent <= large - kept
        run.clear()


def recovers(run: crash.Run, script: Script, source: Registry) -> None:
    """Check the history, and that the whole script works now; then delete everything."""
    run.check()
    script.mend(run)
    script.do(run, source)
    run.check()
    run.clear()


def settled(world: World) -> None:
    """Check that nothing is left of a run."""
    leakcheck.settle(world.leaked)
    leakcheck.settle(world.orphans)


def suppressed(act: Callable[[], None]) -> Callable[[], None]:
    """Return ``act`` as a thread whose daemon may die can run it."""

    def run() -> None:
        with contextlib.suppress(errors.PydockError):
            act()

    return run
