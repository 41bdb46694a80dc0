"""Reading account files of an image that may be anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock.base import errors
from pydock.client import rootfs
from pydock.oci import user


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "etc").mkdir()
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_an_image_without_files_takes_numbers(root: int) -> None:
    assert rootfs.resolve(root, "7:8") == user.Ids(7, 8)


def test_links_are_followed_inside_the_image_only(root: int, tmp_path: Path) -> None:
    (tmp_path / "etc/passwd").symlink_to("/real")
    (tmp_path / "etc/group").symlink_to("../../../../etc/group")
    (tmp_path / "real").write_text("app:x:5:6::/:\n")
    assert rootfs.read(root, b"etc/passwd") == "app:x:5:6::/:\n"
    with pytest.raises(errors.InvalidArgument):
        rootfs.read(root, b"etc/group")


def test_a_loop_of_links_is_an_error_and_no_hang(root: int, tmp_path: Path) -> None:
    (tmp_path / "etc/passwd").symlink_to("passwd")
    with pytest.raises(errors.InvalidArgument):
        rootfs.resolve(root, "")


def test_a_fifo_is_refused_before_it_is_opened(root: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "etc/passwd")
    with pytest.raises(errors.InvalidArgument, match="not a regular file"):
        rootfs.resolve(root, "")


@pytest.mark.root
def test_a_device_is_refused_before_it_is_opened(root: int, tmp_path: Path) -> None:
    os.mknod(tmp_path / "etc/group", 0o020666, os.makedev(1, 5))
    with pytest.raises(errors.InvalidArgument, match="not a regular file"):
        rootfs.resolve(root, "")


def test_a_huge_file_is_refused(root: int, tmp_path: Path) -> None:
    with (tmp_path / "etc/passwd").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(errors.InvalidArgument, match="more than"):
        rootfs.resolve(root, "")


def test_bytes_that_are_no_text_do_no_harm(root: int, tmp_path: Path) -> None:
    (tmp_path / "etc/passwd").write_bytes(b"\xff\xfe:x:1:1\napp:x:5:6::/:\n")
    assert rootfs.resolve(root, "app") == user.Ids(5, 6)
