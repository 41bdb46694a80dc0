"""What goes wrong around a shim: clients, frames, launcher, daemon; and that nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import struct
from pathlib import Path

import pytest

from pydock_shim import linux, wire

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def only_crun(request):
    if "lab" in request.fixturenames and request.node.callspec.params.get("lab") == "runc":
        pytest.skip("no matter of the runtime")


def fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_many_rounds_in_one_shim_leave_nothing(lab):
    task = lab.task("true", streams=("stdout", "stderr"))
    task.run().wait()
    task.delete()
    before = fds(task.shim_pid)
    for _ in range(25):
        task.run()
        assert task.wait() == 0
        task.delete()
    assert fds(task.shim_pid) == before
    assert lab.cgroups() == []
    assert lab.mounts() == []
    assert os.listdir(lab.path / "runtime" / "test") == []


def test_many_execs_leave_nothing(lab):
    task = lab.task("sleep", "100").run()
    task.call("Delete", exec_id=run_exec(task))
    before = fds(task.shim_pid), sorted(os.listdir(task.bundle))
    for _ in range(25):
        task.call("Delete", exec_id=run_exec(task))
    lab.until(lambda: fds(task.shim_pid) == before[0], "descriptors as before")
    left = [name for name in os.listdir(task.bundle) if "fifo" not in name]
    assert left == [name for name in before[1] if "fifo" not in name] or sorted(left) == [n for n in before[1] if "fifo" not in n]


def run_exec(task) -> str:
    exec_id = task.exec("true")
    task.call("Start", exec_id=exec_id)
    assert task.wait(exec_id) == 0
    return exec_id


def test_shutdown_ends_the_shim_and_takes_its_socket(lab):
    task = lab.task("true").run()
    task.call("Shutdown")
    assert task.status() in (2, 3), "a shim with a container stays"
    task.wait()
    task.delete()
    task.call("Shutdown")
    lab.until(lambda: not lab.alive(task.shim_pid, task.start_ticks), "the end of the shim")
    assert not Path(task.socket).exists()


def test_a_shim_and_its_container_outlive_the_launcher(lab):
    task = lab.task("sh", "-c", "read x < /proc/uptime; sleep 0.3; exit 4").run()
    lab.launcher.kill()
    lab.launcher.wait()
    assert task.wait() == 4
    lab.link.close()
    lab.start_launcher()
    assert lab.task("true").run().wait() == 0


def test_the_launcher_ends_with_its_daemon_and_shims_do_not(lab):
    task = lab.task("sleep", "100").run()
    lab.link.close()
    assert lab.launcher.wait(20) == 0
    assert task.status() == 2
    assert os.getsid(task.shim_pid) == task.shim_pid
    lab.start_launcher()


def test_a_shim_with_a_container_ignores_sigterm_and_an_empty_one_obeys(lab):
    task = lab.task("sleep", "100").run()
    os.kill(task.shim_pid, signal.SIGTERM)
    assert task.status() == 2
    task.call("Kill", signal=9)
    task.wait()
    task.delete()
    os.kill(task.shim_pid, signal.SIGTERM)
    lab.until(lambda: not lab.alive(task.shim_pid, task.start_ticks), "the end of the shim")


def test_the_container_inherits_nothing_of_the_shim(lab):
    task = lab.task("sh", "-c", "ls -l /proc/self/fd").run()
    assert task.wait() == 0
    listed = task.read().decode()
    numbers = [line.split(" -> ")[0].split()[-1] for line in listed.splitlines() if " -> " in line]
    assert set(numbers) <= {"0", "1", "2", "3"}


def test_a_client_that_leaves_during_a_call_does_not_stop_it(lab):
    task = lab.task("sleep", "100")
    other = lab.Client(task.socket)
    other.send("Create", id=task.id, bundle=str(task.bundle), rootfs=task.rootfs(), **task.fifos)
    other.close()

    def created() -> bool:
        try:
            return task.status() == 1
        except lab.Refused:
            return False

    lab.until(created, "the container")


def test_a_wait_does_not_hold_up_other_calls_and_many_are_answered(lab):
    task = lab.task("sleep", "100").run()
    waits = [task.client.send("Wait", id=task.id) for _ in range(200)]
    assert task.status() == 2
    task.call("Kill", signal=9)
    assert {task.client.result("Wait", stream)["exit_status"] for stream in waits} == {137}


def test_events_wait_for_a_daemon_that_is_away(lab):
    lab.sink.stop()
    task = lab.task("sh", "-c", "exit 6").run()
    assert task.wait() == 6
    lab.sink.start()
    lab.Client(task.socket).close()
    assert lab.sink.wait(task.id, "/tasks/exit")["exit_status"] == 6
    assert lab.sink.topics(task.id) == ["/tasks/create", "/tasks/start", "/tasks/exit"]


def test_a_deadline_of_the_client_is_kept(lab):
    task = lab.task("sleep", "100").run()
    payload = wire.encode("containerd.task.v2.WaitRequest", {"id": task.id})
    task.client.stream += 2
    stream = task.client.stream
    task.client.socket.sendall(wire.request(stream, wire.TASK_SERVICES[0], "Wait", payload, timeout_nano=50_000_000))
    assert task.client.answer(stream)["status"]["code"] == wire.DEADLINE_EXCEEDED


def test_hostile_frames_are_answered_or_cut_off_and_harm_nobody(lab):
    task = lab.task("sleep", "100").run()

    def first_answer(data: bytes):
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.settimeout(20)
        peer.connect(task.socket)
        peer.sendall(data)
        reader = wire.FrameReader()
        while received := peer.recv(65536):
            for _stream, _kind, _flags, body in reader.feed(received):
                peer.close()
                return wire.decode("ttrpc.Response", body or b"")["status"]["code"]
        peer.close()
        return "closed"

    header = struct.Struct(">IIBB")
    good = wire.encode("ttrpc.Request", {"service": wire.TASK_SERVICES[0], "method": "State", "payload": b"\x0a\xff\xff"})
    assert first_answer(header.pack(4 * 1024 * 1024 + 1, 1, 1, 0)) == wire.RESOURCE_EXHAUSTED
    assert first_answer(header.pack(0xFFFFFFFF, 1, 1, 0)) == wire.RESOURCE_EXHAUSTED
    assert first_answer(header.pack(2, 2, 1, 0) + b"\x0a\x00") == wire.INVALID_ARGUMENT
    assert first_answer(header.pack(2, 0, 1, 0) + b"\x0a\x00") == wire.INVALID_ARGUMENT
    assert first_answer(header.pack(4, 1, 1, 0) + b"\xff\xff\xff\xff") == wire.INVALID_ARGUMENT
    assert first_answer(header.pack(len(good), 1, 1, 0) + good) == wire.INVALID_ARGUMENT
    assert first_answer(header.pack(0, 1, 1, 0)) == wire.UNIMPLEMENTED
    assert first_answer(header.pack(0, 1, 3, 0)) == wire.INVALID_ARGUMENT
    for kind in (0, 2, 4, 255):
        assert first_answer(header.pack(0, 1, kind, 0)) == "closed"
    assert task.status() == 2


def test_a_client_that_reads_nothing_does_not_grow_the_shim(lab):
    task = lab.task("sleep", "100").run()
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(task.socket)
    peer.setblocking(False)
    request = wire.encode("ttrpc.Request", {"service": "x" * 60000, "method": "y"})
    sent = 0
    try:
        for number in range(1, 2000, 2):
            frame = wire.frame(number, wire.REQUEST, request)
            if peer.send(frame) < len(frame):
                break
            sent += 1
    except BlockingIOError:
        pass
    assert sent < 500
    assert task.status() == 2
    peer.close()


def test_a_bad_request_to_the_launcher_is_told_and_the_next_one_works(lab):
    assert lab.ask(op="dance") == {"ok": False, "error": "unknown operation 'dance'"}
    assert lab.ask(op="spawn", namespace="n")["ok"] is False
    lab.link.send(b"\xff{")
    assert b'"ok":false' in lab.link.recv(65536)
    long = lab.path / ("x" * 100)
    answer = lab.ask(op="spawn", namespace="n", id="i", socket=str(long), bundle=str(lab.path), runtime_root="/x")
    assert answer["ok"] is False
    assert "106" in answer["error"]
    hello = lab.ask(op="hello")
    assert hello["pid"] == lab.launcher.pid
    assert hello["default"] in hello["runtimes"]
    assert lab.task("true").run().wait() == 0


def test_a_second_shim_on_a_socket_that_is_served_is_refused(lab):
    task = lab.task("sleep", "100").run()
    other = lab.path / "bundles" / "other"
    other.mkdir()
    answer = lab.ask(op="spawn", namespace="n", id="i", socket=task.socket, bundle=str(other), runtime_root=str(lab.path / "runtime"))
    assert answer["ok"] is False
    assert task.status() == 2


def test_what_a_killed_shim_leaves_is_cleaned_by_delete(lab):
    task = lab.task("sleep", "100").run()
    pid = task.call("State")["pid"]
    ticks = linux.start_ticks(pid)
    os.kill(task.shim_pid, signal.SIGKILL)
    lab.until(lambda: not lab.alive(task.shim_pid, task.start_ticks), "the end of the shim")
    answer = lab.standalone("-namespace", "test", "-id", task.id, "-bundle", str(task.bundle), "delete")
    ended = wire.decode("containerd.task.v2.DeleteResponse", answer)
    assert (ended["pid"], ended["exit_status"]) == (pid, 137)
    assert not lab.alive(pid, ticks)
    assert lab.cgroups() == []
    assert lab.standalone("-namespace", "test", "-id", task.id, "-bundle", str(task.bundle), "delete")
    os.unlink(task.socket)
