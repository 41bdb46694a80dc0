"""Copies of trees, with all that root can make in them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pydock.testing import contract_snapshots
from pydock_plugins.snapshots import copying

pytestmark = pytest.mark.root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    return place


def copied(source: Path) -> Path:
    target = source.parent / "target"
    target.mkdir()
    copying.copy_tree(source, target)
    return target


def test_kinds_owners_and_modes_are_kept(source: Path) -> None:
    contract_snapshots.write(source / "a/b/file", "text", 0o4711)
    os.chown(source / "a/b/file", 3, 4)
    (source / "a/b/file").chmod(0o4711)
    os.symlink("../../..", source / "a/link")
    os.chown(source / "a/link", 5, 6, follow_symlinks=False)
    os.mkfifo(source / "fifo", 0o640)
    os.mknod(source / "whiteout", stat.S_IFCHR | 0o000, 0)
    os.mknod(source / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 9))
    os.mknod(source / "socket", stat.S_IFSOCK | 0o700)
    (source / "empty").mkdir(mode=0o700)
    source.chmod(0o1750)
    os.chown(source, 7, 8)
    target = copied(source)
    assert contract_snapshots.listing(target) == contract_snapshots.listing(source)
    assert (target.stat().st_mode, target.stat().st_uid, target.stat().st_gid) == (source.stat().st_mode, 7, 8)


def test_times_are_kept_to_the_nanosecond_directories_included(source: Path) -> None:
    contract_snapshots.write(source / "dir/file", "x")
    os.symlink("x", source / "dir/link")
    for number, name in enumerate(("dir/file", "dir/link", "dir", ".")):
        os.utime(source / name, ns=(1_000_000_007 + number, 2_000_000_009 + number), follow_symlinks=False)
    target = copied(source)
    for name in ("dir/file", "dir/link", "dir", "."):
        assert (target / name).lstat().st_mtime_ns == (source / name).lstat().st_mtime_ns


def test_hard_links_stay_links(source: Path) -> None:
    contract_snapshots.write(source / "z/one", "x")
    os.link(source / "z/one", source / "two")
    os.mkfifo(source / "pipe")
    os.link(source / "pipe", source / "pipe2")
    target = copied(source)
    assert (target / "two").stat().st_ino == (target / "z/one").stat().st_ino != (source / "two").stat().st_ino
    assert (target / "pipe").stat().st_ino == (target / "pipe2").stat().st_ino


def test_attributes_and_capabilities_are_kept(source: Path) -> None:
    contract_snapshots.write(source / "ping", "x", 0o755)
    os.chown(source / "ping", 1, 1)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(source / "ping", "security.capability", capability)
    os.setxattr(source / "ping", "trusted.note", b"\0bin")
    os.setxattr(source, "trusted.overlay.opaque", b"y")
    os.symlink("x", source / "link")
    os.setxattr(source / "link", "trusted.note", b"link", follow_symlinks=False)
    target = copied(source)
    assert os.getxattr(target / "ping", "security.capability") == capability
    assert os.getxattr(target / "ping", "trusted.note") == b"\0bin"
    assert os.getxattr(target, "trusted.overlay.opaque") == b"y"
    assert os.getxattr(target / "link", "trusted.note", follow_symlinks=False) == b"link"


def test_holes_stay_holes(source: Path) -> None:
    with (source / "sparse").open("wb") as stream:
        stream.seek(8 << 20)
        stream.write(b"middle" * 1000)
        stream.truncate(64 << 20)
    with (source / "hole").open("wb") as stream:
        stream.truncate(1 << 20)
    target = copied(source)
    for name in ("sparse", "hole"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
        assert (target / name).stat().st_blocks * 512 < 1 << 20


def test_a_path_longer_than_the_kernel_takes_is_copied(source: Path) -> None:
    fd = os.open(source, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("x" * 200, dir_fd=fd)
        inner = os.open("x" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    target = copied(source)
    fd = os.open(target, os.O_RDONLY)
    for _ in range(30):
        inner = os.open("x" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    assert os.listdir(fd) == ["file"]
    os.close(fd)


def test_names_that_are_not_text_are_kept(source: Path) -> None:
    names = [b"\xff\xfe", b"new\nline", "ü".encode()]
    for name in names:
        (source / os.fsdecode(name)).touch()
    assert sorted(map(os.fsencode, os.listdir(copied(source)))) == sorted(names)
