"""Small durable files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pydock.base import durable


def test_a_file_is_replaced_with_exactly_its_mode_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        durable.write(tmp_path / "f", b"one", 0o644)
        durable.write(tmp_path / "f", b"two", 0o640)
    finally:
        os.umask(before)
    assert (tmp_path / "f").read_bytes() == b"two"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("failing", ["fsync", "write", "fchmod"])
def test_a_failure_leaves_the_old_bytes_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    durable.write(tmp_path / "f", b"old")
    calls = []

    def fail(*_: Any) -> Any:
        calls.append(failing)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="Input/output"):
        durable.write(tmp_path / "f", b"new")
    monkeypatch.undo()
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]
    assert calls == [failing], "it was tried again"


def test_bytes_are_synced_before_the_rename_and_the_directory_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    sync, replace = os.fsync, Path.replace

    def fsync(fd: int) -> None:
        log.append(f"fsync {Path(f'/proc/self/fd/{fd}').readlink().name.partition('-')[0]}")
        sync(fd)

    def rename(self: Path, target: Path) -> Path:
        log.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    folder = tmp_path / "folder"
    folder.mkdir()
    durable.write(folder / "f", b"x")
    assert log == ["fsync .tmp", "rename", "fsync folder"]


def test_a_move_syncs_both_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_dir", synced.append)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/f").write_bytes(b"x")
    durable.rename(tmp_path / "a/f", tmp_path / "b/f")
    assert (tmp_path / "b/f").read_bytes() == b"x"
    assert synced == [tmp_path / "b", tmp_path / "a"]


def test_a_file_larger_than_it_may_be_is_not_read(tmp_path: Path) -> None:
    durable.write(tmp_path / "f", b"12345")
    assert durable.read(tmp_path / "f", 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4"):
        durable.read(tmp_path / "f", 4)


def test_a_new_file_never_follows_or_replaces_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        durable.write_new(tmp_path / "link", b"x")
    assert not (tmp_path / "victim").exists()
