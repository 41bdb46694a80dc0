"""No space, no descriptors, damaged records, clients that do not read: said plainly, survived, and gone with their cause."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydock._proto.containerd.services.events.v1 import events_pb2
from pydock._proto.containerd.types import event_pb2
from pydock.base import errors, platform
from pydock.client import connection, content, namespaces, snapshots, tasks, transfer
from pydock.client import images as image_records
from pydock.testing import crash, flaky_registry, images, leakcheck, model
from pydock.testing import daemon as harness

pytestmark = pytest.mark.root

World = crash.World
Registry = flaky_registry.FlakyRegistry
DISK = 24 << 20
EVENTS = 3000
LABEL = "x" * 3500  # bytes of each event
GROWTH = 40 << 20  # bytes the daemon may grow by, of which its log of events is 4 MB


def picture(seed: int, size: int) -> images.Image:
    return images.image([images.layer({"noise": random.Random(seed).randbytes(size)})])


def pull(conn: connection.Connection, reference: str) -> None:
    wanted = transfer.Wanted([platform.default()], snapshotter=model.SNAPSHOTTER)
    transfer.pull(conn, transfer.Registry(reference, plain_http=True), wanted, lambda _: None)


@pytest.fixture
def small(tree: Path) -> Iterator[World]:
    """A world on a small disk."""
    with harness.place("pydock-small-") as directory:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", directory], check=True)
        made = crash.World(directory, tree)
        made.start()
        try:
            yield made
        finally:
            made.daemon.stop()
            harness.end_strays(directory)
            for point in reversed(harness.mount_points(directory)):
                subprocess.run(["umount", "--lazy", point], check=True)
            subprocess.run(["umount", "--lazy", directory], check=True)
            crash.remove_cgroups(directory.name)


def fill(directory: Path) -> Path:
    """Take all the room there is."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    return filler


def test_a_pull_that_does_not_fit_says_so_and_the_next_one_that_does_works(small: World, source: Registry) -> None:
    large, little = source.add(picture(1, DISK), "large:1"), source.add(picture(2, 100_000), "little:1")
    with small.run() as run, small.connected(run.ns) as conn:
        for _ in range(2):
            with pytest.raises(errors.PydockError, match="no space left"):
                pull(conn, large)
            assert not list(image_records.listing(conn))
        run.clear()
        pull(conn, little)
        assert [image.name for image in image_records.listing(conn)] == [little]
        assert not list(model.damaged(conn)) + list(model.incomplete(conn))
        run.clear()
    leakcheck.settle(small.orphans)


def test_a_full_disk_stops_what_writes_and_not_what_reads_or_deletes(small: World, source: Registry) -> None:
    reference = source.add(picture(3, 500_000), "image:1")
    with small.run() as run, small.connected(run.ns) as conn:
        pull(conn, reference)
        run.container(conn, "web", "sleep", "1000")
        run.create(conn, "web")
        run.start(conn, "web")
        filler = fill(small.daemon.place)
        with pytest.raises(errors.PydockError, match=r"(?i)no space left"):
            content.ingest(conn, "blob", io.BytesIO(bytes(1_000_000)))
        with pytest.raises(errors.PydockError):
            run.container(conn, "next", "sleep", "1000")
            run.create(conn, "next")
        run.history.may_be(run.key("task", "next"), model.ABSENT)
        assert [image.name for image in image_records.listing(conn)] == [reference]
        run.kill(conn, "web")
        run.delete(conn, "web")
        image_records.delete(conn, reference, sync=True)
        assert not list(content.listing(conn))
        filler.unlink()
        run.check()
        with contextlib.suppress(errors.NotFound):
            run.forget(conn, "next")
        run.container(conn, "last", "sleep", "1000")
        run.create(conn, "last")
        run.start(conn, "last")
        run.kill(conn, "last")
        pull(conn, reference)
        run.clear()
    leakcheck.settle(small.orphans)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing in it": lambda data: b"",
    "its first half": lambda data: data[: len(data) // 2],
    "a page of zeros": lambda data: data[:4096] + bytes(4096) + data[8192:],
    "other bytes": lambda data: bytes(byte ^ 0x5A for byte in data),
}


