"""Between this command's streams and a process's FIFOs until the process ends: one loop, one thread.

Vocabulary: a *target* is the process (container and exec id); *signals* reach it as such without a terminal, as typed bytes with one.
Invariants: input is read only when the process takes it; its end is passed on after its last byte; all output written before the end is out
before `Relay.run` returns; nobody who keeps the process's output open (a background child) holds us once the task forgot the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from pydock.base import errors
from pydock.cli import console, signals
from pydock.client import fifos, tasks
from pydock.client.connection import Connection, Pending

BUFFER = 64 << 10
FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCONT,
    signal.SIGTSTP,
)  # fmt: skip
_WOKEN = b"\0"


@dataclass(frozen=True, slots=True)
class Target:
    """A process; the first of its task with an empty ``exec_id``."""

    conn: Connection
    container: str
    exec_id: str = ""

    def kill(self, number: int) -> None:
        """Send a signal; one that comes too late is no error."""
        with contextlib.suppress(errors.NotFound, errors.FailedPrecondition):
            tasks.kill(self.conn, self.container, number, self.exec_id)

    def resize(self) -> None:
        """Give the process's terminal the size of ours; too late is no error."""
        measured = console.size()
        if measured is not None:
            with contextlib.suppress(errors.NotFound, errors.FailedPrecondition):
                tasks.resize(self.conn, self.container, measured[0], measured[1], self.exec_id)

    def close_stdin(self) -> None:
        """Tell the shim that no more input comes; too late is no error."""
        with contextlib.suppress(errors.NotFound, errors.FailedPrecondition):
            tasks.close_stdin(self.conn, self.container, self.exec_id)


class Relay:
    """Moves bytes, signals and sizes until the process has ended and everything it wrote is out."""

    def __init__(self, target: Target, ours: fifos.Fifos, *, forget: bool = True) -> None:
        """``forget``: delete the process (with an empty exec id the task) when it has ended."""
        self._target, self._fifos, self._forget = target, ours, forget
        self._selector = selectors.PollSelector()
        self._wake, self._waker = socket.socketpair()
        self._pending = b""
        self._outputs = 0
        self._reading_stdin = False

    def run(self, ended: Pending[tasks.WaitResponse]) -> int:
        """Return the exit status. Raises what waiting for the process raises; Unavailable for a signal that finds no daemon."""
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        with self._wake, self._waker, self._selector, _signals_into(self._waker, self._fifos.stdio.terminal):
            self._selector.register(self._wake, selectors.EVENT_READ, self._on_wake)
            self._begin()
            status = self._until(ended)
            self._stop_input()
            with signals.shielded():
                self._finish()
        return status

    def _until(self, ended: Pending[tasks.WaitResponse]) -> int:
        """Move things until the process has ended. A daemon that goes away meanwhile is waited for: the process does not need it."""
        while True:
            ended.when_done(self._notify)
            while not ended.done():
                self._step(None)
            try:
                return ended.result().exit_status
            except (errors.Unavailable, errors.Canceled):
                ended = tasks.wait(self._target.conn.patient(), self._target.container, self._target.exec_id)

    def _begin(self) -> None:
        for source, sink in ((self._fifos.stdout, 1), (self._fifos.stderr, 2)):
            if source >= 0:
                self._outputs += 1
                self._selector.register(source, selectors.EVENT_READ, self._output(source, sink))
        if self._fifos.stdin >= 0:
            self._resume_stdin()
        if self._fifos.stdio.terminal:
            self._target.resize()

    def _finish(self) -> None:
        """Let out what is left: until both outputs end, or the process is forgotten and nothing more is ready."""
        forgotten = self._forgetting() if self._forget else None
        if forgotten is not None:
            forgotten.when_done(self._notify)
        while self._outputs and (forgotten is None or not forgotten.done()):
            self._step(None)
        while self._outputs and self._step(0):
            pass
        if forgotten is not None:
            with contextlib.suppress(errors.NotFound):
                forgotten.result()

    def _forgetting(self) -> Pending[tasks.DeleteResponse]:
        return tasks.begin_delete(self._target.conn.patient(), self._target.container, self._target.exec_id)

    def _step(self, timeout: float | None) -> bool:
        events = self._selector.select(timeout)
        for key, _ in events:
            key.data()
        return bool(events)

    def _notify(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(_WOKEN)

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._wake.recv(BUFFER):
                if number == signal.SIGWINCH:
                    self._target.resize()
                elif number:
                    self._target.kill(number)

    def _output(self, source: int, sink: int) -> Callable[[], None]:
        broken = False

        def move() -> None:
            nonlocal broken
            try:
                data = os.read(source, BUFFER)
            except BlockingIOError:
                return
            if not data:
                self._outputs -= 1
                self._selector.unregister(source)
            elif not broken:
                # Who stops reading us does not stop the process: its output is taken and dropped from then on.
                broken = not _write_all(sink, data)

        return move

    def _resume_stdin(self) -> None:
        try:
            self._selector.register(0, selectors.EVENT_READ, self._input)
        except (OSError, ValueError):
            self._end_input()
        else:
            self._reading_stdin = True

    def _input(self) -> None:
        try:
            data = os.read(0, BUFFER)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EBADF):
                raise
            data = b""
        self._pause_stdin()
        if not data:
            self._end_input()
            return
        self._pending = data
        self._selector.register(self._fifos.stdin, selectors.EVENT_WRITE, self._feed)

    def _feed(self) -> None:
        try:
            self._pending = self._pending[os.write(self._fifos.stdin, self._pending) :]
        except BlockingIOError:
            return
        if not self._pending:
            self._selector.unregister(self._fifos.stdin)
            self._resume_stdin()

    def _pause_stdin(self) -> None:
        if self._reading_stdin:
            self._reading_stdin = False
            self._selector.unregister(0)

    def _end_input(self) -> None:
        os.close(self._fifos.stdin)
        self._fifos.stdin = -1
        self._target.close_stdin()

    def _stop_input(self) -> None:
        """Read no more: nobody is there to take it."""
        self._pause_stdin()
        if self._pending:
            self._selector.unregister(self._fifos.stdin)
            self._pending = b""


def _write_all(sink: int, data: bytes) -> bool:
    try:
        while data:
            data = data[os.write(sink, data) :]
    except BlockingIOError:
        # Somebody made our output non-blocking; wait for it as if it were not.
        with selectors.PollSelector() as selector:
            selector.register(sink, selectors.EVENT_WRITE)
            selector.select()
        return _write_all(sink, data)
    except BrokenPipeError:
        return False
    return True


@contextlib.contextmanager
def _signals_into(waker: socket.socket, terminal: bool) -> Iterator[None]:
    """Have signals written to ``waker`` by number for the block, in place of what they do to this process."""

    def nothing(number: int, frame: FrameType | None) -> None:
        """Only the number matters."""

    numbers = [*FORWARDED, signal.SIGWINCH] if terminal else list(FORWARDED)
    before = {number: signal.signal(number, nothing) for number in numbers}
    descriptor = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
