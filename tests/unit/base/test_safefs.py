"""Paths that others wrote, resolved where they are meant and nowhere else."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock.base import errors, safefs, syscalls


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A root with things in it, and a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    top = tmp_path / "root"
    (top / "etc").mkdir(parents=True)
    (top / "etc/name").write_text("inside")
    (top / "absolute").symlink_to("/etc/name")
    (top / "climbing").symlink_to("../../../etc/name")
    (top / "out").symlink_to(tmp_path / "secret")
    (top / "loop").symlink_to("loop")
    (top / "magic").symlink_to("/proc/self/fd")
    with safefs.opened(safefs.open_root(top)) as fd:
        yield fd


def read(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


@pytest.mark.parametrize("path", [b"absolute", b"climbing", b"/etc/name", b"../../etc/name", b"etc/../../etc/./name"])
def test_in_root_every_way_leads_inside(root: int, path: bytes) -> None:
    assert read(safefs.open_in_root(root, path, os.O_RDONLY)) == b"inside"


def test_in_root_a_link_out_is_missing(root: int) -> None:
    with pytest.raises(FileNotFoundError):
        safefs.open_in_root(root, b"out", os.O_RDONLY)


@pytest.mark.parametrize("path", [b"absolute", b"climbing", b"out", b"/etc/name", b"../secret"])
def test_beneath_the_root_leaving_is_an_error(root: int, path: bytes) -> None:
    with pytest.raises(errors.InvalidArgument, match="leaves its root"):
        safefs.open_beneath(root, path, os.O_RDONLY)


def test_beneath_the_root_the_rest_is_found(root: int) -> None:
    assert read(safefs.open_beneath(root, b"etc/../etc/name", os.O_RDONLY)) == b"inside"
    fd = safefs.open_beneath(root, b"etc/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(fd)


def test_without_links_every_link_is_an_error(root: int) -> None:
    for path in (b"absolute", b"loop"):
        with pytest.raises(OSError) as caught:
            safefs.open_no_links(root, path, os.O_RDONLY)
        assert caught.value.errno == errno.ELOOP


def test_descriptors_are_not_inherited(root: int) -> None:
    with safefs.opened(safefs.open_in_root(root, b"etc", os.O_RDONLY)) as fd:
        assert not os.get_inheritable(fd)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (b"", ()), (b"/", ()), (b"..", ()),
        (b"a//b/./c/../d/", (b"a", b"b", b"d")), (b"../../a", (b"a",)), (b"\xff/..b", (b"\xff", b"..b")),
    ],
)  # fmt: skip
def test_paths_are_cleaned_by_their_letters(path: bytes, parts: tuple[bytes, ...]) -> None:
    assert safefs.clean(path) == parts


def test_the_mode_of_a_link_is_left_and_so_is_its_target(root: int, tmp_path: Path) -> None:
    (tmp_path / "secret").chmod(0o400)
    safefs.chmod(root, b"out", 0o777)
    safefs.chmod(root, b"etc", 0o711)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o400
    assert stat.S_IMODE((tmp_path / "root/etc").stat().st_mode) == 0o711


def test_the_mode_is_set_without_fchmodat2_too(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(dirfd: int, name: bytes, mode: int) -> None:
        raise OSError(errno.ENOSYS, "")

    monkeypatch.setattr(syscalls, "fchmodat2", missing)
    test_the_mode_of_a_link_is_left_and_so_is_its_target(root, tmp_path)


DOORS = ((True, False), (False, False), (False, True))


@pytest.mark.parametrize(("at_calls", "by_cwd"), DOORS, ids=["at-calls", "proc", "cwd"])
def test_attributes_by_every_door(root: int, monkeypatch: pytest.MonkeyPatch, at_calls: bool, by_cwd: bool) -> None:
    monkeypatch.setattr(safefs.XattrDoor, "at_calls", at_calls)
    monkeypatch.setattr(safefs.XattrDoor, "by_cwd", by_cwd)
    with safefs.opened(os.open(".", os.O_RDONLY)) as here:
        try:
            assert safefs.get_xattr(root, b"etc", b"user.k") is None
            safefs.set_xattr(root, b"etc", b"user.k", b"\0v")
            assert safefs.get_xattr(root, b"etc", b"user.k") == b"\0v"
            assert safefs.list_xattrs(root, b"etc") == [b"user.k"]
            assert safefs.list_xattrs(root, b"loop") == []
        finally:
            os.fchdir(here)


def test_removal_takes_a_tree_and_follows_no_link(root: int, tmp_path: Path) -> None:
    tree = tmp_path / "root/tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/b/c/f").write_text("x")
    (tree / "a/link").symlink_to(tmp_path)
    os.mkfifo(tree / "a/b/pipe")
    safefs.remove(root, b"tree")
    assert not tree.exists()
    assert (tmp_path / "secret").read_text() == "secret"
    safefs.remove(root, b"out")
    assert (tmp_path / "secret").exists()
    with pytest.raises(FileNotFoundError):
        safefs.remove(root, b"tree")


def test_removal_stops_when_a_directory_is_moved_away_under_it(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root/tree/a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/keep").write_text("x")
    real = safefs._Cursor.empty_of_files

    def moving(cursor: safefs._Cursor) -> list[bytes]:
        names = real(cursor)
        if cursor.above:
            (tmp_path / "root/tree/a").rename(tmp_path / "elsewhere/a")
        return names

    monkeypatch.setattr(safefs._Cursor, "empty_of_files", moving)
    with pytest.raises(OSError, match="moved"):
        safefs.remove(root, b"tree")
    assert (tmp_path / "elsewhere/keep").exists()


def test_names_are_bytes_and_no_link_is_listed_through(root: int, tmp_path: Path) -> None:
    os.mknod(os.fsencode(tmp_path / "root/etc") + b"/\xff")
    assert sorted(safefs.names(root, b"etc")) == [b"name", b"\xff"]
    (tmp_path / "root/to-etc").symlink_to("etc")
    with pytest.raises(OSError):
        safefs.names(root, b"to-etc")


def test_a_path_is_shown_without_harm() -> None:
    assert safefs.show(b"a\n\xff\x1b[0m") == '"a\\n\\xff\\x1b[0m"'
    assert len(safefs.show(b"x" * 5000)) < 200


def test_a_look_up_that_races_with_a_rename_is_tried_again(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, answers = syscalls.call, [errno.EAGAIN, errno.EINTR]

    def racing(name: str, *args: object, what: str | bytes | None = None) -> int:
        if answers:
            raise OSError(answers.pop(), "")
        return real(name, *args, what=what)

    monkeypatch.setattr(syscalls, "call", racing)
    os.close(safefs.open_in_root(root, b"etc", os.O_PATH))
    assert answers == []
