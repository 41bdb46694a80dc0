"""Layers that are unpacked before those below them are there give the tree that unpacking in order gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from pydock.testing import flaky_registry, images, layers

pytestmark = pytest.mark.root

Ctr = Any
META = layers.Meta


def stacked(seed: bytes) -> images.Image:
    """Return an image whose upper layers need what lower ones hold: directories, link targets, things to remove."""
    lowest = layers.tar(
        layers.directory(b"./", 0o755),
        layers.directory(b"private", 0o700, META(uid=5, gid=6, mode=0o700)),
        layers.file(b"private/first", b"first", META(mode=0o640, uid=7)),
        layers.directory(b"gone"),
        layers.file(b"gone/old", b"old"),
        layers.directory(b"hidden"),
        layers.file(b"hidden/below", b"below" + seed),
    )
    middle = layers.tar(layers.file(b"private/second", seed), layers.hardlink(b"private/first", b"private/link", META(mode=0o640, uid=7)))
    upper = layers.tar(
        layers.file(b".wh.gone"),
        layers.directory(b"hidden"),
        layers.file(b"hidden/.wh..wh..opq"),
        layers.file(b"hidden/new", b"new"),
        layers.file(b"private/.wh.second"),
        layers.file(b"seed", seed),
    )
    return images.image([lowest, middle, upper])


def tree(top: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return mode, owner and content of all below ``top``."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(top))] = (status.st_mode, status.st_uid, status.st_gid, path.read_bytes() if path.is_file() else b"")
    return found


def mounted(ctr: Ctr, name: str, snapshotter: str, place: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return the tree of an image as the real ctr mounts it."""
    place.mkdir()
    ctr.good("images", "mount", "--snapshotter", snapshotter, name, str(place))
    try:
        return tree(place)
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("flags", [(), ("--local",)], ids=["transfer", "local"])
def test_every_way_gives_the_same_tree(ctr: Ctr, flaky: flaky_registry.FlakyRegistry, tmp_path: Path, flags: tuple[str, ...]) -> None:
    name = flaky.add(stacked(b""), "a/stacked:1")
    ctr.pull(name, *flags)
    seen = mounted(ctr, name, "overlayfs", tmp_path / "seen")
    assert {path: entry[3] for path, entry in seen.items() if entry[3]} == {
        "private/first": b"first",
        "private/link": b"first",
        "hidden/new": b"new",
    }
    assert "gone" not in seen
    assert seen["private"][:3] == (0o40700, 5, 6)
    assert seen["private/link"][:2] == (0o100640, 7)


def test_a_layer_that_arrives_last_holds_back_those_above_it(ctr: Ctr, flaky: flaky_registry.FlakyRegistry, tmp_path: Path) -> None:
    image = stacked(b"late")
    name = flaky.add(image, "a/late:1")
    lowest = next(key for key, data in image.blobs.items() if data[:2] == b"\x1f\x8b")
    may_go, uppers = threading.Event(), [key for key, data in image.blobs.items() if data[:2] == b"\x1f\x8b"][1:]

    def late(answer: flaky_registry.Answer, _: flaky_registry.Seen) -> flaky_registry.Answer:
        may_go.wait(20)
        return answer

    flaky.on("GET", lowest, late, times=1)
    pulling = threading.Thread(target=ctr.pull, args=(name,))
    pulling.start()
    while not all(flaky.seen(key) for key in uppers) and pulling.is_alive():
        os.sched_yield()
    assert ctr.left().committed == ()  # all above has arrived, and nothing stands on what is not there
    may_go.set()
    pulling.join(30)
    assert mounted(ctr, name, "overlayfs", tmp_path / "seen")["private/link"][3] == b"first"


def test_a_wrong_layer_takes_back_those_that_were_ready(ctr: Ctr, flaky: flaky_registry.FlakyRegistry) -> None:
    good, bad = stacked(b"good"), layers.tar(layers.file(b"x", b"x"), layers.symlink(b"/", b"y"), layers.file(b".wh..", b""))
    blobs = [layers.tar(layers.file(b"a", b"a")), bad, layers.tar(layers.file(b"c", b"c"))]
    name = flaky.add(images.image(blobs), "a/wrong:1")
    assert "invalid" in ctr.refused(name)
    left = ctr.left()
    assert (left.active, left.leases, left.images, left.ingests) == ((), (), (), {})
    ctr.pull(flaky.add(good, "a/wrong:1"))


def test_images_that_share_layers_share_snapshots(ctr: Ctr, flaky: flaky_registry.FlakyRegistry) -> None:
    shared = [images.layer({"base": os.urandom(8)}), images.layer({"more": os.urandom(8)})]
    names = [flaky.add(images.image([*shared, images.layer({"own": str(at).encode()})]), f"a/family{at}:1") for at in range(3)]
    pulls = [threading.Thread(target=ctr.pull, args=(name,)) for name in names]
    for pull in pulls:
        pull.start()
    for pull in pulls:
        pull.join(60)
    left = ctr.left()
    assert set(left.images) == set(names)
    assert len(left.committed) == 5
    assert left.active == ()


def test_native_snapshots_are_made_in_order(ctr: Ctr, flaky: flaky_registry.FlakyRegistry, tmp_path: Path) -> None:
    name = flaky.add(stacked(b""), "a/native:1")
    ctr.pull(name, "--local", "--snapshotter", "native")
    ctr.pull(name)
    assert mounted(ctr, name, "native", tmp_path / "native") == mounted(ctr, name, "overlayfs", tmp_path / "overlay")
    shutil.rmtree(tmp_path / "native")