def test_damaged_records_stop_the_start_and_nothing_is_collected(fresh: World, source: Registry) -> None:
    reference = source.add(picture(4, 50_000), "image:1")
    with fresh.run() as run:
        with fresh.connected(run.ns) as conn:
            pull(conn, reference)
        fresh.daemon.stop()
        file = fresh.daemon.root / "meta.db"
        whole = file.read_bytes()
        blobs = sorted(path.name for path in fresh.daemon.root.glob("io.containerd.content.v1.content/blobs/*/*"))
        assert len(blobs) == 3
        for what, damage in DAMAGE.items():
            damaged = damage(whole)
            file.write_bytes(damaged)
            with pytest.raises(harness.DaemonFailed, match=r"meta\.db"):
                fresh.daemon.start()
            assert file.read_bytes() == damaged, what
            assert sorted(path.name for path in fresh.daemon.root.glob("io.containerd.content.v1.content/blobs/*/*")) == blobs
        file.write_bytes(whole)
        fresh.start()
        with fresh.connected(run.ns) as conn:
            assert not list(model.damaged(conn)) + list(model.incomplete(conn))
            assert [image.name for image in image_records.listing(conn)] == [reference]
        run.clear()


def test_a_daemon_without_descriptors_refuses_and_loses_no_exit(world: World, source: Registry) -> None:
    reference = source.add(picture(5, 200_000), "few:1")
    with world.run() as run, world.connected(run.ns) as conn:
        run.container(conn, "web", "sleep", "1000")
        run.container(conn, "next", "sleep", "1000")
        pid = run.create(conn, "web")
        run.start(conn, "web")
        ended = tasks.wait(conn, "web")
        daemon = world.daemon.pid
        limits = resource.prlimit(daemon, resource.RLIMIT_NOFILE)
        used = {int(entry.name) for entry in Path(f"/proc/{daemon}/fd").iterdir()}
        free = next(number for number in itertools.count() if number not in used)
        resource.prlimit(daemon, resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        try:
            for _ in range(3):
                with pytest.raises(errors.PydockError):
                    pull(conn.within(5), reference)
                with pytest.raises(errors.PydockError):
                    run.create(conn.within(5), "next")
            os.kill(pid, signal.SIGKILL)
            assert ended.result().exit_status == 137
        finally:
            resource.prlimit(daemon, resource.RLIMIT_NOFILE, limits)
        run.history.may_be(run.key("task", "web"), "stopped")
        run.history.may_be(run.key("task", "next"), model.ABSENT)
        run.check()
        run.delete(conn, "web")
        run.create(conn, "next")
        run.start(conn, "next")
        pull(conn, reference)
        run.clear()
    leakcheck.settle(world.leaked)


def test_a_subscriber_that_never_reads_costs_little_and_is_told_what_it_missed(world: World) -> None:
    with world.run() as run, world.connected(run.ns) as conn:
        namespaces.create(conn, run.ns, {})
        call = conn.channel.unary_stream(
            "/containerd.services.events.v1.Events/Subscribe",
            request_serializer=events_pb2.SubscribeRequest.SerializeToString,
            response_deserializer=event_pb2.Envelope.FromString,
        )
        lazy = call(events_pb2.SubscribeRequest(filters=[f'namespace=="{run.ns}"']), timeout=60)
        memory = rss(world)
        for number in range(EVENTS):
            namespaces.label(conn, run.ns, {"n": f"{number}-{LABEL}"})
        assert rss(world) - memory < GROWTH
        with connection.connect(str(world.daemon.address), run.ns) as other:
            assert namespaces.get(other, run.ns).labels["n"].startswith(f"{EVENTS - 1}-")
        lazy.cancel()
        namespaces.delete(conn, run.ns)


def rss(world: World) -> int:
    """Return the bytes of memory the daemon has."""
    return int(Path(f"/proc/{world.daemon.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_blob_of_other_bytes_is_not_taken_for_the_image(world: World, source: Registry) -> None:
    """The bytes on disk are not looked at again when they are read: what notices is unpacking, by the diff id of the layer."""
    image = picture(6, 100_000)
    reference = source.add(image, "broken:1")
    with world.run() as run, world.connected(run.ns) as conn:
        plain = transfer.Wanted([platform.default()])
        transfer.pull(conn, transfer.Registry(reference, plain_http=True), plain, lambda _: None)
        large = max(image.blobs, key=lambda key: len(image.blobs[key]))
        file = world.daemon.root / "io.containerd.content.v1.content/blobs" / large.replace(":", "/")
        kept = tmp_copy(file)
        file.chmod(0o600)
        file.write_bytes(picture(7, 100_000).blobs[max(picture(7, 100_000).blobs, key=lambda key: len(picture(7, 100_000).blobs[key]))])
        with pytest.raises(errors.PydockError):
            pull(conn, reference)
        assert not [one for one in snapshots.listing(conn, model.SNAPSHOTTER) if model.KINDS[one.kind] == "committed"]
        shutil.move(kept, file)
        pull(conn, reference)
        run.clear()


def tmp_copy(file: Path) -> Path:
    """Return a copy of ``file`` beside the place."""
    copy = file.with_name(f"{file.name}.kept").parent.parent.parent.parent / "kept"
    shutil.copy(file, copy)
    return copy
