"""Many clients at once on the same things, and clients that leave in the middle: legal outcomes only, and nothing left over.

``PYDOCK_STORM_SECONDS`` makes storms longer than their few seconds of every run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pydock._proto.containerd.services.tasks.v1 import tasks_pb2
from pydock._proto.containerd.services.transfer.v1 import transfer_pb2
from pydock._proto.containerd.types import mount_pb2, platform_pb2
from pydock._proto.containerd.types.transfer import imagestore_pb2, registry_pb2
from pydock.base import errors, platform
from pydock.client import anys, connection, content, leases, snapshots, tasks, transfer
from pydock.client import images as image_records
from pydock.testing import crash, flaky_registry, images, leakcheck, model

pytestmark = pytest.mark.root

World = crash.World
Registry = flaky_registry.FlakyRegistry
SECONDS = float(os.environ.get("PYDOCK_STORM_SECONDS", "2.5"))
CLIENTS = 6
LEAVING = tuple(number * 0.002 for number in range(12))  # seconds after the call was made
LEGAL = (
    errors.NotFound,
    errors.AlreadyExists,
    errors.FailedPrecondition,
    errors.Unavailable,  # somebody is at the same key
)


@pytest.fixture
def run(world: World) -> Iterator[crash.Run]:
    """A run whose namespace is cleared at the end, and nothing left of it."""
    with world.run() as made:
        yield made
        made.clear()
    leakcheck.settle(world.leaked)
    leakcheck.settle(world.orphans)


def pull(conn: connection.Connection, reference: str) -> None:
    wanted = transfer.Wanted([platform.default()], snapshotter=model.SNAPSHOTTER)
    transfer.pull(conn, transfer.Registry(reference, plain_http=True), wanted, lambda _: None)


def storm(world: World, ns: str, acts: list[Callable[[connection.Connection, random.Random], None]]) -> Counter[str]:
    """Let each act be repeated by a client of its own; returns how often each was done and refused. Raises what is not legal."""
    counts: Counter[str] = Counter()
    illegal: list[BaseException] = []
    until = time.monotonic() + SECONDS

    def client(number: int, act: Callable[[connection.Connection, random.Random], None]) -> None:
        dice = random.Random(number)
        with connection.connect(str(world.daemon.address), ns) as conn:
            while time.monotonic() < until and not illegal:
                try:
                    act(conn.within(30), dice)
                    counts[act.__name__] += 1
                except LEGAL as refusal:
                    counts[type(refusal).__name__] += 1
                except errors.PydockError as error:
                    illegal.append(error)

    threads = [threading.Thread(target=client, args=pair) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if illegal:
        raise illegal[0]
    return counts


def test_pulls_deletions_and_collections_at_once_keep_what_is_named_whole(run: crash.Run, source: Registry) -> None:
    layers = [images.layer({f"file{number}": random.Random(number).randbytes(40_000)}) for number in range(4)]
    names = [source.add(images.image(layers[: number + 1]), f"storm/{number}:1") for number in range(4)]

    def pulls(conn: connection.Connection, dice: random.Random) -> None:
        pull(conn, dice.choice(names))

    def deletes(conn: connection.Connection, dice: random.Random) -> None:
        image_records.delete(conn, dice.choice(names), sync=dice.random() < 0.3)

    def collects(conn: connection.Connection, dice: random.Random) -> None:
        leases.delete(conn, leases.create(conn, "", {}).id, sync=True)

    counts = storm(run.world, run.ns, [pulls] * CLIENTS + [deletes, deletes, collects])
    assert min(counts["pulls"], counts["deletes"], counts["collects"]) > 0
    with run.world.connected(run.ns) as conn:
        assert not [*model.damaged(conn), *model.incomplete(conn)]
        assert not content.statuses(conn)
        for name in names:
            pull(conn, name)
        assert not [*model.damaged(conn), *model.incomplete(conn)]


def test_fifty_pulls_of_one_image_at_once_fetch_each_blob_once(run: crash.Run, source: Registry) -> None:
    image = images.image([images.layer({"noise": random.Random(run.ns).randbytes(300_000)})])
    reference = source.add(image, f"{run.ns}/many:1")
    source.heal()
    failed: list[BaseException] = []

    def one() -> None:
        try:
            with run.world.connected(run.ns) as conn:
                pull(conn, reference)
        except errors.PydockError as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for key in image.blobs:
        assert len([seen for seen in source.seen(key) if "/blobs/" in seen.path]) <= 1


def test_ten_clients_on_one_id_see_legal_outcomes_and_no_init_twice(run: crash.Run) -> None:
    with run.world.connected(run.ns) as conn:
        run.container(conn, "web", "sleep", "1000")
    bind = [snapshots.Mount(type="bind", source=str(run.world.tree), options=["rbind", "ro"])]
    numbers = itertools.count()

    def creates(conn: connection.Connection, dice: random.Random) -> None:
        tasks.create(conn, "web", bind, tasks.Stdio())

    def starts(conn: connection.Connection, dice: random.Random) -> None:
        with contextlib.suppress(errors.Unknown):  # what the OCI runtime says of an init that was killed meanwhile
            tasks.start(conn, "web")

    def kills(conn: connection.Connection, dice: random.Random) -> None:
        tasks.kill(conn, "web", signal.SIGKILL)

    def deletes(conn: connection.Connection, dice: random.Random) -> None:
        tasks.delete(conn, "web")

    def execs(conn: connection.Connection, dice: random.Random) -> None:
        name = f"job{next(numbers)}"
        tasks.add_exec(conn, "web", name, crash.process(("true",)), tasks.Stdio())
        with contextlib.suppress(errors.Unknown):  # what the OCI runtime says of an init that dies under it
            tasks.start(conn, "web", name)

    def looks(conn: connection.Connection, dice: random.Random) -> None:
        tasks.listing(conn)
        tasks.metrics(conn, [])

    counts = storm(run.world, run.ns, [creates, creates, starts, starts, kills, deletes, deletes, execs, looks, looks])
    assert min(counts[name] for name in ("creates", "starts", "kills", "deletes", "looks")) > 0
    with run.world.connected(run.ns) as conn:
        leakcheck.settle(lambda: model.astray(conn, "web", run.cgroup("web")))
        crash.end(conn, "web")
        run.create(conn, "web")
        run.start(conn, "web")
        run.kill(conn, "web")
    assert not run.world.ears.twice()


def test_a_client_that_leaves_at_any_moment_of_a_creation_leaves_all_or_nothing(run: crash.Run) -> None:
    mount = mount_pb2.Mount(type="bind", source=str(run.world.tree), options=["rbind", "ro"])
    request = tasks_pb2.CreateTaskRequest(container_id="web", rootfs=[mount])
    with run.world.connected(run.ns) as conn:
        run.container(conn, "web", "sleep", "1000")
        for moment in LEAVING:
            leave(conn, "Create", request, tasks_pb2.CreateTaskResponse, moment)
            leakcheck.settle(lambda: model.astray(conn, "web", run.cgroup("web")))
            crash.end(conn, "web")
            leakcheck.settle(lambda conn=conn: taken(run, conn))  # type: ignore[misc]
            for method, kind, answer in (
                ("Start", tasks_pb2.StartRequest, tasks_pb2.StartResponse),
                ("Get", tasks_pb2.GetRequest, tasks_pb2.GetResponse),
            ):
                leave(conn, method, kind(container_id="web"), answer, moment / 4)
            with contextlib.suppress(errors.FailedPrecondition), run.history.moving(run.key("task", "web"), "running"):
                tasks.start(conn, "web")
            run.history.allowed[run.key("task", "web")] = frozenset({"running"})
            run.check()
            run.kill(conn, "web")
            leave(conn, "Delete", tasks_pb2.DeleteTaskRequest(container_id="web"), tasks_pb2.DeleteResponse, moment / 4)
            crash.end(conn, "web")
            run.history.may_be(run.key("task", "web"), model.ABSENT)
            run.check()


def taken(run: crash.Run, conn: connection.Connection) -> str:
    """Create the task, or say that the one whose client left is still being made or unmade."""
    try:
        run.create(conn, "web")
    except errors.AlreadyExists as error:
        crash.end(conn, "web")
        return str(error)
    return ""


def leave(conn: connection.Connection, method: str, request: Any, answer: type, moment: float) -> None:
    """Make a call and give it up after some seconds, answered or not."""
    pending = conn.begin(f"/containerd.services.tasks.v1.Tasks/{method}", request, answer)
    time.sleep(moment)  # the moment of leaving, not a wait
    pending.cancel()


def test_a_client_that_leaves_at_any_moment_of_a_pull_leaves_what_the_next_one_goes_on_from(run: crash.Run, source: Registry) -> None:
    for number, moment in enumerate(LEAVING):
        image = images.image([images.layer({"noise": random.Random(f"{run.ns}{number}").randbytes(200_000)})])
        reference = source.add(image, f"{run.ns}/left{number}:1")
        resolver = registry_pb2.RegistryResolver(default_scheme="http")
        own = platform.default()
        wanted = platform_pb2.Platform(os=own.os, architecture=own.architecture, variant=own.variant)
        unpacks = [imagestore_pb2.UnpackConfiguration(platform=wanted, snapshotter=model.SNAPSHOTTER)]
        request = transfer_pb2.TransferRequest(
            source=anys.pack(registry_pb2.OCIRegistry(reference=reference, resolver=resolver)),
            destination=anys.pack(imagestore_pb2.ImageStore(name=reference, platforms=[wanted], unpacks=unpacks)),
        )
        from google.protobuf import empty_pb2

        with run.world.connected(run.ns) as conn:
            pending = conn.begin("/containerd.services.transfer.v1.Transfer/Transfer", request, empty_pb2.Empty)
            time.sleep(moment * 2)  # the moment of leaving, not a wait
            pending.cancel()
            pull(conn, reference)
            assert not [*model.damaged(conn), *model.incomplete(conn)]
            leakcheck.settle(lambda conn=conn: " ".join(one.ref for one in content.statuses(conn)))  # type: ignore[misc]
            image_records.delete(conn, reference)
