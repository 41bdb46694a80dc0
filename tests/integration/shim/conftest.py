"""A launcher, shims and a small ttrpc client for tests: the real runtimes, a busybox root file system, FIFOs as clients use them.

Fixtures: ``lab`` (a launcher and an events socket in a directory on tmpfs; at its end nothing may be left), ``lab.task(...)`` (a shim with
one container not yet created).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock_shim import __main__ as shim_main
from pydock_shim import wire

PATIENCE = 20.0  # seconds until a test gives up on something that should happen at once
BUSYBOX = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if Path(path).exists()), "")
APPLETS = ("sh", "sleep", "true", "cat", "echo", "stty", "dd", "head", "kill", "seq", "tty", "ls")
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")


class Refused(Exception):
    """The shim answered with a status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Client:
    """Blocking calls over one connection."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        self.reader = wire.FrameReader()
        self.answers: dict[int, bytes | None] = {}
        self.stream = -1

    def send(self, method: str, service: str = wire.TASK_SERVICES[1], **fields: Any) -> int:
        self.stream += 2
        payload = wire.encode(wire.TASK_METHODS[method][0], fields)
        self.socket.sendall(wire.request(self.stream, service, method, payload))
        return self.stream

    def answer(self, stream: int) -> dict[str, Any]:
        """The decoded ttrpc.Response of a call that was sent."""
        while stream not in self.answers:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the shim closed the connection")
            for number, _kind, _flags, body in self.reader.feed(data):
                self.answers[number] = body
        return wire.decode("ttrpc.Response", self.answers.pop(stream) or b"")

    def result(self, method: str, stream: int) -> dict[str, Any]:
        answer = self.answer(stream)
        if answer["status"] and answer["status"]["code"]:
            raise Refused(answer["status"]["code"], answer["status"]["message"])
        return wire.decode(wire.TASK_METHODS[method][1], answer["payload"])

    def __call__(self, method: str, **fields: Any) -> dict[str, Any]:
        return self.result(method, self.send(method, **fields))

    def close(self) -> None:
        self.socket.close()


class EventSink:
    """The daemon's ttrpc events socket: keeps what is forwarded to it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.changed = threading.Condition()
        self.open = False
        self.start()

    def start(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.open = True
        self.peers: list[socket.socket] = []
        threading.Thread(target=self._serve, args=(self.listener,), daemon=True).start()

    def stop(self) -> None:
        self.open = False
        os.unlink(self.path)
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            peer.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            self.peers.append(peer)
            threading.Thread(target=self._receive, args=(peer,), daemon=True).start()

    def _receive(self, peer: socket.socket) -> None:
        reader = wire.FrameReader()
        try:
            while data := peer.recv(65536):
                for stream, _kind, _flags, body in reader.feed(data):
                    request = wire.decode("ttrpc.Request", body or b"")
                    envelope = wire.decode("containerd.services.events.ttrpc.v1.ForwardRequest", request["payload"])["envelope"]
                    event = wire.decode(envelope["event"]["type_url"], envelope["event"]["value"])
                    with self.changed:
                        self.events.append((envelope["topic"], event))
                        self.changed.notify_all()
                    peer.sendall(wire.response(stream))
        except OSError:
            return

    def topics(self, id: str) -> list[str]:
        with self.changed:
            return [topic for topic, event in self.events if event["container_id"] == id]

    def wait(self, id: str, topic: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((event for name, event in self.events if name == topic and event["container_id"] == id), None)

        with self.changed:
            assert self.changed.wait_for(lambda: found() is not None, PATIENCE), f"no {topic} of {id}: {self.topics(id)}"
            event = found()
            assert event is not None
            return event


def eventually(check: Callable[[], Any], what: str) -> Any:
    """What ``check`` gives once it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = check()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"never: {what}")


def oci_spec(args: tuple[str, ...], terminal: bool, memory: int = 0) -> dict[str, Any]:
    resources: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}
    if memory:
        resources["memory"] = {"limit": memory, "swap": memory}
    return {
        "ociVersion": "1.0.2",
        "process": {"terminal": terminal, "user": {"uid": 0, "gid": 0}, "args": list(args), "env": ["PATH=/bin", "TERM=xterm"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {"resources": resources, "namespaces": [{"type": name} for name in NAMESPACES]},
    }


class Task:
    """A shim and its one container."""

    def __init__(self, lab: Lab, args: tuple[str, ...], **options: Any) -> None:
        self.lab, self.id = lab, "t" + secrets.token_hex(6)
        self.terminal = bool(options.get("terminal"))
        self.bundle = lab.path / "bundles" / self.id
        self.bundle.mkdir(mode=0o700)
        self.spec = oci_spec(args, self.terminal, options.get("memory", 0))
        self.spec["linux"]["cgroupsPath"] = f"/{lab.path.name}/{self.id}"
        options.get("edit", lambda spec: None)(self.spec)
        (self.bundle / "config.json").write_text(json.dumps(self.spec))
        self.socket = str(lab.path / f"{self.id}.sock")
        answer = lab.ask(
            op="spawn", namespace="test", id=self.id, socket=self.socket, bundle=str(self.bundle), events=lab.sink.path,
            runtime=options.get("runtime", lab.runtime), runtime_root=str(lab.path / "runtime"), debug=False,
        )  # fmt: skip
        assert answer["ok"], answer
        self.shim_pid: int = answer["pid"]
        self.start_ticks: int = answer["start_ticks"]
        self.client = Client(self.socket)
        self.fifos: dict[str, str] = {}
        self.readers: dict[str, int] = {}
        for name in options.get("streams", ("stdout", "stderr")):
            self.make_fifo(name)
        self.exec_number = 0
        lab.tasks.append(self)

    def make_fifo(self, name: str) -> str:
        path = str(self.bundle / f"{name}-fifo")
        os.mkfifo(path, 0o700)
        self.fifos[name] = path
        if "stdin" not in name:
            self.readers[name] = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return path

    def read(self, name: str = "stdout", until: bytes | None = None) -> bytes:
        """What comes on a stream, up to its end or until ``until`` is in it."""
        fd, data = self.readers[name], bytearray()

        def more() -> bool:
            try:
                chunk = os.read(fd, 65536)
            except BlockingIOError:
                return False
            data.extend(chunk)
            return not chunk if until is None else until in data

        try:
            eventually(more, f"end of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}, got {bytes(data)!r}") from None
        return bytes(data)

    def rootfs(self) -> list[dict[str, Any]]:
        upper, work = self.bundle / "upper", self.bundle / "work"
        upper.mkdir(exist_ok=True)
        work.mkdir(exist_ok=True)
        options = [f"lowerdir={self.lab.path / 'image'}", f"upperdir={upper}", f"workdir={work}"]
        return [{"type": "overlay", "source": "overlay", "target": "", "options": options}]

    def call(self, method: str, **fields: Any) -> dict[str, Any]:
        return self.client(method, id=self.id, **fields)

    def create(self, **fields: Any) -> int:
        named = {"bundle": str(self.bundle), "rootfs": self.rootfs(), "terminal": self.terminal, **self.fifos, **fields}
        if self.terminal:
            named.pop("stderr", None)
        pid: int = self.call("Create", **named)["pid"]
        return pid

    def start(self) -> int:
        pid: int = self.call("Start")["pid"]
        return pid

    def run(self) -> Task:
        self.create()
        self.start()
        return self

    def wait(self, exec_id: str = "") -> int:
        status: int = self.call("Wait", exec_id=exec_id)["exit_status"]
        return status

    def delete(self) -> dict[str, Any]:
        return self.call("Delete")

    def exec(self, *args: str, terminal: bool = False, stdin: bool = False) -> str:
        """Add an exec; its streams are named EXEC-stdout and so on."""
        self.exec_number += 1
        exec_id = f"e{self.exec_number}"
        fields: dict[str, Any] = {name: self.make_fifo(f"{exec_id}-{name}") for name in ("stdout", "stderr")}
        if stdin:
            fields["stdin"] = self.make_fifo(f"{exec_id}-stdin")
        if terminal:
            del fields["stderr"]
        process = {**self.spec["process"], "args": list(args)}
        packed = {"type_url": "types.containerd.io/opencontainers/runtime-spec/1/Process", "value": json.dumps(process).encode()}
        self.call("Exec", exec_id=exec_id, terminal=terminal, spec=packed, **fields)
        return exec_id

    def status(self, exec_id: str = "") -> int:
        number: int = self.call("State", exec_id=exec_id)["status"]
        return number

    def finish(self) -> None:
        """Kill and delete whatever is left, and see the shim go."""
        for fd in self.readers.values():
            os.close(fd)
        self.readers = {}
        self.client.close()
        if Path(self.socket).exists() and alive(self.shim_pid, self.start_ticks):
            client = Client(self.socket)
            try:
                client("Kill", id=self.id, signal=signal.SIGKILL, all=True)
            except Refused:
                pass
            try:
                client("Wait", id=self.id)
                client("Delete", id=self.id)
            except Refused:
                pass
            client("Shutdown", id=self.id)
            client.close()
        eventually(lambda: not alive(self.shim_pid, self.start_ticks), "the end of the shim")
        shutil.rmtree(self.bundle)


def alive(pid: int, ticks: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[19]) == ticks and fields[0] != "Z"


class Lab:
    """A launcher, an events socket, an image."""

    def __init__(self, path: Path, runtime: str) -> None:
        self.path, self.runtime = path, runtime
        self.tasks: list[Task] = []
        (path / "bundles").mkdir()
        (path / "image" / "bin").mkdir(parents=True)
        for name in ("proc", "dev", "sys", "tmp"):
            (path / "image" / name).mkdir()
        shutil.copy(BUSYBOX, path / "image" / "bin" / "busybox")
        for name in APPLETS:
            (path / "image" / "bin" / name).symlink_to("busybox")
        self.sink = EventSink(str(path / "events.sock"))
        self.start_launcher()

    def start_launcher(self) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(PATIENCE)
        argv = [sys.executable, "-I", "-S", "-E", shim_main.__file__, "launch", "--fd", str(theirs.fileno())]
        self.launcher = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        self.link.send(json.dumps(request).encode())
        answer: dict[str, Any] = json.loads(self.link.recv(65536))
        return answer

    def task(self, *args: str, **options: Any) -> Task:
        return Task(self, args, **options)

    Refused, Client = Refused, Client
    until = staticmethod(eventually)

    @staticmethod
    def alive(pid: int, ticks: int) -> bool:
        return alive(pid, ticks)

    def standalone(self, *words: str) -> bytes:
        argv = [sys.executable, "-I", "-S", "-E", shim_main.__file__, *words]
        return subprocess.run(argv, check=True, capture_output=True, timeout=PATIENCE).stdout

    def cgroups(self) -> list[str]:
        return [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{self.path.name}/*") if path.is_dir()]

    def mounts(self) -> list[str]:
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.path) in line]

    def close(self) -> None:
        for task in self.tasks:
            task.finish()
        self.link.close()
        assert self.launcher.wait(PATIENCE) == 0
        if self.sink.open:
            self.sink.stop()
        assert self.cgroups() == []
        assert self.mounts() == []
        for directory in Path("/sys/fs/cgroup").glob(f"*/{self.path.name}"):
            directory.rmdir()


@pytest.fixture(params=["crun", "runc"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    if os.geteuid() != 0 or not BUSYBOX:
        pytest.skip("needs root and a static busybox")
    if shutil.which(request.param, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin") is None:
        pytest.skip(f"{request.param} is not installed")
    path = Path("/dev/shm") / f"pydock-shim-{secrets.token_hex(4)}"
    path.mkdir(mode=0o700)
    lab = Lab(path, request.param)
    try:
        yield lab
        lab.close()
    finally:
        lab.launcher.kill()
        lab.launcher.wait()
        shutil.rmtree(path, ignore_errors=True)
