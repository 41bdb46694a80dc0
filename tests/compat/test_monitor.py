"""The example monitor in JavaScript: events followed, and resumed, from another language than Python."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from pydock.testing import daemon as harness

MONITOR = Path(__file__).parent / "monitor" / "monitor.js"

pytestmark = [
    pytest.mark.root,
    # Not part of the set-up: it is an example, and Node takes more room than everything else together.
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
]


class Events(Iterator[Any]):
    """What a monitor prints, line by line."""

    def __init__(self, process: subprocess.Popen[str], lines: IO[str]) -> None:
        self.process, self.lines = process, lines

    def __next__(self) -> Any:
        return json.loads(self.lines.readline())

    def said(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()


@contextlib.contextmanager
def monitor(address: Path, *after: str) -> Iterator[Events]:
    argv = ["node", str(MONITOR), str(address), *after]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Events(process, process.stdout)
    finally:
        process.kill()
        process.communicate()


def make_namespace(daemon: harness.Daemon, name: str) -> None:
    from pydock.client import connection, namespaces

    with connection.connect(str(daemon.address), "") as made:
        namespaces.create(made, name, {})


def test_it_follows_and_goes_on_where_it_stopped(daemon: harness.Daemon) -> None:
    with monitor(daemon.address) as events:
        assert re.match(r"events \d+ to \d+\n", events.said())
        make_namespace(daemon, "one")
        first = next(events)
    assert (first["topic"], first["namespace"], first["type"]) == ("/namespaces/create", "one", "containerd.events.NamespaceCreate")
    make_namespace(daemon, "two")
    make_namespace(daemon, "three")
    with monitor(daemon.address, str(first["sequence"])) as events:
        rest = [next(events), next(events)]
    assert [item["namespace"] for item in rest] == ["two", "three"]
    assert [item["sequence"] - first["sequence"] for item in rest] == [1, 2]
    with monitor(daemon.address, "oldest") as events:
        assert next(events) == first


def test_it_is_told_of_a_restart_between(daemon: harness.Daemon) -> None:
    make_namespace(daemon, "one")
    with monitor(daemon.address, "oldest") as events:
        seen = next(events)["sequence"]
    daemon.restart()
    with monitor(daemon.address, str(seen)) as events:
        assert events.said().startswith("events ")
        assert re.match(rf"status 11: events after {seen} are kept no more: the oldest is \d+", events.said())
        assert events.process.wait(10) == 1


def test_nobody_at_the_socket_is_said(tmp_path: Path) -> None:
    with monitor(tmp_path / "no.sock") as events:
        assert "ENOENT" in events.said()
        assert events.process.wait(10) == 1
