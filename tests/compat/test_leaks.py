"""What a container leaves on the host once it is gone: nothing."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from pydock.testing import leakcheck

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.environ.get("PYDOCK_COMPAT_ENGINE") == "containerd", reason="of pydockd alone")]

Ctr = Any
FOREVER = ("sleep", "1000")


@pytest.fixture(autouse=True)
def warm(ctr: Ctr) -> None:
    """What the first container makes for all, such as the cgroup of its namespace, is no leak."""
    ctr("run", "--rm", ctr.image, "warm", "true")


def test_containers_that_ran_leave_nothing(ctr: Ctr, engine: Any) -> None:
    with leakcheck.unchanged(engine.daemon):
        for number in range(3):
            ctr("run", "--rm", ctr.image, f"ran-{number}", "sh", "-c", f"exit {number}", status=number)


def test_a_container_that_was_entered_paused_and_killed_leaves_nothing(ctr: Ctr, engine: Any) -> None:
    with leakcheck.unchanged(engine.daemon):
        with ctr.task("used", *FOREVER) as name:
            ctr("tasks", "exec", "--exec-id", "e", name, "true")
            ctr("tasks", "pause", name)
            ctr("tasks", "resume", name)


def test_a_container_that_could_not_start_leaves_nothing(ctr: Ctr, engine: Any) -> None:
    with leakcheck.unchanged(engine.daemon):
        ctr("run", "--rm", ctr.image, "broken", "no-such-command", status=1)
        ctr("run", "--rm", "--mount", "type=bind,src=/no/such/source,dst=/mnt,options=rbind", ctr.image, "broken", "true", status=1)


def test_a_client_that_is_killed_leaves_nothing_but_its_container(ctr: Ctr, engine: Any) -> None:
    with leakcheck.unchanged(engine.daemon):
        with ctr.background("run", ctr.image, "orphan", *FOREVER) as client:
            leakcheck.settle(lambda: "" if "orphan" in ctr("tasks", "ls", "-q").split() else "not started")
            client.kill()
            client.wait()
        subprocess.run(ctr.argv("tasks", "rm", "-f", "orphan"), capture_output=True, timeout=60, check=False)
        ctr("containers", "rm", "orphan")


def test_a_restart_between_start_and_end_leaves_nothing(ctr: Ctr, engine: Any) -> None:
    engine.daemon.restart()
    ctr("run", "--rm", ctr.image, "warm", "true")
    before = leakcheck.take(engine.daemon)
    with ctr.task("over", *FOREVER):
        engine.daemon.kill9()
        engine.daemon.start()
    ctr("run", "--rm", ctr.image, "warm", "true")
    leakcheck.settle(lambda: before.difference(leakcheck.take(engine.daemon)))
