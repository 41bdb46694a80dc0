"""``pctr`` as a user runs it, on a real daemon with real containers."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock.testing import daemon as harness
from pydock.testing import images, leakcheck
from pydock.testing import registry as registries

pytestmark = pytest.mark.root

NAME = "docker.io/library/busybox:test"
PCTR = [sys.executable, "-c", "from pydock.cli.pctr import main; main()"]
# Its own, so that cgroups of other tests on this host are told from ours.
SPACE = f"pctr-test{os.getpid()}"
Run = Callable[..., subprocess.CompletedProcess[str]]
Guarded = Callable[[images.Image, str], contextlib.AbstractContextManager[str]]


@pytest.fixture(scope="module")
def server() -> Iterator[harness.Daemon]:
    """One daemon with a busybox image for all tests here."""
    with harness.running() as running:
        extra = {"etc/group": b"root:x:0:\nuser:x:1000:\naudio:x:29:user\n"}
        image = images.image([images.busybox_layer(extra)], {"Labels": {"shown": "yes", "containerd.io/gc.root": "no"}})
        archive = running.place / "busybox.tar"
        archive.write_bytes(images.archive(image, NAME))
        subprocess.run([*PCTR, "-a", str(running.address), "-n", SPACE, "images", "import", str(archive)], check=True, capture_output=True)
        yield running


@pytest.fixture
def command(server: harness.Daemon, tmp_path: Path) -> list[str]:
    """The start of a command line; FIFOs are made below a directory of the test."""
    return [*PCTR, "-a", str(server.address), "-n", SPACE]


@pytest.fixture
def pctr(command: list[str], tmp_path: Path) -> Run:
    """Run a command line to its end."""

    def run(*args: str, input: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        done = subprocess.run([*command, *args], input=input, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == code, done.stderr
        return done

    return run


def held(server: harness.Daemon) -> tuple[tuple[str, ...], ...]:
    """Return what the host holds of our containers."""
    now = leakcheck.take(server)
    return now.mounts, now.sockets, now.processes, tuple(path for path in now.cgroups if f"/{SPACE}/" in path)


@pytest.fixture(autouse=True)
def nothing_left(server: harness.Daemon, tmp_path: Path) -> Iterator[None]:
    """Check that a test leaves neither mounts, processes, cgroups nor FIFOs."""
    before = held(server)
    yield
    leakcheck.settle(lambda: "" if held(server) == before else f"{held(server)} is not {before}")
    assert [path for path in tmp_path.iterdir() if path.name.startswith("pctr-")] == []


def test_the_version_of_the_server_is_told(pctr: Run) -> None:
    assert json.loads(pctr("--json", "version").stdout)["server"]["version"]


def test_the_imported_image_is_listed_complete_and_unpacked(pctr: Run) -> None:
    [image] = json.loads(pctr("--json", "images", "ls").stdout)
    assert (image["name"], image["platforms"]) == (NAME, [f"linux/{images.own_architecture()}"])
    assert pctr("images", "check", "-q").stdout == f"{NAME}\n"


def test_output_errors_and_exit_code_are_the_processes(pctr: Run) -> None:
    done = pctr("run", "--rm", NAME, "c1", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert pctr("containers", "ls", "-q").stdout == pctr("tasks", "ls", "-q").stdout == ""


def test_a_killed_process_gives_128_and_the_signal(pctr: Run) -> None:
    done = pctr("run", "--rm", NAME, "c1", "sh", "-c", "sh -c 'kill -9 $$'; echo $?")
    assert done.stdout == "137\n"
    pctr("run", "-d", "--null-io", NAME, "c1", "sleep", "100")
    pctr("exec", "c1", "sh", "-c", "kill -9 $$", code=137)
    pctr("tasks", "rm", "-f", "c1")
    pctr("containers", "rm", "c1")


def test_input_reaches_the_process_to_its_end(pctr: Run) -> None:
    text = "line\n" * 50_000
    assert pctr("run", "--rm", NAME, "c1", "cat", input=text).stdout == text


def test_who_and_where_the_process_is(pctr: Run) -> None:
    script = "id -u; id -g; id -G; pwd; echo $A; hostname"
    done = pctr("run", "--rm", "-u", "user", "--cwd", "/var", "--env", "A=b", "--hostname", "box", NAME, "c1", "sh", "-c", script)
    assert done.stdout.split("\n")[:-1] == ["1000", "1000", "1000 29", "/var", "b", "box"]


def test_a_mount_is_there_and_read_only_where_asked(pctr: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("hello")
    mount = f"type=bind,src={tmp_path},dst=/data,options=rbind:ro"
    done = pctr("run", "--rm", "--mount", mount, NAME, "c1", "sh", "-c", "cat /data/f; touch /data/g", code=1)
    assert done.stdout == "hello"


@pytest.mark.parametrize("wrong", [["-u", "4294967296"], ["-u", "nobodyhere"], ["--cap-add", "SYS_ADMIN"], ["--with-ns", "x"]])
def test_what_cannot_be_run_leaves_nothing(pctr: Run, wrong: list[str]) -> None:
    before = pctr("snapshots", "ls", "-q").stdout
    assert pctr("run", "--rm", *wrong, NAME, "c1", "true", code=1).stderr.startswith("pctr: ")
    assert pctr("snapshots", "ls", "-q").stdout == before
    assert pctr("containers", "ls", "-q").stdout == ""


def test_a_command_that_is_not_in_the_image_leaves_nothing(pctr: Run) -> None:
    assert "nothere" in pctr("run", "--rm", NAME, "c1", "nothere", code=1).stderr
    assert pctr("containers", "ls", "-q").stdout == ""


def test_a_second_container_of_a_name_leaves_the_first(pctr: Run) -> None:
    pctr("run", "-d", "--null-io", NAME, "c1", "sleep", "100")
    assert "already exists" in pctr("run", "--rm", NAME, "c1", "true", code=1).stderr
    assert pctr("exec", "c1", "echo", "still").stdout == "still\n"
    pctr("tasks", "rm", "-f", "c1")
    pctr("containers", "rm", "c1")


def test_a_detached_container_is_executed_in_attached_to_and_removed(pctr: Run) -> None:
    pctr("run", "-d", NAME, "c1", "sh", "-c", "while read line; do echo got $line; done; exit 5")
    done = pctr("exec", "-u", "user", "--cwd", "/tmp", "c1", "sh", "-c", "id -u; pwd; cat; exit 9", input="in", code=9)
    assert done.stdout == "1000\n/tmp\nin"
    assert pctr("tasks", "attach", "c1", input="a\nb\n", code=5).stdout == "got a\ngot b\n"
    pctr("containers", "rm", "c1")


def test_pause_processes_metrics_kill_and_wait(pctr: Run) -> None:
    pctr("run", "-d", "--null-io", NAME, "c1", "sleep", "100")
    pctr("tasks", "pause", "c1")
    assert json.loads(pctr("--json", "tasks", "ls").stdout)[0]["status"] == "PAUSED"
    pctr("tasks", "resume", "c1")
    assert len(json.loads(pctr("--json", "tasks", "ps", "c1").stdout)) == 1
    assert json.loads(pctr("tasks", "metrics", "--format", "json", "c1").stdout)
    pctr("tasks", "kill", "-s", "SIGKILL", "c1")
    assert pctr("tasks", "wait", "c1").stdout == "137\n"
    pctr("tasks", "rm", "c1", code=137)
    pctr("containers", "rm", "c1")


def test_an_image_goes_to_a_registry_and_comes_back(pctr: Run, registry: registries.Registry) -> None:
    remote = f"{registry.host}/pctr/busybox:1"
    pctr("images", "push", "--plain-http", remote, NAME)
    pulled = json.loads(pctr("--json", "images", "pull", "--plain-http", remote).stdout)
    assert (pulled["name"], pulled["digest"]) == (remote, json.loads(pctr("--json", "images", "ls").stdout)[-1]["digest"])
    assert pctr("run", "--rm", remote, "c1", "echo", "there").stdout == "there\n"
    pctr("images", "rm", remote)


def test_a_password_is_given_to_the_registry_that_asks_for_it(pctr: Run, guarded: Guarded) -> None:
    with guarded(images.image([images.layer({"f": b"x"})]), "user:hunter2") as host:
        remote = f"{host}/guarded/image:1"
        refused = pctr("images", "pull", "--plain-http", remote, code=1)
        assert refused.stderr.startswith("pctr: ") or "\npctr: " in refused.stderr
        wrong = pctr("images", "pull", "--plain-http", "-u", "user:wrong", remote, code=1)
        right = pctr("images", "pull", "--plain-http", "-u", "user:hunter2", remote)
        assert "hunter2" not in right.stdout + right.stderr
        assert "wrong" not in wrong.stderr
    pctr("images", "rm", remote)


@contextlib.contextmanager
def started(line: list[str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background; a test that fails does not wait for it."""
    with subprocess.Popen(line, **streams) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def read_until(process: subprocess.Popen[bytes], wanted: bytes) -> bytes:
    """Read output until ``wanted`` came; fail after 20 s."""
    if process.stdout is None:
        raise AssertionError("no output")
    data = b""
    while wanted not in data:
        assert select.select([process.stdout], [], [], 20)[0], data
        chunk = os.read(process.stdout.fileno(), 4096)
        assert chunk, data
        data += chunk
    return data


