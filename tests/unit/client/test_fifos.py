"""FIFOs of a process: private, openable in any order, and removed."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path

import pytest

from pydock.client import fifos
from pydock.client.tasks import Stdio


def test_nobody_else_can_enter(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with fifos.made(str(tmp_path)) as ours:
            assert stat.S_IMODE(Path(ours.directory).stat().st_mode) == 0o700
            for path in (ours.stdio.stdin, ours.stdio.stdout, ours.stdio.stderr):
                status = Path(path).lstat()
                assert stat.S_ISFIFO(status.st_mode)
                assert stat.S_IMODE(status.st_mode) == 0o600
    finally:
        os.umask(before)


def test_all_is_gone_afterwards_whatever_happened(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), fifos.made(str(tmp_path), keep=True):
        raise RuntimeError
    with fifos.made(str(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_set_that_is_kept_is_removed_by_its_paths(tmp_path: Path) -> None:
    with fifos.made(str(tmp_path), keep=True) as ours:
        pass
    assert Path(ours.stdio.stdout).exists()
    fifos.discard(ours.stdio)
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_has_no_stderr(tmp_path: Path) -> None:
    with fifos.made(str(tmp_path), terminal=True) as ours:
        assert (ours.stdio.stderr, ours.stderr, ours.stdio.terminal) == ("", -1, True)


def test_output_has_no_end_before_a_writer_came_and_went(tmp_path: Path) -> None:
    with fifos.made(str(tmp_path)) as ours:
        poll = select.poll()
        poll.register(ours.stdout, select.POLLIN)
        assert poll.poll(0) == []
        writer = os.open(ours.stdio.stdout, os.O_WRONLY)
        assert poll.poll(0) == []
        os.write(writer, b"x")
        os.close(writer)
        assert poll.poll(0) != []
        assert (os.read(ours.stdout, 10), os.read(ours.stdout, 10)) == (b"x", b"")


def test_input_written_before_the_reader_came_is_not_lost(tmp_path: Path) -> None:
    with fifos.made(str(tmp_path)) as ours:
        os.write(ours.stdin, b"early")
        reader = os.open(ours.stdio.stdin, os.O_RDONLY)
        os.close(ours.stdin)
        ours.stdin = -1
        assert (os.read(reader, 10), os.read(reader, 10)) == (b"early", b"")
        os.close(reader)


def test_only_fifos_in_a_directory_of_ours_are_ever_removed(tmp_path: Path) -> None:
    foreign, ours = tmp_path / "elsewhere", tmp_path / f"{fifos.PREFIX}x"
    foreign.mkdir()
    ours.mkdir()
    os.mkfifo(foreign / "stdout")
    (ours / "stdout").write_text("a file")
    fifos.discard(Stdio(stdout=str(foreign / "stdout")))
    fifos.discard(Stdio(stdout=str(ours / "stdout"), stderr="relative", stdin="file:///x"))
    assert (foreign / "stdout").exists()
    assert (ours / "stdout").exists()
