"""Layers made from real trees into a real store: what they hold, what they are called, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import stat
import tarfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pydock.base import errors
from pydock.core import content, diff, leases, mounts
from pydock.domain import compare as domain
from pydock.oci import image
from pydock.store import content as contents
from pydock.store import leases as lease_records
from pydock.store import schema, waste
from pydock.testing import memory
from pydock_plugins.content import local
from pydock_plugins.diff import compare, tar_walk
from pydock_plugins.mounts import kernel

pytestmark = pytest.mark.root


class Place:
    """A store, a comparer and two trees."""

    def __init__(self, folder: Path, store: content.Store, manager: lease_records.Leases) -> None:
        self.folder, self.store, self.leases = folder, store, manager
        self.lower, self.upper = folder / "lower", folder / "upper"
        for path in (self.lower, self.upper):
            path.mkdir()
        self.comparer = compare.Walker(kernel.KernelMounter(folder))

    async def layer(self, media_type: str = image.LAYER, **wanted: Any) -> image.Descriptor:
        epoch = wanted.pop("epoch", None)
        trees = wanted.pop("trees", diff.Trees([bind(self.lower)], [bind(self.upper)]))
        request = domain.Request(trees, diff.LayerOptions(media_type, epoch), **wanted)
        return await domain.layer(self.store, self.comparer, "ns", request)

    async def read(self, made: image.Descriptor) -> bytes:
        reader = await self.store.open("ns", made.digest)
        try:
            return await reader.read_at(0, made.size)
        finally:
            await reader.close()

    async def members(self, **wanted: Any) -> dict[str, tarfile.TarInfo]:
        data = await self.read(await self.layer(**wanted))
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return {member.name: member for member in tar}


def bind(path: Path) -> mounts.Mount:
    return mounts.Mount("bind", str(path), options=("rbind", "ro"))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    blobs = local.open_blobs(tmp_path / "content")
    async with schema.open_metadata(tmp_path / "meta.db") as database:
        left = waste.Waste()
        store = contents.Content(database, memory.Recorder(), blobs, left)
        yield Place(tmp_path, store, lease_records.Leases(database, left))


@pytest.mark.parametrize(
    ("media_type", "told", "unpack"),
    [
        ("", image.LAYER_GZIP, gzip.decompress),
        (image.DOCKER_LAYER_GZIP, image.DOCKER_LAYER_GZIP, gzip.decompress),
        (image.LAYER_ZSTD, image.LAYER_ZSTD, lambda data: zstandard.ZstdDecompressor().stream_reader(data).read()),
        (image.LAYER, image.LAYER, bytes),
    ],
)
async def test_a_layer_is_compressed_as_asked_and_carries_its_diff_id(place: Place, media_type: str, told: str, unpack: Any) -> None:
    (place.upper / "f").write_bytes(os.urandom(3_000_000))
    made = await place.layer(media_type, labels={"k": "v"})
    data = await place.read(made)
    diff_id = f"sha256:{hashlib.sha256(unpack(data)).hexdigest()}"
    assert (made.media_type, made.size, made.digest) == (told, len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
    labels = {"k": "v"} if told == image.LAYER else {"k": "v", "containerd.io/uncompressed": diff_id}
    assert (await place.store.info("ns", made.digest)).labels == labels
    assert await place.layer(media_type) == made
    assert await place.store.statuses("ns") == []


async def test_an_unknown_media_type_is_refused_and_leaves_no_ingest(place: Place) -> None:
    with pytest.raises(errors.Unimplemented, match="unsupported diff media type: x/y"):
        await place.layer("x/y")
    assert await place.store.statuses("ns") == []


async def test_the_clients_ref_is_used_and_its_earlier_bytes_are_not(place: Place) -> None:
    writer = await place.store.writer("ns", "mine")
    await writer.write(b"left over")
    await writer.close()
    with pytest.raises(errors.Unimplemented):
        await place.layer("x/y", ref="mine")
    assert [status.ref for status in await place.store.statuses("ns")] == ["mine"]
    assert not (await place.read(await place.layer(ref="mine"))).strip(b"\0")
    assert await place.store.statuses("ns") == []


async def test_the_lease_holds_the_layer(place: Place) -> None:
    lease = await place.leases.create("ns", leases.Lease("held"))
    made = await place.layer(lease=lease.id)
    assert await place.leases.resources("ns", "held") == [leases.Resource(made.digest, "content")]


async def test_no_time_is_later_than_the_epoch(place: Place) -> None:
    (place.upper / "new").touch()
    (place.upper / "old").touch()
    os.utime(place.upper / "old", ns=(0, 5_000_000_007))
    members = await place.members(epoch=1_000_000_000_000_000_000)
    assert members["new"].mtime == 1_000_000_000
    assert members["old"].pax_headers["mtime"] == "5.000000007"


async def test_what_no_layer_can_hold_is_left_out(place: Place) -> None:
    import socket

    (place.lower / "was").touch()
    for name in ("was", "alone"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(place.upper / name))
    (place.upper / ".wh.passwd").touch()
    (place.upper / "marked").touch()
    for key in ("trusted.overlay.opaque", "trusted.other", "user.overlay.opaque", "user.kept"):
        os.setxattr(place.upper / "marked", key, b"y")
    members = await place.members()
    assert sorted(members) == [".wh.was", "marked"]
    assert [key for key in members["marked"].pax_headers if key.startswith("SCHILY")] == ["SCHILY.xattr.user.kept"]


async def test_large_owners_long_names_and_devices_are_told(place: Place) -> None:
    long = "/".join(["d" * 200] * 3)
    (place.upper / long).mkdir(parents=True)
    os.symlink("t" * 300, place.upper / "link")
    os.mknod(place.upper / "null", stat.S_IFCHR | 0o4612, os.makedev(1, 3))
    os.chown(place.upper / "null", 4_000_000_000, 3_000_000)
    os.chmod(place.upper / "null", 0o4612)
    members = await place.members()
    assert members[long].isdir()
    assert members["link"].linkname == "t" * 300
    null = members["null"]
    assert (null.uid, null.gid, null.mode, null.devmajor, null.devminor) == (4_000_000_000, 3_000_000, 0o4612, 1, 3)


async def test_a_file_larger_than_memory_pieces_with_holes_is_zeros(place: Place) -> None:
    with (place.upper / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    made = await place.layer()
    with tarfile.open(fileobj=io.BytesIO(await place.read(made))) as tar:
        data = tar.extractfile("sparse")
        assert data is not None
        assert data.read() == bytes(5_000_000) + b"end"


async def test_contents_are_looked_at_where_times_are_of_whole_seconds(place: Place) -> None:
    for folder, data in ((place.lower, b"one"), (place.upper, b"two")):
        for name in ("same time", "really same"):
            (folder / name).write_bytes(data if name == "same time" else b"equal")
            os.utime(folder / name, (1, 1))
    assert list(await place.members()) == ["same time"]


async def test_a_link_in_the_place_of_a_directory_is_not_followed(place: Place) -> None:
    """Between the look at a directory's names and its opening, somebody puts a link there."""
    (place.folder / "secret").mkdir()
    (place.folder / "secret/file").write_text("canary")
    (place.upper / "z").touch()  # comes after the look, before the opening
    (place.upper / "swapped").mkdir()

    def emit(piece: bytes) -> None:
        pieces.append(piece)
        if (place.upper / "swapped").is_dir() and not (place.upper / "swapped").is_symlink():
            (place.upper / "swapped").rmdir()
            (place.upper / "swapped").symlink_to(place.folder / "secret")

    pieces: list[bytes] = []
    root = os.open(place.upper, os.O_PATH)
    try:
        tar_walk.Pairs(tar_walk.Layer(emit, tar_walk.Tree(root)), None).write()
    finally:
        os.close(root)
    assert (place.upper / "swapped").is_symlink()
    assert b"canary" not in b"".join(pieces)


