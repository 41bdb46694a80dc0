"""A task from create to delete, on the real runtimes."""

from __future__ import annotations

import json
import os

import pytest

pytestmark = pytest.mark.root


@pytest.mark.parametrize("status", [0, 7])
def test_a_task_runs_and_its_status_is_known(lab, status):
    task = lab.task("sh", "-c", f"echo out; echo err >&2; exit {status}").run()
    assert task.wait() == status
    assert task.read("stdout") == b"out\n"
    assert task.read("stderr") == b"err\n"
    record = json.loads((task.bundle / "exit.json").read_text())
    assert (record["id"], record["exec_id"], record["status"], record["oom"]) == (task.id, "", status, False)
    answer = task.delete()
    assert answer["exit_status"] == status
    assert answer["exited_at"] == record["exited_at_ns"]
    lab.sink.wait(task.id, "/tasks/delete")
    assert lab.sink.topics(task.id) == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]


def test_a_task_that_ends_at_once_is_told_in_order(lab):
    for _ in range(10):
        task = lab.task("true").run()
        assert task.wait() == 0
        task.delete()
        lab.sink.wait(task.id, "/tasks/delete")
        assert lab.sink.topics(task.id) == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]


def test_a_killed_task_ends_with_137(lab):
    task = lab.task("sleep", "100").run()
    assert task.status() == 2
    task.call("Kill", signal=9)
    assert task.wait() == 137
    assert task.status() == 3


def test_an_exec_has_its_own_streams_and_status(lab):
    task = lab.task("sleep", "100").run()
    exec_id = task.exec("sh", "-c", "echo inside; exit 5")
    pid = task.call("Start", exec_id=exec_id)["pid"]
    assert pid > 0
    assert task.wait(exec_id) == 5
    assert task.read(f"{exec_id}-stdout") == b"inside\n"
    assert task.call("Delete", exec_id=exec_id)["exit_status"] == 5
    lab.sink.wait(task.id, "/tasks/exit")
    assert lab.sink.topics(task.id) == ["/tasks/create", "/tasks/start", "/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"]
    assert os.path.exists(f"/proc/{task.call('State')['pid']}")
