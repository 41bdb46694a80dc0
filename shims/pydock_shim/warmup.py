"""A rehearsal: the launcher plays a shim's life a few times before it forks the first one.

Python changes memory when code runs for the first times: bytecode is specialised in place, method caches are filled, tables are compiled.
Done before the fork this memory is shared by all shims; done after, each worker has a copy of its own (0.2 MB, measured).

The play has a client, an events socket, a runtime that does nothing (``true`` under the name of crun), a child as the init, a host
without cgroups, and a directory of its own that is removed at the end.
"""

from __future__ import annotations

import os

from pydock_shim import engine_oci, host, server, shim, std, wire
from pydock_shim.std import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROUNDS = 2  # fills tables and caches; more, for the interpreter to specialise everything, would delay the daemon's start
PATIENCE = 1.0  # seconds for one turn of the loop
TURNS = 64
ID = "rehearsal"
SPEC = b'{"linux":{"namespaces":[{"type":"pid"}]}}'


class Play:
    """One life of a shim, from the launcher's request to Shutdown."""

    def __init__(self, directory: str) -> None:
        self.directory, self.bundle = directory, directory + "/bundle"
        self.failures: list[str] = []
        self.frames, self.event_frames = wire.FrameReader(), wire.FrameReader()
        self.stream = -1
        stage = host.Host("/dev/null")
        stage.runtimes["crun"] = {"path": directory + "/crun"}
        stage.default = "crun"
        self.daemon = server.listen(directory + "/events")
        channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener = server.listen(directory + "/socket")
        terms = shim.Terms("warm", ID, directory + "/socket", self.bundle, directory + "/events", "", directory, "")
        std.send_fd(channel, shim.packed(terms), listener.fileno())
        listener.close()
        data, fd = std.receive_fd(other)
        self.shim = shim.Shim(stage, shim.Terms(*data.decode().split("\0")), std.stream_socket(fd))
        for one in (channel, other):
            one.close()
        self.shim.loop.log = self.failures.append
        self.client = std.stream_socket()
        self.client.connect(directory + "/socket")
        self.peer: socket.socket | None = None

    def run(self) -> None:
        init = os.fork()
        if init == 0:
            signal.set_wakeup_fd(-1)
            signal.pause()
            os._exit(0)
        state = f"{self.directory}/warm/{ID}"
        os.makedirs(state)
        os.mkfifo(state + "/exec.fifo")
        waiting = os.open(state + "/exec.fifo", os.O_RDONLY | os.O_NONBLOCK)
        with open(self.bundle + "/init.pid", "wb", buffering=0) as file:
            file.write(b"%d" % init)
        stdout = self.bundle + "/out"
        self._call("Create", bundle=self.bundle, stdout=stdout, stderr=stdout, options={"type_url": engine_oci.OPTIONS_URL, "value": b""})
        self._send("Wait")
        for method in ("Start", "State", "Connect", "Pids"):
            self._call(method)
        self._call("Kill", signal=signal.SIGKILL)
        self._turn_until(lambda: self.shim.task.containers[ID].init.exited.done)
        self._call("Delete")
        self._call("Shutdown")
        self._turn_until(lambda: self.shim.loop.stopping)
        self.client.close()
        self.shim.loop.turn(PATIENCE)
        os.close(waiting)

    def close(self) -> None:
        self.shim.events.close()
        self.shim.loop.close()
        for one in (self.client, self.daemon, self.peer):
            if one is not None:
                one.close()

    def _send(self, method: str, **fields: Any) -> None:
        self.stream += 2
        payload = wire.encode(wire.TASK_METHODS[method][0], {"id": ID, **fields})
        self.client.send(wire.request(self.stream, wire.TASK_SERVICES[0], method, payload))

    def _call(self, method: str, **fields: Any) -> None:
        """Send a request and turn the loop until it is answered."""
        self._send(method, **fields)
        self._turn_until(self._answered)

    def _turn_until(self, done: Any) -> None:
        for _ in range(TURNS):
            if done():
                return
            self.shim.loop.turn(PATIENCE)
            self._take_events()
        self.failures.append("the play stood still")

    def _answered(self) -> bool:
        try:
            data = self.client.recv(65536)
        except BlockingIOError:
            return False
        for stream, _kind, _flags, body in self.frames.feed(data):
            status = wire.decode("ttrpc.Response", body or b"")["status"]
            if status is not None and status["code"]:
                self.failures.append(status["message"])
            if stream == self.stream:
                return True
        return False

    def _take_events(self) -> None:
        """Be the daemon: answer for each event."""
        try:
            if self.peer is None:
                self.peer = std.accept(self.daemon)
            data = self.peer.recv(65536)
        except BlockingIOError:
            return
        for stream, _kind, _flags, _body in self.event_frames.feed(data):
            self.peer.send(wire.response(stream))


def run(directory: str) -> list[str]:
    """Rehearse in ``directory``, which is made and removed; what went wrong.  Children and signal handlers are as before."""
    failures: list[str] = []
    os.mkdir(directory, 0o700)
    try:
        os.symlink(host.which("true"), directory + "/crun")
        for _ in range(ROUNDS):
            failures += _round(directory)
    except OSError as error:
        failures.append(str(error))
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _remove(directory)
    return failures


def _round(directory: str) -> list[str]:
    bundle = directory + "/bundle"
    os.mkdir(bundle)
    os.mkfifo(bundle + "/out")
    with open(bundle + "/config.json", "wb", buffering=0) as file:
        file.write(SPEC)
    reader = os.open(bundle + "/out", os.O_RDONLY | os.O_NONBLOCK)
    play = Play(directory)
    try:
        play.run()
    finally:
        play.close()
        os.close(reader)
        for name in ("/bundle", "/warm"):
            _remove(directory + name)
        os.unlink(directory + "/events")
    return play.failures


def _remove(directory: str) -> None:
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            _remove(entry.path)
        else:
            os.unlink(entry.path)
    os.rmdir(directory)
