"""The contracts of snapshotters and of content over mechanisms in another process: a pydockd that offers its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pydock.base import digest, errors
from pydock.core import content, snapshots
from pydock.services import proxy_content, proxy_snapshots, remote
from pydock.testing import contract_blobs, contract_snapshots
from pydock.testing import daemon as harness
from pydock_plugins.mounts import kernel

OFFER = '[plugins."io.pydock.offer.v1.snapshots"]\naddress = "{place}/offer.sock"\n'


@pytest.fixture(scope="module")
def far() -> Iterator[harness.Daemon]:
    """The other process, for all tests: those of content have a namespace each, those of snapshots tidy up."""
    with harness.place() as place:
        daemon = harness.Daemon(place, config=OFFER.format(place=place))
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            harness.end_strays(place)


async def clear(snapshotter: snapshots.Snapshotter) -> None:
    """Remove everything, children first."""
    while left := [info async for info in snapshotter.walk()]:
        parents = {info.parent for info in left}
        for info in left:
            if info.name not in parents:
                await snapshotter.remove(info.name)


class TestProxySnapshotter(contract_snapshots.SnapshotterContract):
    renames_directories = False

    @pytest.fixture
    def work(self, tmp_path: Path) -> Path:
        place = tmp_path / "work"
        place.mkdir()
        return place

    @pytest.fixture
    def mounter(self, tmp_path: Path) -> kernel.KernelMounter:
        return kernel.KernelMounter(tmp_path)

    @pytest.fixture
    async def snapshotter(self, far: harness.Daemon) -> AsyncIterator[snapshots.Snapshotter]:
        there = remote.Remote("far", f"{far.place}/offer.sock", "default")
        made = proxy_snapshots.ProxySnapshotter("far", there)
        yield made
        await clear(made)
        await there.close()


class TestProxyBlobs(contract_blobs.BlobsContract):
    @pytest.fixture
    async def there(self, far: harness.Daemon) -> AsyncIterator[remote.Remote]:
        made = remote.Remote("far", str(far.address), f"test-{uuid.uuid4()}")
        yield made
        await made.close()

    @pytest.fixture
    def blobs(self, there: remote.Remote, tmp_path: Path) -> content.Blobs:
        return proxy_content.ProxyBlobs(there, tmp_path)

    @pytest.fixture
    def restart(self, far: harness.Daemon, there: remote.Remote, tmp_path: Path) -> contract_blobs.Restart:
        async def again() -> content.Blobs:
            far.restart()
            return proxy_content.ProxyBlobs(there, tmp_path)

        return again

    async def test_status_tells_offset_total_and_times_after_each_write(self, blobs: content.Blobs) -> None:
        """As the suite's, but for the time of the last write, which each side takes itself."""
        data, name = contract_blobs.some_bytes()
        writer = await blobs.writer("c1", len(data), name)
        for end in (64, 192, 256):
            await writer.write(data[writer.status().offset : end])
            for status in (writer.status(), await blobs.status("c1"), *await blobs.statuses()):
                assert (status.ref, status.offset, status.total) == ("c1", end, 256)
                assert status.started_at == writer.status().started_at <= status.updated_at
            assert await writer.digest() == digest.compute(data[:end])
        await writer.close()

    @pytest.mark.parametrize("ref", ["../../escape", "a/b", "x" * 1000, "layer-sha256:abc", "ü", "."])
    async def test_a_ref_may_be_any_text(self, blobs: content.Blobs, restart: contract_blobs.Restart, ref: str) -> None:
        """As the suite's, of those texts that the other side's own grammar lets pass."""
        await super().test_a_ref_may_be_any_text(blobs, restart, ref)


async def test_nobody_at_the_other_end_is_unavailable_and_names_the_plugin(tmp_path: Path) -> None:
    there = remote.Remote("away", str(tmp_path / "no.sock"), "default")
    with pytest.raises(errors.Unavailable, match=r"^proxy plugin away: "):
        await proxy_snapshots.ProxySnapshotter("away", there).stat("x")
    await there.close()
