"""stdin, FIFOs in any order, terminals."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.root


def write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, data)
    os.close(fd)


def test_what_is_piped_into_stdin_reaches_the_process_until_it_is_closed(lab):
    task = lab.task("cat", streams=("stdin", "stdout")).run()
    write(task.fifos["stdin"], b"one\n")
    assert task.read(until=b"one\n") == b"one\n"
    write(task.fifos["stdin"], b"two\n")
    assert task.read(until=b"two\n") == b"two\n"
    task.call("CloseIO", stdin=True)
    assert task.wait() == 0
    assert task.read() == b""


def test_stdin_ends_when_the_client_closes_after_close_io(lab):
    task = lab.task("cat", streams=("stdin", "stdout")).run()
    fd = os.open(task.fifos["stdin"], os.O_WRONLY)
    task.call("CloseIO", stdin=True)
    os.write(fd, b"late")
    assert task.read(until=b"late") == b"late"
    os.close(fd)
    assert task.wait() == 0


def test_a_client_that_opens_its_fifo_after_the_process_ended_gets_all_of_the_output(lab):
    task = lab.task("sh", "-c", "echo early", streams=())
    path = str(task.bundle / "late")
    os.mkfifo(path)
    task.fifos["stdout"] = path
    task.run()
    assert task.wait() == 0
    assert Path(path).read_bytes() == b"early\n"


def test_a_client_that_waits_in_a_blocking_open_is_let_in(lab):
    task = lab.task("sh", "-c", "echo hello", streams=())
    path = str(task.bundle / "slow")
    os.mkfifo(path)
    task.fifos["stdout"] = path
    got: list[bytes] = []

    def client() -> None:
        got.append(Path(path).read_bytes())

    reader = threading.Thread(target=client)
    reader.start()
    task.run()
    assert task.wait() == 0
    reader.join(20)
    assert got == [b"hello\n"]


def test_a_client_that_leaves_costs_the_process_no_sigpipe(lab):
    task = lab.task("sh", "-c", "sleep 0.2; echo a; echo b; exit 3").run()
    os.close(task.readers.pop("stdout"))
    assert task.wait() == 3


def test_output_to_a_file_is_appended(lab):
    task = lab.task("sh", "-c", "echo line; echo other >&2", streams=())
    log = task.bundle / "a log" / "out.txt"
    uri = f"file://{str(log).replace(' ', '%20')}"
    task.fifos = {"stdout": uri, "stderr": uri}
    task.run()
    assert task.wait() == 0
    assert log.read_text() == "line\nother\n"


def test_a_logger_program_gets_both_streams_and_its_arguments(lab):
    task = lab.task("sh", "-c", "echo line; echo other >&2", streams=())
    program, log = task.bundle / "logger", task.bundle / "logged"
    lines = (
        f'echo "$@ $CONTAINER_ID $CONTAINER_NAMESPACE" > {log}',
        "exec 5>&-",
        f"cat <&3 >>{log}",
        f"cat <&4 >>{log}",
        f"echo end >>{log}",
    )
    program.write_text("\n".join(("#!/bin/sh", *lines, "")))
    program.chmod(0o755)
    task.fifos = {"stdout": f"binary://{program}?key=a%20b&flag"}
    task.run()
    assert task.wait() == 0
    lab.until(lambda: log.read_text().endswith("end\n"), "the logger to end")
    assert log.read_text() == f"key a b flag {task.id} test\nline\nother\nend\n"


def test_a_terminal_shows_its_size_and_is_resized(lab):
    task = lab.task("sh", "-c", "read x; stty size; read x; tty", terminal=True, streams=("stdin", "stdout"))
    task.run()
    task.call("ResizePty", width=132, height=43)
    keys = os.open(task.fifos["stdin"], os.O_WRONLY)
    os.write(keys, b"\n")
    assert b"43 132" in task.read(until=b"132")
    os.write(keys, b"\n")
    assert task.wait() == 0
    assert b"/dev/" in task.read()
    os.close(keys)


def test_ctrl_c_through_the_terminal_interrupts(lab):
    task = lab.task("sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.1; done", terminal=True, streams=("stdin", "stdout"))
    task.run()
    task.read(until=b"ready")
    write(task.fifos["stdin"], b"\x03")
    assert task.wait() == 9


def test_all_output_of_a_terminal_comes_before_its_exit(lab):
    task = lab.task("sh", "-c", "seq 1 2000", terminal=True, streams=("stdin", "stdout")).run()
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(task.read()))
    reader.start()
    assert task.wait() == 0
    reader.join(20)
    assert got[0].split()[-1] == b"2000"
    assert len(got[0].split()) == 2000


def test_an_exec_with_a_terminal_ends_with_its_input(lab):
    task = lab.task("sleep", "100").run()
    exec_id = task.exec("sh", terminal=True, stdin=True)
    task.call("Start", exec_id=exec_id)
    keys = os.open(task.fifos[f"{exec_id}-stdin"], os.O_WRONLY)
    os.write(keys, b"echo in$((40+2))\n")
    task.read(f"{exec_id}-stdout", until=b"in42")
    task.call("CloseIO", exec_id=exec_id, stdin=True)
    os.close(keys)
    assert task.wait(exec_id) == 0
    task.call("Delete", exec_id=exec_id)