def test_signals_reach_the_process_and_its_exit_code_comes_back(command: list[str]) -> None:
    script = 'trap "echo caught; exit 3" TERM; echo ready; while :; do sleep 0.1; done'
    with started([*command, "run", "--rm", NAME, "c1", "sh", "-c", script], stdout=subprocess.PIPE) as process:
        read_until(process, b"ready")
        process.send_signal(signal.SIGTERM)
        read_until(process, b"caught")
        assert process.wait(20) == 3


def test_a_terminal_has_our_size_and_ctrl_c_reaches_the_process(command: list[str]) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (33, 77))
    line = [
        *command,
        "run",
        "--rm",
        "-t",
        NAME,
        "c1",
        "sh",
        "-c",
        'trap "echo caught; exit 4" INT; echo ready; while :; do sleep 0.1; done',
    ]
    with started(line, stdin=theirs, stdout=subprocess.PIPE) as process:
        read_until(process, b"ready")
        sized = 'until [ "$(stty size)" = "33 77" ]; do sleep 0.05; done; stty size'  # the size follows the start
        told = subprocess.run([*command, "exec", "-t", "c1", "sh", "-c", sized], stdin=theirs, capture_output=True, text=True, timeout=20)
        assert "33 77" in told.stdout
        os.write(ours, b"\x03")
        read_until(process, b"caught")
        assert process.wait(20) == 4
    os.close(ours)
    os.close(theirs)


