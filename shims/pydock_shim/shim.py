"""One shim process from its first line to its last: descriptors, signals, loop, server, end.

It is forked by the launcher, or by ``start`` of the stand-alone command, with its listening socket open already.
"""

from __future__ import annotations

import os
import time

from pydock_shim import events, linux, loop, monitor, server, service, slumber, std
from pydock_shim.std import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydock_shim import host
    from pydock_shim.std import socket

LOG_LIMIT = 1 << 20  # bytes of shim.log
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 64.0  # seconds between looks whether a worker may sleep
LAST_EVENTS = 3.0  # seconds that Shutdown leaves for events still to be sent
NAME = b"pydock-shim"


class Log:
    """Lines in ``shim.log`` of the bundle; the file is made by the first of them and bounded."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._written = 0

    def __call__(self, text: str) -> None:
        line = f"{time.time():.3f} {text}\n".encode()
        self._written += len(line)
        if self._written > LOG_LIMIT:
            return
        try:
            linux.write_file(self.path, line, os.O_CREAT | os.O_APPEND)
        except OSError:
            return  # nothing is left to tell it to


class Terms:
    """What makes a shim this shim: see ``launcher`` for the words; ``oom_score`` is what its children are to have, "" for its own."""

    __slots__ = ("bundle", "events", "id", "namespace", "oom_score", "runtime", "runtime_root", "socket")

    def __init__(self, *values: str) -> None:
        self.namespace, self.id, self.socket, self.bundle, self.events, self.runtime, self.runtime_root, self.oom_score = values


TERMS = ("namespace", "id", "socket", "bundle", "events", "runtime", "runtime_root", "oom_score")


def packed(terms: Terms) -> bytes:
    """The terms as one message."""
    return "\0".join([getattr(terms, name) for name in TERMS]).encode()


def main(where: host.Host, channel: socket.socket) -> None:
    """In a forked child: be the shim that ``channel`` tells, or end with it; never returns."""
    try:
        os.setsid()
        os.dup2(0, 2)
        terms, fd = std.receive_fd(channel)
        if fd >= 0:
            channel.close()
            monitor.run(where, terms, fd)
    finally:
        os._exit(1)


def work(where: host.Host, terms: bytes, channel: socket.socket, state: bytes, fds: list[int], parent: int) -> None:
    """Be the worker of monitor ``parent``, from ``state`` on; never returns."""
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that was set
        os._exit(1)
    one = Shim(where, Terms(*terms.decode().split("\0")), std.stream_socket(fds[0]))
    one.serve_under(channel)
    if state:
        slumber.restore(one, state, fds[1:])
    while not one.loop.stopping:
        try:
            one.loop.run()
        except Exception as error:  # noqa: BLE001 - the supervisor: one faulty call must not cost containers their shim
            one.log(f"fault: {type(error).__name__}: {error} {_place(error)}")
    os._exit(0)


class Shim:
    """The parts of a shim, put together."""

    def __init__(self, where: host.Host, terms: Terms, listener: socket.socket) -> None:
        self.terms = terms
        self.log = Log(terms.bundle + "/shim.log")
        self.loop = loop.Loop(self.log)
        self.loop.watch_children()
        self.events = events.Events(self.loop, terms.namespace, terms.events)
        self.task = service.Task(self.loop, where, terms, self.events)
        self.server = server.Server(self.loop, listener, self.task.handlers(), self.events.retry)
        self.task.finish.then(self._finished)
        self.channel: socket.socket | None = None
        self._ends = 0  # told by the monitor
        self._seen = 0  # the server's activity when it was last looked at
        self._pause = FIRST_PAUSE

    def serve_under(self, channel: socket.socket) -> None:
        """Take ends of processes from the monitor, and sleep when there is nothing to do."""
        self.channel = channel
        self.loop.subreaper = os.getppid()
        self.loop.watch(channel.fileno(), loop.IN, self._told)
        self.loop.after(self._pause, self._rest)

    def _told(self, _: int) -> None:
        if self.channel is not None:
            self._take(self.channel.recv(64))

    def _take(self, message: bytes) -> None:
        """One message of the monitor."""
        if len(message) == monitor.EXIT.size:
            self._ends += 1
            self.loop.ended(loop.Exit(*monitor.EXIT.unpack(message)))
        elif message == monitor.TERM:
            # A shim with containers outlives whoever wants it gone: without it their exits would be lost.
            self.task.shutdown({})

    def _rest(self) -> None:
        """Sleep if nothing was asked since the last look; look again later, and later still, if that cannot be."""
        if self.server.activity != self._seen:
            self._seen, self._pause = self.server.activity, FIRST_PAUSE
        else:
            self._sleep()
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self.loop.after(self._pause, self._rest)

    def _sleep(self) -> None:
        packed = slumber.pack(self)
        if packed is None or self.channel is None:
            return
        state, watched, kept = packed
        fds = watched + kept
        if len(state) > monitor.STATE_LIMIT or len(fds) > monitor.FDS_LIMIT:
            return
        try:
            std.send_fds(self.channel, monitor.HEAD.pack(self._ends, len(watched)) + state, fds)
        except OSError as error:
            self.log(f"cannot sleep: {error}")
            return
        while True:
            message = self.channel.recv(64)
            if message in (monitor.YES, b""):
                os._exit(0)
            if message == monitor.NO:
                return
            self._take(message)

    def _finished(self, _: loop.Promise) -> None:
        self.loop.start(self._finish())

    def _finish(self) -> loop.Routine:
        """Leave nothing, once the last events are delivered."""
        self.server.close()
        try:
            os.unlink(self.terms.socket)
        except FileNotFoundError:
            pass
        yield self.loop.within(LAST_EVENTS, self.events.empty)
        self.loop.stopping = True


def _place(error: Exception) -> str:
    trace = error.__traceback__
    places = []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " ".join(places[-4:])


def settle(keep: int) -> None:
    """Become what shims may be forked from: at home in "/", with nothing open but /dev/null for stdin and stdout, stderr, and ``keep``."""
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    os.umask(0o022)
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
