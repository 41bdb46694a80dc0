"""Shims, inits and the daemon killed or stopped beside each other; what is held elsewhere is named in README.md."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock.base import errors
from pydock.client import containers, images, tasks
from pydock.testing import crash, leakcheck, model

pytestmark = pytest.mark.root

World = crash.World
MANY = 20
ENDS_AS_TOLD = 'trap "exit {status}" TERM; while :; do sleep 1000 & wait; done'


@pytest.fixture
def run(world: World) -> Iterator[crash.Run]:
    """A run whose namespace is cleared at the end, and nothing left of it."""
    with world.run() as made:
        yield made
        made.check()
        made.clear()
    leakcheck.settle(world.leaked)


def bundle(run: crash.Run, id: str) -> Path:
    return run.world.daemon.state / "io.containerd.runtime.v2.task" / run.ns / id


def shim_of(run: crash.Run, id: str) -> int:
    return int(json.loads((bundle(run, id) / "shim.json").read_text())["pid"])


def test_an_init_killed_before_it_is_started_is_stopped_and_can_be_deleted(run: crash.Run) -> None:
    with run.world.connected(run.ns) as conn:
        run.container(conn, "web", "sleep", "1000")
        pid = run.create(conn, "web")
        os.kill(pid, signal.SIGKILL)
        run.history.may_be(run.key("task", "web"), "stopped")
        assert tasks.wait(conn, "web").result().exit_status == 137
        with pytest.raises(errors.PydockError):
            tasks.start(conn, "web")
        run.check()
        run.delete(conn, "web")


def test_an_exec_started_while_its_init_dies_ends_or_is_refused(run: crash.Run) -> None:
    with run.world.connected(run.ns) as conn:
        for number in range(5):
            id = f"web{number}"
            run.container(conn, id, "sleep", "1000")
            pid = run.create(conn, id)
            run.start(conn, id)
            tasks.add_exec(conn, id, "job", crash.process(("sleep", "1000")), tasks.Stdio())
            starting = conn.begin("/containerd.services.tasks.v1.Tasks/Start", *start_of(id, "job"))
            time.sleep(number * 0.003)  # the place in the start that is hit, not a wait
            os.kill(pid, signal.SIGKILL)
            try:
                starting.result()
                assert tasks.wait(conn, id, "job").result().exit_status == 137
            except errors.DeadlineExceeded:
                raise
            except errors.PydockError:
                pass
            assert tasks.wait(conn, id).result().exit_status == 137
            run.history.may_be(run.key("task", id), "stopped")
            run.delete(conn, id)


def start_of(id: str, exec_id: str) -> tuple[object, type]:
    from pydock._proto.containerd.services.tasks.v1 import tasks_pb2

    return tasks_pb2.StartRequest(container_id=id, exec_id=exec_id), tasks_pb2.StartResponse


def test_a_stopped_shim_delays_the_calls_that_name_its_task_and_no_others(run: crash.Run) -> None:
    with run.world.connected(run.ns) as conn:
        for id in ("hung", "web"):
            run.container(conn, id, "sleep", "1000")
            run.create(conn, id)
            run.start(conn, id)
        tasks.get(conn, "hung")
        group = shim_of(run, "hung")
        os.killpg(group, signal.SIGSTOP)
        try:
            hurried = conn.within(1.5)
            job = crash.process(("true",))
            pending = [conn.begin("/containerd.services.tasks.v1.Tasks/Start", *start_of("hung", ""))]
            with pytest.raises(errors.DeadlineExceeded):
                tasks.add_exec(hurried, "hung", "job", job, tasks.Stdio())
            with pytest.raises(errors.DeadlineExceeded):
                tasks.kill(conn.within(0.3), "hung", signal.SIGTERM)
            assert {task.id for task in tasks.listing(conn.within(3))} == {"hung", "web"}
            assert [metric.id for metric in tasks.metrics(conn.within(5), [])] == ["web"]
            run.exec(conn.within(5), "web", "job", 3)
            run.container(conn, "next", "sleep", "1000")
            run.create(conn.within(5), "next")
            run.start(conn.within(5), "next")
        finally:
            os.killpg(group, signal.SIGCONT)
        for one in pending:
            with pytest.raises(errors.FailedPrecondition):
                one.result()
        leakcheck.settle(lambda: "" if model.WORDS[tasks.get(conn, "hung").status] == "running" else "not back")
        run.exec(conn, "hung", "other", 4)


def test_exits_while_no_daemon_runs_are_true_and_told_once(run: crash.Run) -> None:
    ids = [f"web{number}" for number in range(MANY)]
    with run.world.connected(run.ns) as conn:
        pids = {}
        for number, id in enumerate(ids):
            run.container(conn, id, "sh", "-c", ENDS_AS_TOLD.format(status=number + 1))
            pids[id] = run.create(conn, id)
            run.start(conn, id)
    run.world.daemon.kill9()
    for pid in pids.values():
        leakcheck.settle(lambda pid=pid: "" if catches_term(pid) else "no trap yet")  # type: ignore[misc]
        os.kill(pid, signal.SIGTERM)
    leakcheck.settle(lambda: "".join(id for id in ids if not (bundle(run, id) / "exit.json").exists()))
    run.world.start()
    with run.world.connected(run.ns) as conn:
        assert [tasks.wait(conn, id).result().exit_status for id in ids] == [number + 1 for number in range(MANY)]
        told = lambda: sorted(one[1] for one in run.world.ears.heard if one[0] == run.ns)  # noqa: E731
        leakcheck.settle(lambda: "" if len(told()) >= MANY else f"{len(told())} are told")
        assert told() == sorted(ids)
        for id in ids:
            run.history.may_be(run.key("task", id), "stopped")


def catches_term(pid: int) -> bool:
    """Tell whether a process has a handler for SIGTERM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & 1 << signal.SIGTERM - 1)
    return False