def test_the_daemon_may_die_under_an_attached_container(pctr: Run, command: list[str], server: harness.Daemon) -> None:
    script = "echo one; read go; echo two; exit 6"
    line = [*command, "run", "--rm", NAME, "c1", "sh", "-c", script]
    with started(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        read_until(process, b"one")
        server.kill9()
        server.start()
        if process.stdin is None:
            raise AssertionError("no input")
        process.stdin.write(b"go\n")
        process.stdin.flush()
        read_until(process, b"two")
        assert process.wait(30) == 6
    assert pctr("containers", "ls", "-q").stdout == ""


def test_an_image_goes_out_and_comes_back(pctr: Run, tmp_path: Path) -> None:
    archive = str(tmp_path / "out.tar")
    pctr("images", "tag", NAME, "docker.io/library/other:1")
    pctr("images", "export", archive, "docker.io/library/other:1")
    pctr("images", "rm", "docker.io/library/other:1")
    assert pctr("images", "import", archive).stdout == "docker.io/library/other:1\n"
    pctr("images", "rm", "docker.io/library/other:1")


def test_an_image_is_mounted_and_unmounted(pctr: Run, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    pctr("images", "mount", NAME, str(target))
    try:
        assert (target / "bin/busybox").exists()
        with pytest.raises(OSError, match="Read-only"):
            (target / "x").touch()
    finally:
        pctr("images", "unmount", "--rm", str(target))
    assert str(target) not in Path("/proc/self/mountinfo").read_text()
    assert str(target) not in pctr("snapshots", "ls", "-q").stdout


def test_content_goes_in_is_labelled_and_goes_out(pctr: Run) -> None:
    digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    lease = pctr("leases", "create").stdout.strip()
    assert pctr("content", "ingest", "ref", input="hello").stdout == f"{digest}\n"
    assert pctr("content", "label", digest, "a=b").stdout == "a=b\n"
    assert pctr("content", "get", digest).stdout == "hello"
    pctr("content", "ingest", "--expected-digest", digest.replace("2cf", "fff"), "ref", input="hello", code=1)
    pctr("content", "rm", digest)
    pctr("leases", "rm", lease)
    assert "not found" in pctr("content", "get", digest, code=1).stderr


def test_namespaces_are_kept_apart(pctr: Run) -> None:
    pctr("namespaces", "create", "apart", "a=b")
    assert "apart" in pctr("namespaces", "ls", "-q").stdout
    assert pctr("-n", "apart", "images", "ls", "-q").stdout == ""
    pctr("namespaces", "rm", "apart")
    assert "not found" in pctr("namespaces", "rm", "apart", code=1).stderr


def test_snapshots_are_built_on_each_other(pctr: Run) -> None:
    parent = pctr("snapshots", "ls", "-q", "kind==committed").stdout.split()[0]
    pctr("snapshots", "prepare", "work", parent)
    assert pctr("snapshots", "mounts", "/mnt", "work").stdout.startswith("mount -t ")
    pctr("snapshots", "commit", "done", "work")
    assert "\\_ done" in pctr("snapshots", "tree").stdout
    assert json.loads(pctr("snapshots", "info", "done").stdout)["parent"] == parent
    pctr("snapshots", "rm", "done")


def test_events_tell_what_happens(command: list[str], pctr: Run) -> None:
    line = [*command, "--json", "events", "--count", "2", 'topic~="/namespaces"']
    with started(line, stdout=subprocess.PIPE, text=True) as process:
        leakcheck.settle(lambda: subscribed(pctr, process))
        pctr("namespaces", "rm", "told0")
        out, _ = process.communicate(timeout=20)
    assert json.loads(out.splitlines()[0])["topic"] == "/namespaces/create"


def subscribed(pctr: Run, process: subprocess.Popen[str]) -> str:
    """Make a namespace until an event of it is seen; return what is still wrong."""
    if process.stdout is None:
        return "no output"
    if select.select([process.stdout], [], [], 0)[0]:
        return ""
    if "told0" in pctr("namespaces", "ls", "-q").stdout:
        pctr("namespaces", "rm", "told0")
    pctr("namespaces", "create", "told0")
    return "" if select.select([process.stdout], [], [], 0.5)[0] else "no event yet"
