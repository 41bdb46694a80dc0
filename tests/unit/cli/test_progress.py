"""What a transfer shows where there is no terminal."""

from __future__ import annotations

import pytest

from pydock.cli import progress
from pydock.client.transfer import Progress

LAYER = "layer-sha256:" + "a1" * 32


def test_each_change_of_state_is_one_line_and_bytes_are_counted_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown("pulled x") as watch:
        watch(Progress(event="Pulling"))
        for done in (0, 50, 100):
            watch(Progress(event="downloading", name=LAYER, progress=done, total=100))
        watch(Progress(event="complete", name=LAYER, progress=100, total=100))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["Pulling", "layer (a1a1a1a1a1a1): downloading (100.0 B)", "layer (a1a1a1a1a1a1): complete (100.0 B)"]
    assert lines[3].startswith("pulled x: done in ")
    assert ", 100.0 B, " in lines[3]


def test_a_failure_has_no_summary_and_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="x"), progress.shown("pulled x"):
        raise OSError("x")
    with progress.shown("pulled x", quiet=True) as watch:
        watch(Progress(event="Pulling"))
    assert capsys.readouterr().err == ""


def test_names_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress.Lines()(Progress(event="\x1b[2J", name="a\nb"))
    assert capsys.readouterr().err == "a\\nb: \\x1b[2J\n"