def test_a_stopped_daemon_goes_on_where_it_was(run: crash.Run) -> None:
    with run.world.connected(run.ns) as conn:
        run.container(conn, "web", "sleep", "1000")
        pid = run.create(conn, "web")
        run.start(conn, "web")
        ended = tasks.wait(conn, "web")
        run.world.daemon.send(signal.SIGSTOP)
        before = time.time_ns()
        os.kill(pid, signal.SIGKILL)
        leakcheck.settle(lambda: "" if (bundle(run, "web") / "exit.json").exists() else "not ended")
        after = time.time_ns()
        run.world.daemon.send(signal.SIGCONT)
        answer = ended.result()
        run.history.may_be(run.key("task", "web"), "stopped")
        assert answer.exit_status == 137
        assert before <= answer.exited_at.ToNanoseconds() <= after


def test_after_a_reboot_no_task_is_left_and_no_stranger_is_touched(fresh: World) -> None:
    with fresh.run() as run:
        with fresh.connected(run.ns) as conn:
            run.container(conn, "web", "sleep", "1000")
            pid = run.create(conn, "web")
            run.start(conn, "web")
            images_before = len(images.listing(conn))
        shim, state = shim_of(run, "web"), fresh.daemon.state
        fresh.daemon.kill9()
        os.kill(shim, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        leakcheck.settle(lambda: "" if not Path(f"/proc/{pid}").exists() else "init lives")
        subprocess.run(["rm", "-rf", "--one-file-system", state], check=True)
        with subprocess.Popen(["sleep", "1000"]) as stranger:
            fresh.start()
            with fresh.connected(run.ns) as conn:
                assert [one.id for one in containers.listing(conn)] == ["web"]
                assert len(images.listing(conn)) == images_before
                assert not list(tasks.listing(conn))
                run.history.may_be(run.key("task", "web"), model.ABSENT)
                for group in Path("/sys/fs/cgroup").glob(f"*{run.cgroup('web')}"):
                    group.rmdir()  # a reboot leaves none
                run.create(conn, "web")
                run.start(conn, "web")
            run.check()
            run.clear()
            assert stranger.poll() is None
            stranger.kill()
