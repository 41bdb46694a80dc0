"""The streams of one process: FIFOs, files and loggers, handed to the container without copying.

For a FIFO the container gets the writing end itself.  The shim keeps a reading end until the process is deleted, so that a client that
leaves costs the container no SIGPIPE (it blocks when the FIFO is full, as under containerd).  For stdin the container gets the reading
end and the shim keeps a writing one, which ``close_stdin`` closes: the process sees end of file when the client has closed its own too.
That writing end is opened when the process is about to run, and not at all if a client has come, written and left by then: ``ctr`` has
nothing yet to tell that its input ended while Create is under way, and would never say so.

A client opens its ends before or after ours, in any order, and may still be in a blocking open.  Whether a reader of stdout is there
shows in a non-blocking open for writing (ENXIO without one).  If none is, the shim holds a writing end open until the process has ended
and a reader is seen: else a process that ends at once would leave that client waiting for a writer for ever.

Other forms: ``""`` is /dev/null; ``file://PATH`` and plain files are appended to; ``binary://PROGRAM?arg=value`` starts a logger that
reads stdout on descriptor 3 and stderr on 4, and says by closing 5 that it is ready (containerd's runtime v2 logging).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat

from pydock_shim import loop, wire
from pydock_shim.std import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LATE_STEP, LATE_READER = 0.05, 200  # seconds between looks for a client that comes after its process has ended, and how many
LOGGER_START, LOGGER_END = 30.0, 10.0  # seconds


def null(flags: int) -> int:
    """/dev/null, opened."""
    return os.open("/dev/null", flags | os.O_CLOEXEC)


def set_blocking(fd: int) -> None:
    """Let reads and writes of ``fd`` wait, as a program expects of its streams."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK)


def is_fifo(path: str) -> bool:
    """Whether ``path`` is a FIFO.  ``OSError`` where there is nothing."""
    return stat.S_ISFIFO(os.stat(path).st_mode)


def unquote(text: str) -> str:
    """Undo %XX; ``urllib`` would cost more memory than all of the shim."""
    first, *rest = text.split("%")
    out = bytearray(first.encode())
    for part in rest:
        try:
            out.append(int(part[:2], 16))
            out += part[2:].encode()
        except ValueError:
            out += b"%" + part.encode()
    return out.decode("utf-8", "replace")


class Output:
    """Where a stream of the process goes; ``fd`` is the end to write to, ``awaited`` whether its client has still to come."""

    def __init__(self, path: str) -> None:
        self.fd = -1
        self.awaited = False
        self.reader = -1
        self._path = path
        if not path:
            self.fd = null(os.O_WRONLY)
        elif path.startswith("file://"):
            self.fd = _append(unquote(path[len("file://") :]))
        elif not is_fifo(path):
            self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        else:
            self.fd = self._writer()
            self.awaited = self.fd < 0
            self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if self.awaited:
                self.fd = self._writer()

    @classmethod
    def kept(cls, reader: int) -> Output:
        """One whose process has its end long since."""
        output = cls.__new__(cls)
        output.fd, output.awaited, output.reader, output._path = -1, False, reader, ""
        return output

    def _writer(self) -> int:
        """A writing end, -1 if nobody has the FIFO open for reading (a client that waits in its open counts)."""
        try:
            return os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return -1

    def look_for_client(self) -> bool:
        """Once the process has ended: let go of the writing end if a client is there; whether that is settled.

        Our reader is closed for the moment of the question, which is why it is not asked while the process may write.
        """
        if not self.awaited:
            return True
        os.close(self.reader)
        try:
            other = self._writer()
        except OSError:  # the client took the FIFO away: it will not come
            self.reader = -1
            self.give_up()
            return True
        self.reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if other < 0:
            return False
        os.close(other)
        self.give_up()
        return True

    def hand_over(self) -> None:
        """The process has its end; let go of ours, unless a client has still to come."""
        if not self.awaited:
            self.give_up()

    def give_up(self) -> None:
        """Let go of the writing end, client or not."""
        self.awaited = False
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self.give_up()
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


def _append(path: str) -> int:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class Logger(Output):
    """One stream of a logging program: the writing end of a pipe."""

    def __init__(self) -> None:
        super().__init__("")
        os.close(self.fd)
        self.pipe, self.fd = os.pipe2(os.O_CLOEXEC)

    def close(self) -> None:
        super().close()
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1


