"""The daemon's side of unpacking: growing blobs, late lowers, cancelled, killed and stuck helpers, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import select
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from pydock.base import errors
from pydock.core import mounts
from pydock.testing import layers
from pydock_plugins.diff import limits, tar_apply, unpacker

pytestmark = pytest.mark.root

LAYER = layers.tar(layers.directory(b"d"), layers.file(b"d/f", b"x" * 5000), layers.symlink(b"f", b"d/l"))


@contextlib.contextmanager
def holding(data: bytes) -> Iterator[int]:
    fd = os.memfd_create("blob")
    os.write(fd, data)
    try:
        yield fd
    finally:
        os.close(fd)


class Growing:
    """A blob that grows by ``step`` bytes whenever it is asked for more."""

    def __init__(self, fd: int, data: bytes, step: int) -> None:
        self.fd, self.size, self.available = fd, len(data), 0
        self._data, self._step = data, step

    async def grown(self, beyond: int) -> int:
        await asyncio.sleep(0)
        piece = self._data[self.available : self.available + self._step]
        os.pwrite(self.fd, piece, self.available)
        self.available += len(piece)
        return self.available


class Stuck(Growing):
    """A blob that never grows; ``asked`` is set when somebody waits for it."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, b"x" * 1000, 0)
        self.asked = asyncio.Event()

    async def grown(self, beyond: int) -> int:
        self.asked.set()
        await asyncio.Event().wait()
        return 0


def plain(blob: Any, target: Path) -> unpacker.ApplyRequest:
    return unpacker.ApplyRequest(blob, target, "plain")


def children(pid: int) -> set[str]:
    """The processes whose parent is ``pid``."""
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.add(entry.name)
    return found


