"""Pause, limits, figures, signals, refusals."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from pydock_shim import wire

pytestmark = pytest.mark.root

NOT_FOUND, EXISTS, PRECONDITION, INVALID, UNKNOWN = 5, 6, 9, 3, 2


def refused(lab, call, code, text):
    with pytest.raises(lab.Refused) as info:
        call()
    assert (info.value.code, info.value.message) == (code, text)


def test_a_paused_task_stands_still_and_resumes(lab):
    task = lab.task("sleep", "100").run()
    task.call("Pause")
    assert task.status() == 4
    refused(lab, lambda: task.call("Pause"), PRECONDITION, "cannot pause a paused container: failed precondition")
    refused(lab, lambda: task.exec("true"), PRECONDITION, "cannot exec in a paused state: failed precondition")
    task.call("Resume")
    assert task.status() == 2
    topics = lab.sink.topics
    lab.sink.wait(task.id, "/tasks/resumed")
    assert topics(task.id)[-2:] == ["/tasks/paused", "/tasks/resumed"]


def test_a_paused_task_can_be_killed(lab):
    task = lab.task("sleep", "100").run()
    task.call("Pause")
    task.call("Kill", signal=9)
    assert task.wait() == 137


def test_a_task_out_of_memory_is_killed_and_said_so(lab):
    task = lab.task("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1", memory=16 << 20).run()
    assert task.wait() == 137
    assert json.loads((task.bundle / "exit.json").read_text())["oom"] is True
    lab.sink.wait(task.id, "/tasks/exit")
    topics = lab.sink.topics(task.id)
    assert topics.index("/tasks/oom") < topics.index("/tasks/exit")


def test_figures_of_a_task_come_from_its_cgroup(lab):
    task = lab.task("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 100", memory=64 << 20).run()
    task_metrics = lambda: unpack(task.call("Stats"))  # noqa: E731
    lab.until(lambda: task_metrics()["cpu"]["usage"]["total"] > 0, "used time")
    figures = task_metrics()
    assert figures["memory"]["usage"]["limit"] == 64 << 20
    assert figures["pids"]["current"] >= 1
    task.call("Kill", signal=9)
    task.wait()
    assert unpack(task.call("Stats"))["pids"]["current"] == 0


def unpack(answer):
    name = answer["stats"]["type_url"]
    assert name.startswith("io.containerd.cgroups.v")
    return wire.decode(name, answer["stats"]["value"])


def test_limits_are_updated(lab):
    task = lab.task("sleep", "100", memory=64 << 20).run()
    resources = json.dumps({"memory": {"limit": 32 << 20, "swap": 32 << 20}}).encode()
    task.call("Update", resources={"type_url": "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", "value": resources})
    assert unpack(task.call("Stats"))["memory"]["usage"]["limit"] == 32 << 20


def test_pids_name_the_execs(lab):
    task = lab.task("sleep", "100").run()
    exec_id = task.exec("sleep", "50")
    pid = task.call("Start", exec_id=exec_id)["pid"]
    processes = task.call("Pids")["processes"]
    named = {one["pid"]: one["info"] for one in processes}
    assert set(named) == {task.call("State")["pid"], pid}
    details = wire.decode(named[pid]["type_url"], named[pid]["value"])
    assert details == {"exec_id": exec_id}


def test_execs_end_before_their_init(lab):
    task = lab.task("sleep", "100").run()
    for _ in range(3):
        task.call("Start", exec_id=task.exec("sleep", "50"))
    task.call("Kill", signal=9)
    assert task.wait() == 137
    lab.sink.wait(task.id, "/tasks/exit")
    lab.until(lambda: lab.sink.topics(task.id).count("/tasks/exit") == 4, "four exits")
    exits = [event["id"] for topic, event in lab.sink.events if topic == "/tasks/exit" and event["container_id"] == task.id]
    assert exits[-1] == task.id
    assert len(set(exits)) == 4
    assert task.wait("e1") == 137


def test_a_signal_reaches_the_process(lab):
    task = lab.task("sh", "-c", "trap 'exit 12' TERM; echo ready; while :; do sleep 0.05; done").run()
    task.read(until=b"ready")
    task.call("Kill", signal=signal.SIGTERM)
    assert task.wait() == 12


def test_kill_all_ends_every_process_of_a_container_that_shares_pids(lab):
    def share(spec):
        spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] != "pid"]

    task = lab.task("sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait", edit=share).run()
    task.read(until=b"ready")
    pids = [one["pid"] for one in task.call("Pids")["processes"]]
    assert len(pids) == 3
    task.call("Kill", signal=9)
    assert task.wait() == 137
    lab.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of all")


def test_what_cannot_be_done_is_refused_in_containerds_words(lab):
    task = lab.task("true")
    refused(lab, lambda: task.call("State"), NOT_FOUND, "container not created: not found")
    refused(lab, lambda: task.call("Kill", signal=9), NOT_FOUND, "container not created: not found")
    task.create()
    refused(lab, task.create, EXISTS, f"container {task.id}: already exists")
    refused(lab, lambda: task.call("Pause"), PRECONDITION, "cannot pause task in created state: failed precondition")
    refused(lab, lambda: task.wait("none"), NOT_FOUND, "process does not exist none: not found")
    task.start()
    task.wait()
    refused(lab, task.start, PRECONDITION, "cannot start a stopped process: failed precondition")
    refused(lab, lambda: task.call("Kill", signal=9), NOT_FOUND, "process already finished: not found")
    refused(lab, lambda: task.exec("true"), PRECONDITION, "cannot exec in a stopped state: failed precondition")


def test_a_running_task_is_not_deleted(lab):
    task = lab.task("sleep", "100").run()
    refused(lab, task.delete, PRECONDITION, "cannot delete a running process: failed precondition")
    exec_id = task.exec("sleep", "100")
    task.call("Start", exec_id=exec_id)
    refused(lab, lambda: task.call("Delete", exec_id=exec_id), PRECONDITION, "cannot delete a running process: failed precondition")


def test_a_created_task_is_killed_or_deleted_without_ever_running(lab):
    task = lab.task("sh", "-c", "echo ran")
    task.create()
    assert task.delete()["exit_status"] == 137
    assert task.read() == b""
    other = lab.task("sh", "-c", "echo ran")
    other.create()
    other.call("Kill", signal=9)
    assert other.wait() == 137
    refused(lab, other.start, PRECONDITION, "cannot start a stopped process: failed precondition")


def test_the_runtimes_own_words_are_passed_on(lab):
    task = lab.task("/no/such/program")
    with pytest.raises(lab.Refused) as info:
        task.run()
    assert info.value.code == UNKNOWN
    assert "OCI runtime" in info.value.message
    assert "no/such/program" in info.value.message


def test_an_exec_that_cannot_start_is_over_and_can_be_deleted(lab):
    task = lab.task("sleep", "100").run()
    exec_id = task.exec("/no/such/program")
    with pytest.raises(lab.Refused) as info:
        task.call("Start", exec_id=exec_id)
    assert info.value.message.startswith("OCI runtime exec failed: ")
    assert "no/such/program" in info.value.message
    task.call("Delete", exec_id=exec_id)
    refused(lab, lambda: task.wait(exec_id), NOT_FOUND, f"process does not exist {exec_id}: not found")


@pytest.mark.parametrize("exec_id", ["", "../x", "a/b", "-a", "a" * 77, ".", "..", "a\nb", "é"])
def test_an_exec_id_out_of_its_grammar_is_refused(lab, exec_id):
    if lab.runtime == "runc":
        pytest.skip("no runtime is involved")
    task = lab.task("sleep", "100").run()
    with pytest.raises(lab.Refused) as info:
        task.call("Exec", exec_id=exec_id, spec={"type_url": "", "value": b"{}"})
    assert info.value.code == INVALID


def test_a_rootfs_that_cannot_be_mounted_is_said_so_and_leaves_nothing(lab):
    task = lab.task("true")
    with pytest.raises(lab.Refused) as info:
        task.create(rootfs=[{"type": "overlay", "source": "overlay", "target": "", "options": ["lowerdir=/no/such/dir"]}])
    assert "failed to mount rootfs component" in info.value.message
    assert lab.mounts() == []
    task.run()
    assert task.wait() == 0


def test_nothing_is_mounted_on_the_host_unless_mounts_are_to_be_shared(lab):
    task = lab.task("sleep", "100").run()
    assert lab.mounts() == []

    def shared(spec):
        spec["linux"]["rootfsPropagation"] = "shared"

    other = lab.task("sleep", "100", edit=shared, runtime="auto").run()
    assert len(lab.mounts()) == 1
    other.call("Kill", signal=9)
    other.wait()
    other.delete()
    assert lab.mounts() == []
    assert os.path.exists(f"/proc/{task.call('State')['pid']}")
