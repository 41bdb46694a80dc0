"""The blobs contract over each backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydock.core import content
from pydock.testing import contract_blobs
from pydock_plugins.content import local


class TestLocalBlobs(contract_blobs.BlobsContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> content.Blobs:
        return local.open_blobs(tmp_path / "content")

    @pytest.fixture
    def restart(self, tmp_path: Path) -> contract_blobs.Restart:
        async def again() -> content.Blobs:
            return local.open_blobs(tmp_path / "content")

        return again
