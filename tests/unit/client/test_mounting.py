"""Looking into snapshots without mounting them for anybody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydock.base import errors
from pydock.client import mounting
from pydock.client.snapshots import Mount


def read(path: bytes) -> object:
    def look(root: int) -> bytes:
        fd = os.open(path, os.O_RDONLY, dir_fd=root)
        try:
            return os.read(fd, 100)
        finally:
            os.close(fd)

    return look


def test_a_bind_mount_is_looked_at_where_it_comes_from(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    assert mounting.peek([Mount(type="bind", source=str(tmp_path), options=["rbind", "ro"])], read(b"f")) == b"x"


def overlay(place: Path) -> Mount:
    for name in ("lower", "upper", "work"):
        (place / name).mkdir()
    (place / "lower/f").write_text("lower")
    (place / "upper/f").write_text("upper")
    options = [f"workdir={place}/work", f"upperdir={place}/upper", f"lowerdir={place}/lower", "volatile"]
    return Mount(type="overlay", source="overlay", options=options)


@pytest.mark.root
def test_a_writable_overlay_is_looked_at_without_writing_and_leaves_nothing(tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert mounting.peek([overlay(tmp_path)], read(b"f")) == b"upper"
    assert Path("/proc/self/mountinfo").read_text() == before
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.root
def test_what_fails_inside_is_raised_outside(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        mounting.peek([overlay(tmp_path)], read(b"nothing"))
    with pytest.raises(OSError, match="No such file"):
        mounting.peek([Mount(type="overlay", source="overlay", options=["lowerdir=/nothing/a:/nothing/b"])], read(b"f"))


@pytest.mark.root
def test_mounts_are_made_and_undone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    mounting.mount_all([overlay(tmp_path)], str(target))
    try:
        assert (target / "f").read_text() == "upper"
    finally:
        assert mounting.unmount_all(str(target)) == 1
    assert str(target) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.root
def test_a_read_only_bind_mount_is_read_only(tmp_path: Path) -> None:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    mounting.mount_all([Mount(type="bind", source=str(tmp_path / "source"), options=["rbind", "ro"])], str(tmp_path / "target"))
    try:
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "target/f").write_text("x")
    finally:
        assert mounting.unmount_all(str(tmp_path / "target")) == 1
        assert mounting.unmount_all(str(tmp_path / "target")) == 0
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_options_longer_than_the_kernel_takes_are_an_error() -> None:
    with pytest.raises(errors.InvalidArgument):
        mounting.mount(Mount(type="overlay", source="overlay", options=["lowerdir=" + "a" * 5000]), "/nowhere")
