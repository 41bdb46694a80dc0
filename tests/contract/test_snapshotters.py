"""The snapshotter contract over each backend, with real mounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pydock.core import snapshots
from pydock.testing import contract_snapshots
from pydock_plugins.mounts import kernel
from pydock_plugins.snapshots import native, overlay


@pytest.fixture
def work(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    place.mkdir()
    return place


@pytest.fixture
def mounter(tmp_path: Path) -> kernel.KernelMounter:
    return kernel.KernelMounter(tmp_path)


class TestOverlay(contract_snapshots.SnapshotterContract):
    renames_directories = False

    @pytest.fixture
    async def snapshotter(self, tmp_path: Path) -> AsyncIterator[snapshots.Snapshotter]:
        async with overlay.opened(tmp_path / "root", overlay.OverlayConfig()) as opened:
            yield opened


class TestNative(contract_snapshots.SnapshotterContract):
    renames_directories = True

    @pytest.fixture
    async def snapshotter(self, tmp_path: Path) -> AsyncIterator[snapshots.Snapshotter]:
        async with native.opened(tmp_path / "root", native.NativeConfig()) as opened:
            yield opened
