"""kill -9 of the daemon, of the launcher and of both: no container notices, no exit is lost, none is told twice."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from pydock.testing import leakcheck

pytestmark = pytest.mark.root

RUNNING, STOPPED = 2, 3


def kill_daemon(engine: Any) -> None:
    engine.daemon.kill9()


def kill_launcher(engine: Any) -> None:
    os.kill(engine.launcher(), signal.SIGKILL)


def kill_both(engine: Any) -> None:
    launcher = engine.launcher()
    engine.daemon.kill9()
    try:
        os.kill(launcher, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.mark.parametrize("crash", [kill_daemon, kill_launcher, kill_both], ids=lambda crash: crash.__name__)
def test_twenty_tasks_and_five_execs_live_through_a_crash(engine: Any, crash: Any) -> None:
    ids = [f"web{n}" for n in range(20)]
    pids = {id: engine.run(id, "sleep", "1000") for id in ids}
    execs = {id: engine.exec(id, "job", "sleep", "1000") for id in ids[:5]}
    crash(engine)
    os.kill(pids["web19"], signal.SIGKILL)
    os.kill(execs["web4"], signal.SIGTERM)
    before = time.time_ns()
    leakcheck.settle(lambda: "" if (engine.bundles / "web19" / "exit.json").exists() else "web19 has not ended")
    leakcheck.settle(lambda: "" if (engine.bundles / "web4" / "exit-job.json").exists() else "the exec has not ended")
    if crash is not kill_launcher:
        engine.daemon.start()
    assert engine.states() == {id: (pid, STOPPED if id == "web19" else RUNNING) for id, pid in pids.items()}
    for id, pid in execs.items():
        found = engine.tasks("Get", container_id=id, exec_id="job").process
        assert (found.pid, found.status) == (pid, STOPPED if id == "web4" else RUNNING)
    end = engine.tasks("Wait", container_id="web19")
    assert end.exit_status == 137
    assert abs(end.exited_at.ToNanoseconds() - before) < 5_000_000_000
    assert engine.tasks("Wait", container_id="web4", exec_id="job").exit_status == 143
    published = lambda id: (engine.bundles / id / "published").read_text().count("\n")  # noqa: E731
    leakcheck.settle(lambda: "" if (engine.bundles / "web4" / "published").exists() else "the exit of web4 is not told")
    leakcheck.settle(lambda: "" if (engine.bundles / "web19" / "published").exists() else "the exit of web19 is not told")
    assert (published("web19"), published("web4")) == (1, 1)
    engine.run("after", "true")
    assert engine.tasks("Wait", container_id="after").exit_status == 0


def test_a_crash_loop_changes_nothing(engine: Any) -> None:
    pids = {f"web{n}": engine.run(f"web{n}", "sleep", "1000") for n in range(5)}
    for _ in range(5):
        engine.daemon.kill9()
        engine.daemon.start()
    assert engine.states() == {id: (pid, RUNNING) for id, pid in pids.items()}


def test_a_daemon_that_is_stopped_for_a_while_hears_of_every_exit(engine: Any) -> None:
    pids = {f"web{n}": engine.run(f"web{n}", "sleep", "1000") for n in range(5)}
    engine.daemon.send(signal.SIGSTOP)
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    leakcheck.settle(lambda: "" if all((engine.bundles / id / "exit.json").exists() for id in pids) else "not all have ended")
    engine.daemon.send(signal.SIGCONT)
    assert [engine.tasks("Wait", container_id=id).exit_status for id in pids] == [137] * 5


def test_daemon_shim_and_init_killed_at_once_leave_a_task_that_can_be_run_again(engine: Any) -> None:
    import json

    pid = engine.run("web", "sleep", "1000")
    shim = json.loads((engine.bundles / "web" / "shim.json").read_text())["pid"]
    engine.daemon.kill9()
    os.kill(shim, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    engine.daemon.start()
    assert engine.tasks("Wait", container_id="web").exit_status == 137
    engine.tasks("Delete", container_id="web")
    assert engine.states() == {}


def test_a_hung_shim_does_not_delay_the_start(engine: Any) -> None:
    import json

    pids = {id: engine.run(id, "sleep", "1000") for id in ("hung", "web")}
    shim = json.loads((engine.bundles / "hung" / "shim.json").read_text())["pid"]
    os.killpg(shim, signal.SIGSTOP)
    try:
        engine.daemon.kill9()
        engine.daemon.start()
        assert engine.tasks("Get", timeout=3, container_id="web").process.pid == pids["web"]
        assert engine.states()["hung"] == (0, 0)
    finally:
        os.killpg(shim, signal.SIGCONT)
    leakcheck.settle(lambda: "" if engine.states()["hung"] == (pids["hung"], RUNNING) else "the hung shim is not back")
