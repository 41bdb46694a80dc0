"""The daemon, the launcher or both are killed under running containers, seen through the real ``ctr``."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock.testing import daemon as harness
from pydock.testing import leakcheck

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.environ.get("PYDOCK_COMPAT_ENGINE") == "containerd", reason="of pydockd alone")]

Ctr = Any
FOREVER = ("sleep", "1000")
COUNT = 20


def launchers(daemon: harness.Daemon) -> list[int]:
    """Return the pids of the launcher: children of the daemon that are not the daemon."""
    path = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
    return [int(word) for word in path.read_text().split()]


def statuses(ctr: Ctr) -> dict[str, str]:
    return {row[0]: row[2] for row in ctr.rows("tasks", "ls")}


@pytest.fixture
def many(ctr: Ctr) -> Iterator[list[str]]:
    """Twenty running containers."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ctr.task(f"many-{number}", *FOREVER)) for number in range(COUNT)]


@pytest.mark.parametrize("victims", ["daemon", "launcher", "both"])
def test_containers_outlive_what_started_them(ctr: Ctr, engine: Any, many: list[str], victims: str) -> None:
    daemon: harness.Daemon = engine.daemon
    pids = {row[0]: row[1] for row in ctr.rows("tasks", "ls")}
    if victims in ("launcher", "both"):
        [launcher] = launchers(daemon)
        os.kill(launcher, signal.SIGKILL)
    if victims in ("daemon", "both"):
        daemon.kill9()
        daemon.start()
    assert statuses(ctr) == dict.fromkeys(many, "RUNNING")
    assert {row[0]: row[1] for row in ctr.rows("tasks", "ls")} == pids
    assert ctr("tasks", "exec", "--exec-id", "after", many[0], "echo", "entered") == "entered\n"
    assert ctr("run", "--rm", ctr.image, "after", "echo", "new") == "new\n"


def test_a_container_that_ends_while_no_daemon_runs_has_its_true_status(ctr: Ctr, engine: Any) -> None:
    daemon: harness.Daemon = engine.daemon
    with ctr.task("ending", "sh", "-c", "until [ -e /tmp/go ]; do sleep 0.02; done; exit 7") as name:
        [pid] = [row[1] for row in ctr.rows("tasks", "ls") if row[0] == name]
        daemon.kill9()
        Path(f"/proc/{pid}/root/tmp/go").touch()
        leakcheck.settle(lambda: "still running" if Path(f"/proc/{pid}").exists() else "")
        daemon.start()
        assert statuses(ctr)[name] == "STOPPED"
        assert "exit code 7" in ctr("tasks", "rm", name, errors=True)


def test_output_goes_on_over_a_restart(ctr: Ctr, engine: Any, tmp_path: Path) -> None:
    daemon: harness.Daemon = engine.daemon
    log = tmp_path / "log"
    with ctr.task("talking", "sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done", flags=("--log-uri", f"file://{log}")):
        leakcheck.settle(lambda: "" if log.exists() and log.stat().st_size else "nothing said")
        daemon.kill9()
        before = log.stat().st_size
        leakcheck.settle(lambda: "" if log.stat().st_size > before else "nothing said while no daemon ran")
        daemon.start()
        before = log.stat().st_size
        leakcheck.settle(lambda: "" if log.stat().st_size > before else "nothing said after the restart")
    numbers = [int(line) for line in log.read_text().splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