async def test_a_fifo_in_the_place_of_a_file_is_not_waited_for(place: Place) -> None:
    (place.upper / "f").touch()
    root = os.open(place.upper, os.O_RDONLY)
    try:
        found = tar_walk.look(root, b"f")
        (place.upper / "f").unlink()
        os.mkfifo(place.upper / "f")
        assert found is not None
        assert tar_walk.open_file(root, found) is None
    finally:
        os.close(root)


async def test_a_cancelled_comparison_ends_its_thread_and_leaves_nothing(place: Place) -> None:
    with (place.upper / "endless").open("wb") as file:
        file.truncate(1 << 40)
    descriptors = len(os.listdir("/proc/self/fd"))
    async with asyncio.timeout(20):
        task = asyncio.ensure_future(place.layer(image.LAYER_GZIP))
        while not await place.store.statuses("ns"):
            await asyncio.sleep(0)
        await asyncio.to_thread(lambda: None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await place.store.statuses("ns") == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not [thread for thread in threading.enumerate() if thread.name == "dedicated-_walk"]


def stacked(upper: Path, *lowers: Path, options: tuple[str, ...] = ()) -> mounts.Mount:
    below = "lowerdir=" + ":".join(map(str, lowers))
    return mounts.Mount("overlay", "overlay", options=(f"workdir={upper}-work", f"upperdir={upper}", below, "index=off", *options))


async def test_several_layers_at_once_are_compared_through_a_read_only_mount(place: Place) -> None:
    middle = place.folder / "middle"
    middle.mkdir()
    (place.lower / "gone").touch()
    (place.lower / "stays").touch()
    os.mknod(middle / "gone", stat.S_IFCHR, 0)
    (middle / "mid").touch()
    (place.upper / "top").touch()
    trees = diff.Trees([bind(place.lower)], [stacked(place.upper, middle, place.lower)])
    assert sorted(await place.members(trees=trees)) == [".wh.gone", "mid", "top"]
    assert not (place.folder / "upper-work").exists()


async def test_a_redirected_directory_is_seen_whole(place: Place) -> None:
    (place.lower / "old").mkdir()
    (place.lower / "old/f").write_text("data")
    work, merged = place.folder / "upper-work", place.folder / "merged"
    work.mkdir()
    merged.mkdir()
    mount = stacked(place.upper, place.lower, options=("redirect_dir=on",))
    kernel.mount_one(mount, merged)
    try:
        (merged / "old").rename(merged / "new")
    finally:
        kernel.unmount_all(merged)
    members = await place.members(trees=diff.Trees([bind(place.lower)], [mount]))
    assert sorted(members) == [".wh.old", "new", "new/f"]


async def test_a_tree_that_is_gone_is_not_found(place: Place) -> None:
    with pytest.raises(errors.NotFound, match="nowhere"):
        await place.layer(trees=diff.Trees([], [bind(Path("/nowhere"))]))
