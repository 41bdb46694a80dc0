"""A shim with nothing to do sleeps: its worker is gone, its monitor watches; and nothing is lost by it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def only_crun(request):
    if request.node.callspec.params.get("lab") == "runc":
        pytest.skip("no matter of the runtime")


def workers(task) -> list[int]:
    children = Path(f"/proc/{task.shim_pid}/task/{task.shim_pid}/children").read_text().split()
    return [int(pid) for pid in children if name_of(pid) == "pydock-shim"]


def name_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # gone since it was listed
        return ""


def asleep(lab, task) -> None:
    lab.until(lambda: not workers(task), "sleep")


def test_an_idle_shim_sleeps_and_answers_when_called(lab):
    task = lab.task("sleep", "100").run()
    before = task.call("State")
    asleep(lab, task)
    assert task.call("State") == before
    assert workers(task)
    asleep(lab, task)
    other = lab.Client(task.socket)
    assert other("Connect", id=task.id)["shim_pid"] == task.shim_pid
    other.close()
    asleep(lab, task)


def test_an_end_while_asleep_wakes_those_who_wait(lab):
    task = lab.task("sh", "-c", "read x; exit 11", streams=("stdin", "stdout")).run()
    waits = [task.client.send("Wait", id=task.id) for _ in range(3)]
    asleep(lab, task)
    assert task.client.send("Wait", id=task.id)  # wakes it once more
    asleep(lab, task)
    stdin = os.open(task.fifos["stdin"], os.O_WRONLY)
    os.write(stdin, b"\n")
    assert [task.client.result("Wait", stream)["exit_status"] for stream in waits] == [11, 11, 11]
    os.close(stdin)
    record = json.loads((task.bundle / "exit.json").read_text())
    assert record["status"] == 11
    assert lab.sink.wait(task.id, "/tasks/exit")["exited_at"] == record["exited_at_ns"]
    task.delete()
    lab.sink.wait(task.id, "/tasks/delete")
    assert lab.sink.topics(task.id) == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]


def test_all_that_can_be_asked_works_after_sleep(lab):
    task = lab.task("cat", streams=("stdin", "stdout")).run()
    asleep(lab, task)
    exec_id = task.exec("sh", "-c", "exit 3")
    task.call("Start", exec_id=exec_id)
    assert task.wait(exec_id) == 3
    task.call("Delete", exec_id=exec_id)
    asleep(lab, task)
    task.call("Pause")
    asleep(lab, task)
    assert task.status() == 4
    task.call("Resume")
    asleep(lab, task)
    assert len(task.call("Pids")["processes"]) == 1
    assert task.call("Stats")["stats"]["value"]
    asleep(lab, task)
    task.call("CloseIO", stdin=True)
    assert task.wait() == 0


def test_the_memory_limit_is_watched_in_sleep(lab):
    script = "read x; exec dd if=/dev/zero of=/dev/null bs=64M count=1"
    task = lab.task("sh", "-c", script, memory=16 << 20, streams=("stdin", "stdout")).run()
    asleep(lab, task)
    stdin = os.open(task.fifos["stdin"], os.O_WRONLY)
    os.write(stdin, b"\n")
    assert task.wait() == 137
    os.close(stdin)
    lab.sink.wait(task.id, "/tasks/oom")
    assert json.loads((task.bundle / "exit.json").read_text())["oom"] is True


def test_descriptors_do_not_grow_with_sleep(lab):
    task = lab.task("sleep", "100").run()
    asleep(lab, task)
    first = len(os.listdir(f"/proc/{task.shim_pid}/fd"))
    for _ in range(3):
        task.status()
        asleep(lab, task)
        lab.until(lambda: len(os.listdir(f"/proc/{task.shim_pid}/fd")) <= first, "as few descriptors as before")


def test_a_shim_that_minds_an_exec_or_a_terminal_stays_awake(lab):
    task = lab.task("sleep", "100", terminal=True, streams=("stdout",)).run()
    other = lab.task("sleep", "100").run()
    other.call("Start", exec_id=other.exec("sleep", "50"))
    third = lab.task("sleep", "100").run()
    asleep(lab, third)
    assert workers(task)
    assert workers(other)


def test_a_killed_monitor_takes_its_worker_along_and_delete_cleans_up(lab):
    task = lab.task("sleep", "100").run()
    [worker] = workers(task)
    os.kill(task.shim_pid, signal.SIGKILL)
    lab.until(lambda: not Path(f"/proc/{worker}").exists(), "the end of the worker")
    lab.standalone("-namespace", "test", "-id", task.id, "-bundle", str(task.bundle), "delete")
    os.unlink(task.socket)


def test_a_killed_worker_is_the_end_of_the_shim(lab):
    task = lab.task("sleep", "100").run()
    [worker] = workers(task)
    os.kill(worker, signal.SIGKILL)
    lab.until(lambda: not lab.alive(task.shim_pid, task.start_ticks), "the end of the shim")
    lab.standalone("-namespace", "test", "-id", task.id, "-bundle", str(task.bundle), "delete")
    os.unlink(task.socket)


def test_sigterm_in_sleep_does_not_end_a_shim_with_a_container(lab):
    task = lab.task("sleep", "100").run()
    asleep(lab, task)
    os.kill(task.shim_pid, signal.SIGTERM)
    assert task.status() == 2
    asleep(lab, task)


def test_an_empty_shim_sleeps_and_ends_when_told(lab):
    task = lab.task("true")
    asleep(lab, task)
    os.kill(task.shim_pid, signal.SIGTERM)
    lab.until(lambda: not lab.alive(task.shim_pid, task.start_ticks), "the end of the shim")


def test_output_that_nobody_reads_does_not_keep_a_shim_awake(lab):
    task = lab.task("sh", "-c", "echo unread; sleep 100").run()
    asleep(lab, task)
    spent = cpu(task)
    asleep(lab, lab.task("sleep", "100").run())  # takes a second or more
    assert cpu(task) == spent
    assert task.status() == 2
    assert task.read(until=b"unread") == b"unread\n"


def cpu(task) -> int:
    """Clock ticks of the monitor and the workers it has reaped."""
    fields = Path(f"/proc/{task.shim_pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))
