"""A disk that fills up in the middle of a pull or an import: it is said so, the daemon lives, and with room again all goes on."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pydock.testing import daemon as harness
from pydock.testing import flaky_registry as flaky_registries
from pydock.testing import images

pytestmark = pytest.mark.root

Ctr = Any
ROOM = 24 << 20


@pytest.fixture
def cramped(ctr: Ctr) -> Iterator[Ctr]:
    """The client of a daemon whose root has little room."""
    with harness.place() as place:
        root = place / "root"
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0700", "cramped", root], check=True)
        daemon = harness.Daemon(place)
        daemon.start()
        try:
            with grpc.insecure_channel(f"unix://{daemon.address}") as channel:
                yield dataclasses.replace(ctr, daemon=daemon, channel=channel)
        finally:
            daemon.stop()
            harness.end_strays(place)


def fill(ctr: Ctr, leave: int) -> Path:
    """Leave so many bytes free."""
    ballast: Path = ctr.daemon.root / "ballast"
    stat = subprocess.run(["stat", "-f", "-c", "%f %S", ctr.daemon.root], check=True, capture_output=True, text=True).stdout.split()
    with ballast.open("wb") as file:
        file.truncate(0)
        file.write(bytes(int(stat[0]) * int(stat[1]) - leave))
    return ballast


def large(seed: str) -> images.Image:
    """Return an image of 2 MB, compressed and not."""
    import random

    noise = random.Random(seed).randbytes(2_000_000)
    return images.image([images.layer({"noise": noise})])


@pytest.mark.parametrize("room", [1_000_000, 3_000_000])
def test_a_pull_that_finds_no_room_is_told_and_works_when_there_is(cramped: Ctr, flaky: flaky_registries.FlakyRegistry, room: int) -> None:
    """With less room than the blob takes, and with room for the blob but not for what is unpacked of it."""
    image = large(f"room {room}")
    name = flaky.add(image, "h/full:1")
    ballast = fill(cramped, room)
    assert "no space left on device" in cramped.refused(name).lower()
    ballast.unlink()
    left = cramped.left()
    assert (left.ingests, left.active, left.images) == ({}, (), ())
    cramped.pull(name)
    assert cramped.left().images == (name,)
    assert len(cramped.left().committed) == 1


def test_an_import_that_finds_no_room_is_told_and_works_when_there_is(cramped: Ctr, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(images.archive(large("import"), "docker.io/library/full:1"))
    ballast = fill(cramped, 1_000_000)
    assert "no space left on device" in cramped.bad("images", "import", str(tmp_path / "a.tar")).lower()
    ballast.unlink()
    left = cramped.left()
    assert (left.ingests, left.active, left.images) == ({}, (), ())
    cramped.good("images", "import", str(tmp_path / "a.tar"))
    assert cramped.left().images == ("docker.io/library/full:1",)