def helper_processes() -> set[str]:
    """Our zygotes and their children."""
    ours = children(os.getpid())  # other modules' daemons may be among them
    zygotes = {pid for pid in ours if b"diff.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    return zygotes.union(*(children(int(zygote)) for zygote in zygotes))


async def nothing() -> None: ...


uvloop.run(nothing())  # what the library opens once and keeps is not a leak of ours


@pytest.fixture(autouse=True)
def no_process_or_descriptor_is_left() -> Iterator[None]:
    processes, descriptors = helper_processes(), set(os.listdir("/proc/self/fd"))
    yield
    assert helper_processes() <= processes
    assert len(os.listdir("/proc/self/fd")) <= len(descriptors)


async def test_the_answer_is_size_diff_id_and_entries(helpers: unpacker.Unpacker, root: Path) -> None:
    with holding(layers.gzipped(LAYER + b"tail")) as fd:
        result = await helpers.apply(plain(unpacker.Whole(fd, os.fstat(fd).st_size), root))
    digest = hashlib.sha256(LAYER + b"tail").hexdigest()
    assert result == unpacker.ApplyResult(len(LAYER) + 4, "sha256:" + digest, 3)
    assert (root / "d/l").read_bytes() == b"x" * 5000


@pytest.mark.parametrize("step", [1, 700, 1 << 20])
async def test_a_blob_is_unpacked_while_it_arrives(helpers: unpacker.Unpacker, root: Path, step: int) -> None:
    data = layers.gzipped(LAYER) if step > 1 else layers.gzipped(layers.tar(layers.file(b"f", b"x")))
    with holding(b"") as fd:
        result = await helpers.apply(plain(Growing(fd, data, step), root))
    assert result.entries >= 1


async def test_a_blob_that_fails_to_arrive_fails_the_layer(helpers: unpacker.Unpacker, root: Path) -> None:
    class Failing(Growing):
        async def grown(self, beyond: int) -> int:
            raise errors.Unavailable("registry went away")

    with holding(b"") as fd:
        with pytest.raises(errors.Unavailable, match="registry went away"):
            await helpers.apply(plain(Failing(fd, LAYER, 1), root))


async def test_a_blob_shorter_than_it_was_said_is_data_loss(helpers: unpacker.Unpacker, root: Path) -> None:
    with holding(LAYER[:700]) as fd:
        with pytest.raises(errors.DataLoss, match="ends at 700 bytes of"):
            await helpers.apply(plain(unpacker.Whole(fd, len(LAYER)), root))


async def test_a_cancelled_unpack_leaves_no_process(helpers: unpacker.Unpacker, root: Path) -> None:
    with holding(b"") as fd:
        blob = Stuck(fd)
        work = asyncio.ensure_future(helpers.apply(plain(blob, root)))
        await blob.asked.wait()
        assert len(helper_processes()) == 2
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert len(helper_processes()) == 1
    with holding(LAYER) as fd:
        await helpers.apply(plain(unpacker.Whole(fd, len(LAYER)), root))


async def test_a_helper_that_is_killed_is_an_error_that_says_so(helpers: unpacker.Unpacker, root: Path) -> None:
    with holding(b"") as fd:
        blob = Stuck(fd)
        work = asyncio.ensure_future(helpers.apply(plain(blob, root)))
        await blob.asked.wait()
        assert helpers._helper is not None
        (child,) = helper_processes() - {str(helpers._helper.pid)}
        os.kill(int(child), signal.SIGKILL)
        with pytest.raises(errors.Internal, match="ended by signal 9"):
            await work


async def test_a_dead_zygote_is_replaced(helpers: unpacker.Unpacker, root: Path) -> None:
    with holding(LAYER) as fd:
        whole = unpacker.Whole(fd, len(LAYER))
        await helpers.apply(plain(whole, root))
        assert helpers._helper is not None
        first = helpers._helper.pid
        os.kill(first, signal.SIGKILL)
        with contextlib.suppress(errors.Unavailable):
            await helpers.apply(plain(whole, root))
        await helpers.apply(plain(whole, root))
        assert helpers._helper.pid != first


async def test_a_helper_that_does_nothing_is_given_up(root: Path) -> None:
    layer = layers.tar(layers.file(b"a/b/c"))
    async with unpacker.Unpacker(stall=0.3) as helpers:

        async def stop_it() -> Sequence[str]:
            assert helpers._helper is not None
            (child,) = children(helpers._helper.pid)
            os.kill(int(child), signal.SIGSTOP)
            return []

        with holding(layer) as fd:
            request = unpacker.ApplyRequest(unpacker.Whole(fd, len(layer)), root, "overlay", stop_it)
            with pytest.raises(errors.DeadlineExceeded, match="did nothing for"):
                await helpers.apply(request)


async def test_a_zygote_that_does_nothing_is_given_up_and_replaced(root: Path) -> None:
    async with unpacker.Unpacker(stall=0.3) as helpers:
        with holding(LAYER) as fd:
            request = plain(unpacker.Whole(fd, len(LAYER)), root)
            await helpers.apply(request)
            assert helpers._helper is not None
            os.kill(helpers._helper.pid, signal.SIGSTOP)
            with pytest.raises(errors.DeadlineExceeded, match="does not answer"):
                await helpers.apply(request)
            await helpers.apply(request)


async def test_idle_helpers_end(root: Path) -> None:
    async with unpacker.Unpacker(linger=0) as helpers:
        with holding(LAYER) as fd:
            await helpers.apply(plain(unpacker.Whole(fd, len(LAYER)), root))
        while helpers._helper is not None:
            await asyncio.sleep(0.001)
        with holding(LAYER) as fd:
            await helpers.apply(plain(unpacker.Whole(fd, len(LAYER)), root))


async def test_lowers_are_asked_for_only_when_needed_and_may_come_late(helpers: unpacker.Unpacker, overlay: Any, root: Path) -> None:
    asked = asyncio.Event()
    go = asyncio.Event()

    async def late() -> Sequence[str]:
        asked.set()
        await go.wait()
        (overlay.lower / "d").mkdir(mode=0o711)
        return [str(overlay.lower)]

    with holding(LAYER) as fd:
        await helpers.apply(unpacker.ApplyRequest(unpacker.Whole(fd, len(LAYER)), overlay.upper, "overlay", late))
    assert not asked.is_set()
    needy = layers.tar(layers.file(b"e/f", b"x"), layers.file(b"d2/x"))
    with holding(needy) as fd:
        work = asyncio.ensure_future(helpers.apply(unpacker.ApplyRequest(unpacker.Whole(fd, len(needy)), overlay.upper, "overlay", late)))
        await asked.wait()
        assert not work.done()
        go.set()
        await work


async def test_many_lowers_are_passed(helpers: unpacker.Unpacker, tmp_path: Path) -> None:
    lowers = [tmp_path / str(number) for number in range(150)]
    for path in lowers:
        path.mkdir()
    (lowers[-1] / "deep").mkdir(mode=0o700)
    (tmp_path / "upper").mkdir()
    layer = layers.tar(layers.file(b"deep/f"))

    async def given() -> Sequence[str]:
        return [str(path) for path in lowers]

    with holding(layer) as fd:
        await helpers.apply(unpacker.ApplyRequest(unpacker.Whole(fd, len(layer)), tmp_path / "upper", "overlay", given))
    assert (tmp_path / "upper/deep").stat().st_mode & 0o777 == 0o700


async def test_layers_unpack_in_parallel_within_the_bound(tmp_path: Path) -> None:
    async with unpacker.Unpacker(concurrency=2) as helpers, asyncio.TaskGroup() as group:
        for number in range(6):
            (tmp_path / str(number)).mkdir()

            async def one(number: int = number) -> None:
                with holding(LAYER) as fd:
                    await helpers.apply(plain(unpacker.Whole(fd, len(LAYER)), tmp_path / str(number)))

            group.create_task(one())
    assert all((tmp_path / f"{number}/d/f").exists() for number in range(6))


async def test_limits_reach_the_helper(root: Path) -> None:
    async with unpacker.Unpacker(bounds=limits.Limits(entries=2)) as helpers:
        with holding(LAYER) as fd:
            with pytest.raises(errors.ResourceExhausted, match="more than 2 entries"):
                await helpers.apply(plain(unpacker.Whole(fd, len(LAYER)), root))


async def test_a_full_disk_is_resource_exhausted(helpers: unpacker.Unpacker, tmp_path: Path) -> None:
    from pydock.base import syscalls

    small = tmp_path / "small"
    small.mkdir()
    syscalls.mount(b"tmpfs", os.fsencode(small), b"tmpfs", 0, b"size=64k")
    try:
        big = layers.tar(layers.file(b"big", b"x" * 200_000))
        with holding(big) as fd:
            with pytest.raises(errors.ResourceExhausted, match='"big": No space left'):
                await helpers.apply(plain(unpacker.Whole(fd, len(big)), small))
    finally:
        syscalls.umount(os.fsencode(small))


class NoMounts:
    async def mount_all(self, mounts: Sequence[mounts.Mount], target: Path) -> None:
        raise AssertionError

    async def unmount_all(self, target: Path) -> None:
        raise AssertionError

    def mounted(self, mounts: Sequence[mounts.Mount]) -> Any:
        raise AssertionError


class Reader:
    def __init__(self, fd: int) -> None:
        self.fd, self.size = fd, os.fstat(fd).st_size

    async def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self.fd, length, offset)

    async def close(self) -> None: ...


