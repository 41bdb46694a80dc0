"""The real containerd, 2.1 and 1.6, runs containers through our shim: ``containerd-shim-pydock-v1`` on its PATH, driven by its own ctr."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import secrets
import select
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydock.testing import daemon as harness
from pydock.testing import images, leakcheck

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.environ.get("PYDOCK_COMPAT_ENGINE") == "containerd", reason="has its own engine")]

SHIM = "containerd-shim-pydock-v1"
RUNTIME = ("--runtime", "io.containerd.pydock.v1")
SOCKETS = Path("/run/containerd/s")
OURS = re.compile("[0-9a-f]{32}")  # names of our shims' sockets; those of other shims are longer
IMAGE = images.FIRST_NAME
FOREVER = ("sleep", "1000")
PATIENCE = 30  # seconds
ROUNDS = 30
CONFIG = """version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{place}/state/containerd.sock"
"""


class Containerd:
    """A real containerd at a place of its own, and the ctr that came with it."""

    def __init__(self, place: Path, binary: Path, ctr: Path) -> None:
        self.place, self.binary, self.ctr = place, binary, ctr
        self.namespace = f"interop-{secrets.token_hex(4)}"
        self.address = place / "state/containerd.sock"
        self.process: subprocess.Popen[bytes] | None = None
        (place / "config.toml").write_text(CONFIG.format(place=place))

    def start(self) -> None:
        """Start it and wait until it answers."""
        path = f"{Path(sys.executable).parent}:{self.binary.parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, harness.MARK: str(self.place)}
        with (self.place / "log").open("ab") as log:
            argv = [str(self.binary), "--config", str(self.place / "config.toml")]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        leakcheck.settle(lambda: "" if self.run("version").returncode == 0 else "containerd does not answer", PATIENCE)

    def end(self, number: signal.Signals) -> None:
        """End it with a signal."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(PATIENCE)

    def argv(self, *words: str) -> list[str]:
        """Return a command of ctr; what runs a container gets our runtime, what makes FIFOs gets a folder for them."""
        folder = ("--fifo-dir", str(self.place / "fifo"))
        if words[0] == "run":
            words = ("run", *RUNTIME, *folder, *words[1:])
        elif words[:2] == ("tasks", "exec"):
            words = ("tasks", "exec", *folder, *words[2:])
        return [*self._client(), *words]

    def _client(self) -> list[str]:
        return [str(self.ctr), "--address", str(self.address), "--namespace", self.namespace]

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run one command to its end."""
        return subprocess.run(self.argv(*words), input=stdin, capture_output=True, timeout=PATIENCE, check=False)

    def __call__(self, *words: str, status: int = 0, stdin: bytes = b"") -> str:
        """Run one command that ends with ``status``; what it printed, complaints last."""
        ended = self.run(*words, stdin=stdin)
        assert ended.returncode == status, f"ctr {' '.join(words)}: {ended.returncode}\n{ended.stdout!r}\n{ended.stderr!r}"
        return (ended.stdout + ended.stderr).decode()

    def rows(self, *words: str) -> list[list[str]]:
        """Return the cells of a table without its header."""
        return [line.split() for line in self(*words).splitlines()[1:] if line.strip()]

    def state(self, name: str) -> str:
        """Return the state of a task as it is listed, "" where it is not."""
        return next((row[2] for row in self.rows("tasks", "ls") if row[0] == name), "")

    def wait_for(self, name: str, wanted: str) -> None:
        leakcheck.settle(lambda: "" if (seen := self.state(name)) == wanted else f"{name} is {seen}, not {wanted}")

    @contextlib.contextmanager
    def task(self, name: str, *command: str, flags: tuple[str, ...] = ()) -> Iterator[str]:
        """Run a container in the background while the body runs."""
        self("run", "-d", *flags, IMAGE, name, *command)
        try:
            yield name
        finally:
            self.run("tasks", "rm", "-f", name)
            self("containers", "rm", name)

    @contextlib.contextmanager
    def beside(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run one command beside the body."""
        process = subprocess.Popen(self.argv(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def bundle(self, name: str) -> Path:
        return self.place / "state/io.containerd.runtime.v2.task" / self.namespace / name

    def cgroups(self) -> list[Path]:
        """Return the cgroups of our containers, inner first."""
        found = {Path(one) for top in leakcheck.CGROUPS.iterdir() for one, _, _ in os.walk(top / self.namespace)}
        return sorted(found, key=lambda path: -len(path.parts))

    def left(self, name: str) -> list[str]:
        """Return what there is of the container ``name`` or of any shim at this place."""
        found = [path for path in self.cgroups() if path.name == name]
        found += [path for part in ("state", "root") for path in (self.place / part).glob(f"io.containerd.runtime.v2.task/*/{name}")]
        found += (self.place / "state/pydock").glob("*/*")
        shims = [f"process {pid}" for pid in harness.strays(self.place) if self.process is not None and pid != self.process.pid]
        mounts = [point for point in harness.mount_points(self.place) if name in point]
        return [*map(str, found), *shims, *mounts]


def stale_sockets() -> set[Path]:
    """Return our sockets that nobody listens on."""
    return {path for path in SOCKETS.glob("*") if OURS.fullmatch(path.name)} - {Path(line.split()[-1]) for line in _unix()}


def _unix() -> list[str]:
    return [line for line in Path("/proc/net/unix").read_text().splitlines() if str(SOCKETS) in line]


@pytest.fixture(scope="module", params=["2.1", "1.6"])
def containerd(request: pytest.FixtureRequest, peer: Callable[[str], Path]) -> Iterator[Containerd]:
    """A containerd of each version with busybox imported."""
    suffix = "" if request.param == "2.1" else f"-{request.param}"
    assert (Path(sys.executable).parent / SHIM).exists(), "the shim is installed beside python"
    with harness.place("interop-") as place:
        engine = Containerd(place, peer(f"containerd{suffix}"), peer(f"ctr{suffix}"))
        try:
            engine.start()
            archive = place / "busybox.tar"
            archive.write_bytes(images.archive(images.busybox(), IMAGE))
            engine("images", "import", str(archive))
            yield engine
            engine.end(signal.SIGTERM)
        finally:
            if engine.process is not None:
                engine.process.kill()
                engine.process.wait()
            harness.end_strays(place)
            for path in engine.cgroups():
                with contextlib.suppress(OSError):
                    path.rmdir()


def read_until(fd: int, wanted: bytes) -> bytes:
    """Return what comes from ``fd`` up to and with ``wanted``."""
    seen, end = b"", time.monotonic() + PATIENCE
    while wanted not in seen:
        readable, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
        chunk = os.read(fd, 65536) if readable else b""
        assert chunk, f"{wanted!r} did not come; this did: {seen!r}"
        seen += chunk
    return seen


@contextlib.contextmanager
def terminal(argv: list[str], rows: int, columns: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command on a terminal of its own and give its other end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(["setsid", "--ctty", *argv], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("status", [0, 7, 137])
def test_a_container_runs_and_its_status_is_the_clients(containerd: Containerd, status: int) -> None:
    ended = containerd.run("run", "--rm", IMAGE, "once", "sh", "-c", f"echo out; echo err >&2; exit {status}")
    assert (ended.returncode, ended.stdout) == (status, b"out\n")
    assert b"err\n" in ended.stderr
    assert "once" not in containerd("containers", "ls", "-q").split()


def test_standard_input_reaches_the_container_and_ends(containerd: Containerd) -> None:
    data = os.urandom(150_000).hex().encode()
    wanted = hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert containerd("run", "--rm", IMAGE, "piped", "md5sum", stdin=data).split()[0] == wanted


def test_a_command_that_does_not_exist_is_told_and_leaves_nothing(containerd: Containerd) -> None:
    assert "no-such-command" in containerd("run", "--rm", IMAGE, "broken", "no-such-command", status=1)
    leakcheck.settle(lambda: "\n".join(containerd.left("broken")))


def test_a_detached_container_is_listed_entered_measured_and_removed(containerd: Containerd) -> None:
    with containerd.task("detached", *FOREVER) as name:
        [pid] = [row[1] for row in containerd.rows("tasks", "ls") if row[0] == name and row[2] == "RUNNING"]
        assert containerd("tasks", "exec", "--exec-id", "e1", name, "sh", "-c", "echo in") == "in\n"
        containerd("tasks", "exec", "--exec-id", "e2", name, "sh", "-c", "exit 9", status=9)
        assert containerd("tasks", "exec", "--exec-id", "e3", name, "cat", stdin=b"through") == "through"
        assert pid in [row[0] for row in containerd.rows("tasks", "ps", name)]
        measured = containerd("tasks", "metrics", name)
        assert "memory" in measured
        assert "pids" in measured
        seen = "\n".join(containerd.left(name))
        assert all(word in seen for word in ("/sys/fs/cgroup", "state/io.containerd", "root/io.containerd", "state/pydock", "process"))
    assert containerd.state(name) == ""
    leakcheck.settle(lambda: "\n".join(containerd.left(name)))


def test_a_task_is_paused_and_resumed(containerd: Containerd) -> None:
    with containerd.task("paused", *FOREVER) as name:
        containerd("tasks", "pause", name)
        assert containerd.state(name) == "PAUSED"
        containerd("tasks", "resume", name)
        assert containerd.state(name) == "RUNNING"


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 3), ("SIGKILL", 137)])
def test_a_task_ends_by_the_signal_it_is_sent_and_who_is_attached_sees_it(containerd: Containerd, number: str, status: int) -> None:
    # The client that started it in the background may have read some lines before it left, so there are more.
    with containerd.task("ended", "sh", "-c", "trap 'exit 3' TERM; while :; do echo ready; sleep 0.05; done") as name:
        with containerd.beside("tasks", "attach", name) as attached:
            assert attached.stdout is not None
            read_until(attached.stdout.fileno(), b"ready")
            containerd("tasks", "kill", "-s", number, name)
            assert attached.wait(PATIENCE) == status


def test_a_stopped_task_keeps_its_status_until_it_is_removed(containerd: Containerd) -> None:
    with containerd.task("stopped", "sh", "-c", "exit 3") as name:
        containerd.wait_for(name, "STOPPED")
        assert "exit code 3" in containerd("tasks", "rm", name)


def test_a_terminal_has_its_size_and_takes_ctrl_c(containerd: Containerd) -> None:
    script = "until stty size 2>/dev/null | grep '33 111'; do sleep 0.05; done; trap 'echo caught; exit 4' INT; echo ready; "
    script += "while :; do sleep 0.05; done"
    with terminal(containerd.argv("run", "--rm", "-t", IMAGE, "tty", "sh", "-c", script), 33, 111) as (process, fd):
        assert b"33 111" in read_until(fd, b"ready")
        os.write(fd, b"\x03")
        read_until(fd, b"caught")
        assert process.wait(PATIENCE) == 4


def test_output_goes_to_a_file_by_its_log_uri(containerd: Containerd) -> None:
    log = containerd.place / "logs/one.log"
    with containerd.task("logged", "sh", "-c", "echo out; echo err >&2", flags=("--log-uri", f"file://{log}")) as name:
        containerd.wait_for(name, "STOPPED")
        assert sorted(log.read_text().split()) == ["err", "out"]


def test_the_socket_of_a_shim_is_for_root_alone(containerd: Containerd) -> None:
    with containerd.task("private", *FOREVER) as name:
        path = Path((containerd.bundle(name) / "address").read_text().removeprefix("unix://"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    leakcheck.settle(lambda: f"{path} is left" if path.exists() else "")


def test_a_container_survives_a_killed_containerd(containerd: Containerd) -> None:
    script = "trap 'exit 5' TERM; while :; do sleep 0.05; done"
    with containerd.task("survivor", "sh", "-c", script) as name:
        [pid] = [row[1] for row in containerd.rows("tasks", "ls") if row[0] == name]
        containerd.end(signal.SIGKILL)
        containerd.start()
        assert [row[:3] for row in containerd.rows("tasks", "ls") if row[0] == name] == [[name, pid, "RUNNING"]]
        assert containerd("tasks", "exec", "--exec-id", "again", name, "echo", "in") == "in\n"
        containerd("tasks", "kill", "-s", "SIGTERM", name)
        containerd.wait_for(name, "STOPPED")
        assert "exit code 5" in containerd("tasks", "rm", name)
    leakcheck.settle(lambda: "\n".join(containerd.left(name)))


def test_a_container_that_ends_while_containerd_is_away_can_be_removed(containerd: Containerd) -> None:
    with containerd.task("ends", *FOREVER) as name:
        [pid] = [row[1] for row in containerd.rows("tasks", "ls") if row[0] == name]
        containerd.end(signal.SIGKILL)
        os.kill(int(pid), signal.SIGKILL)
        leakcheck.settle(lambda: "" if not Path(f"/proc/{pid}").exists() else "it does not end")
        containerd.start()
        assert containerd.state(name) in ("", "STOPPED")
    leakcheck.settle(lambda: "\n".join(containerd.left(name)))


def test_a_container_whose_shim_is_killed_ends_and_leaves_nothing(containerd: Containerd) -> None:
    sockets = stale_sockets()
    with containerd.task("shimless", *FOREVER) as name:
        [pid] = [row[1] for row in containerd.rows("tasks", "ls") if row[0] == name]
        os.kill(json.loads((containerd.bundle(name) / "shim.json").read_text())["pid"], signal.SIGKILL)
        leakcheck.settle(lambda: "" if not Path(f"/proc/{pid}").exists() else "it does not end")
        containerd.wait_for(name, "")
    leakcheck.settle(lambda: "\n".join([*containerd.left(name), *map(str, stale_sockets() - sockets)]))


def test_many_containers_leave_nothing(containerd: Containerd) -> None:
    sockets = stale_sockets()
    for _ in range(ROUNDS):
        containerd("run", "--rm", IMAGE, "round", "true")
    leakcheck.settle(lambda: "\n".join([*containerd.left("round"), *map(str, stale_sockets() - sockets)]))