class Streams:
    """stdin, stdout and stderr of one process without a terminal."""

    def __init__(self, main: loop.Loop, paths: tuple[str, str, str], names: tuple[str, str]) -> None:
        self.loop, self.paths, self.names = main, paths, names
        self._in = -1
        self._keeper = -1
        self._keepable = False  # by a writing end of ours, once the process is to run
        self._begun = self._handed = False
        self._outputs: list[Output] = []
        self._logger = 0

    def open(self) -> loop.Routine:
        """Open everything; the three descriptors for the process.  Nothing stays open if that fails."""
        stdin, stdout, stderr = self.paths
        try:
            self._open_stdin(stdin)
            if stdout.startswith(("binary://", "binary-v2://")):
                yield from self._start_logger(stdout)
            else:
                self._outputs.append(Output(stdout))
                same = stderr == stdout and stdout
                self._outputs.append(self._outputs[0] if same else Output(stderr))
        except OSError as error:
            self.close()
            raise loop.RpcError(wire.UNKNOWN, f"failed to create process I/O: opening {error.filename!r}: {error.strerror}") from error
        except loop.RpcError:
            self.close()
            raise
        for output in self._outputs:
            set_blocking(output.fd)
        return (self._in, self._outputs[0].fd, self._outputs[1].fd)

    def _open_stdin(self, path: str) -> None:
        if not path:
            self._in = null(os.O_RDONLY)
            return
        self._in = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._keepable = is_fifo(path)
        set_blocking(self._in)

    def hand_over(self) -> None:
        """The runtime has its copies."""
        self._handed = True
        self._close_in()
        for output in self._outputs:
            output.hand_over()

    def begin(self) -> None:
        """The process is about to run."""
        if self._keepable:
            poll = select.poll()
            poll.register(self._in, 0)
            if not any(event & select.POLLHUP for _, event in poll.poll(0)):
                self._keeper = os.open(self.paths[0], os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._begun = True
        self._close_in()

    def _close_in(self, now: bool = False) -> None:
        """Close stdin once the runtime has its copy and the keeper was looked for: a create hands over first, an exec begins first."""
        if self._in >= 0 and (now or (self._begun and self._handed)):
            os.close(self._in)
            self._in = -1

    def close_stdin(self) -> None:
        self._keepable = False
        if self._keeper >= 0:
            os.close(self._keeper)
            self._keeper = -1

    def pack(self, fds: list[int]) -> dict[str, Any] | None:
        """Add the descriptors kept to ``fds``; what ``restore`` needs to know of them.  None while a client or a logger is to be minded."""
        if self._logger or self._in >= 0 or any(output.awaited for output in self._outputs):
            return None
        begin = len(fds)
        fds += [self._keeper] if self._keeper >= 0 else []
        fds += dict.fromkeys(output.reader for output in self._outputs if output.reader >= 0)
        return {"stdin": self._keeper >= 0, "fds": list(range(begin, len(fds)))}

    def restore(self, fds: list[int], stdin: bool) -> None:
        """Take descriptors back that were packed; ``stdin``: the first of them keeps stdin open."""
        if stdin:
            self._keeper, fds = fds[0], fds[1:]
        self._outputs = [Output.kept(fd) for fd in fds]

    def process_ended(self, tries: int = LATE_READER) -> None:
        """Writing ends held for a client that has not come yet are let go when it does, or after a while."""
        here = [output.look_for_client() for output in self._outputs]  # each is to be asked, so no generator
        if all(here):
            return
        if tries > 0:
            self.loop.after(LATE_STEP, lambda: self.process_ended(tries - 1))
        else:
            for output in self._outputs:
                output.give_up()

    def close(self) -> None:
        """The process is deleted."""
        self.close_stdin()
        self._close_in(now=True)
        for output in self._outputs:
            output.close()
        self._outputs = []
        if self._logger:
            logger, self._logger = self._logger, 0
            self.loop.start(self._end_logger(logger))

    def _start_logger(self, uri: str) -> loop.Routine:
        program, args = logger_command(uri)
        out, err = Logger(), Logger()
        self._outputs = [out, err]
        ready, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._logger = _spawn_logger([program, *args], (out.pipe, err.pipe, told), self.names)
            os.close(told)
            told = -1
            yield from self._logger_ready(ready, needs_byte=uri.startswith("binary-v2"))
        finally:
            os.close(ready)
            if told >= 0:
                os.close(told)
        for one in (out, err):
            os.close(one.pipe)
            one.pipe = -1

    def _logger_ready(self, ready: int, needs_byte: bool) -> loop.Routine:
        said = loop.Promise()
        self.loop.watch(ready, loop.IN, lambda _: said.resolve())
        in_time = yield self.loop.within(LOGGER_START, said)
        self.loop.forget(ready)
        if not in_time or (not os.read(ready, 1) and needs_byte):
            raise loop.RpcError(wire.UNKNOWN, "logging binary did not call ready")

    def _end_logger(self, pid: int) -> loop.Routine:
        gone = self.loop.child(pid)
        for seconds, number in ((1.0, signal.SIGTERM), (LOGGER_END, signal.SIGKILL)):
            if (yield self.loop.within(seconds, gone)):
                return
            os.kill(pid, number)  # a child not yet reaped: the pid is its own


def logger_command(uri: str) -> tuple[str, list[str]]:
    """Program and arguments of ``binary://PATH?name=value&...``: each name, followed by its value if it has one."""
    path, _, query = uri.partition("://")[2].partition("?")
    words = []
    for part in query.split("&") if query else ():
        name, has_value, value = part.partition("=")
        words.append(unquote(name.replace("+", " ")))
        if has_value:
            words.append(unquote(value.replace("+", " ")))
    return unquote(path), words


def _spawn_logger(argv: list[str], fds: tuple[int, int, int], names: tuple[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in fds]
        for target, fd in enumerate(high, 3):
            os.dup2(fd, target)
        set_blocking(5)
        env = {**os.environ, "CONTAINER_ID": names[1], "CONTAINER_NAMESPACE": names[0]}
        os.execve(argv[0], argv, env)  # noqa: S606
    except OSError:
        pass
    finally:
        os._exit(127)