async def apply_to(helpers: unpacker.Unpacker, *target: mounts.Mount) -> Any:
    from pydock.oci import image

    applier = tar_apply.TarApplier(helpers, NoMounts())
    with holding(layers.gzipped(LAYER)) as fd:
        return await applier.apply(image.Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "", 0), Reader(fd), target)


async def test_an_overlay_mount_is_written_without_mounting(helpers: unpacker.Unpacker, overlay: Any) -> None:
    options = (f"lowerdir={overlay.lower}", f"upperdir={overlay.upper}", f"workdir={overlay.work}")
    applied = await apply_to(helpers, mounts.Mount("overlay", "overlay", options=options))
    assert (applied.size, applied.digest) == (len(LAYER), "sha256:" + hashlib.sha256(LAYER).hexdigest())
    assert (overlay.upper / "d/f").exists()


async def test_a_bind_mount_is_written_at_its_source(helpers: unpacker.Unpacker, root: Path) -> None:
    await apply_to(helpers, mounts.Mount("bind", str(root), options=("rbind", "rw")))
    assert (root / "d/f").exists()


async def test_a_read_only_target_is_refused(helpers: unpacker.Unpacker, root: Path) -> None:
    with pytest.raises(errors.FailedPrecondition):
        await apply_to(helpers, mounts.Mount("bind", str(root), options=("rbind", "ro")))
    with pytest.raises(errors.FailedPrecondition):
        await apply_to(helpers, mounts.Mount("overlay", "overlay", options=(f"lowerdir={root}:{root}",)))


def test_lower_directories_are_split_at_bare_colons() -> None:
    assert tar_apply.split_lowers(r"/a:/b\:c:/d\\e") == ("/a", "/b:c", "/d\\e")


async def test_what_the_mounts_of_a_snapshot_make_is_mounted_where_need_be(helpers: unpacker.Unpacker, tmp_path: Path) -> None:
    from pydock.oci import image
    from pydock_plugins.mounts import kernel

    for name in ("top", "sub", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "top/d").mkdir()
    target = (
        mounts.Mount("bind", str(tmp_path / "top"), options=("rbind", "rw")),
        mounts.Mount("bind", str(tmp_path / "sub"), "d", options=("rbind", "rw")),
    )
    before = Path("/proc/self/mountinfo").read_text()
    applier = tar_apply.TarApplier(helpers, kernel.KernelMounter(tmp_path / "run"), sync=True)
    with holding(LAYER) as fd:
        await applier.apply(image.Descriptor("application/vnd.oci.image.layer.v1.tar", "", 0), Reader(fd), target)
    assert (tmp_path / "sub/f").read_bytes() == b"x" * 5000
    assert list((tmp_path / "top/d").iterdir()) == []
    assert Path("/proc/self/mountinfo").read_text() == before


def test_it_works_on_the_loop_the_daemon_uses(root: Path) -> None:
    async def unpack() -> unpacker.ApplyResult:
        async with unpacker.Unpacker() as helpers:
            with holding(b"") as fd:
                await helpers.apply(plain(Growing(fd, LAYER, 700), root))
            with holding(LAYER) as fd:
                return await helpers.apply(unpacker.ApplyRequest(unpacker.Whole(fd, len(LAYER)), root, "overlay", sync=True))

    assert uvloop.run(unpack()).entries == 3


DAEMON = """
import asyncio, os, pathlib, sys
from pydock_plugins.diff import unpacker

class Stuck:
    fd, size, available = os.memfd_create("blob"), 1000, 0
    async def grown(self, beyond):
        print("waiting", flush=True)
        await asyncio.Event().wait()

async def main():
    async with unpacker.Unpacker() as helpers:
        await helpers.apply(unpacker.ApplyRequest(Stuck(), pathlib.Path(sys.argv[1]), "plain"))

asyncio.run(main())
"""


def test_no_helper_outlives_a_daemon_that_was_killed(root: Path) -> None:
    import subprocess
    import sys

    with subprocess.Popen([sys.executable, "-c", DAEMON, str(root)], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"waiting\n"
        (zygote,) = children(daemon.pid)
        family = {zygote, *children(int(zygote))}
        assert len(family) == 2
        pidfds = [os.pidfd_open(int(pid)) for pid in family]
        daemon.kill()
    for pidfd in pidfds:
        select.select([pidfd], [], [], 10)
        os.close(pidfd)
    assert not any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family)
