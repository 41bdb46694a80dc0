"""A process's terminal: receive its master from the runtime, and carry bytes between it and the client's FIFOs.

The runtime connects to a unix socket (``--console-socket``) and sends the master by SCM_RIGHTS.  The socket has a short name relative to
the bundle, where the runtime runs, so that no length of path matters.

Bytes are carried by the epoll loop with at most ``LIMIT`` waiting each way; then the reading side is left alone until there is room, so a
client that does not read stops the process as a real terminal would.  Output is *drained* when the last holder of the terminal has closed
it (EIO) and all of it is in the FIFO.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from pydock_shim import loop, std, stdio, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK, LIMIT = 16384, 65536
CONNECT = 30.0  # seconds for the runtime to send the terminal
NAME = "tty.sock"
EOT = b"\x04"  # ctrl-d: how a line discipline is told of the end of input


class Socket:
    """Where the runtime brings the terminal; ``master`` is a promise of its descriptor."""

    def __init__(self, main: loop.Loop, bundle: str, name: str) -> None:
        self.loop = main
        self.name = f"{name}.{NAME}"
        self.master = loop.Promise()
        self._directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = f"/proc/self/fd/{self._directory}/{self.name}"
        self._socket = std.stream_socket()
        _unlink(self._path)
        self._socket.bind(self._path)
        os.chmod(self._path, 0o600)
        self._socket.listen(1)
        main.watch(self._socket.fileno(), loop.IN, self._accept)

    def _accept(self, _: int) -> None:
        try:
            peer = std.accept(self._socket)
        except OSError:
            return

        def ready(_: int) -> None:
            self.loop.forget(peer.fileno())
            try:
                _data, fd = std.receive_fd(peer)
            except OSError:
                fd = -1
            peer.close()
            if fd >= 0:
                self.master.resolve(fd)
            else:
                self.master.fail(loop.RpcError(wire.UNKNOWN, "failed to retrieve console master"))

        self.loop.watch(peer.fileno(), loop.IN, ready)

    def receive(self) -> loop.Routine:
        """The master's descriptor."""
        if not (yield self.loop.within(CONNECT, self.master)):
            raise loop.RpcError(wire.UNKNOWN, "failed to retrieve console master: the runtime did not send it")
        return (yield self.master)

    def close(self) -> None:
        self.loop.forget(self._socket.fileno())
        self._socket.close()
        _unlink(self._path)
        os.close(self._directory)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


class Terminal:
    """A master and the FIFOs of its client; has the same verbs as ``stdio.Streams``."""

    def __init__(self, main: loop.Loop, stdin: str, stdout: str) -> None:
        self.loop = main
        self.drained = loop.Promise()
        self._master = -1
        self._output = stdio.Output(stdout)
        self._to_client, self._to_process = bytearray(), bytearray()
        self._in = self._keeper = -1
        self._master_events = self._in_events = self._out_events = 0
        self._hung_up = False
        os.set_blocking(self._output.fd, False)
        if stdin:
            self._in = os.open(stdin, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if stdio.is_fifo(stdin):
                self._keeper = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def attach(self, master: int) -> None:
        """Begin to carry."""
        self._master = master
        os.set_blocking(master, False)
        self._arrange()

    def resize(self, width: int, height: int) -> None:
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0))

    def close_stdin(self) -> None:
        if self._keeper >= 0:
            os.close(self._keeper)
            self._keeper = -1

    def process_ended(self, tries: int = stdio.LATE_READER) -> None:
        """Once drained, the client gets its end of file; if it has still to come, when it does."""
        self._end_input()
        self.drained.then(lambda _: self._release(tries))

    def _release(self, tries: int) -> None:
        self._watch_out(0)
        if tries > 0 and not self._output.look_for_client():
            self.loop.after(stdio.LATE_STEP, lambda: self._release(tries - 1))
        else:
            self._output.give_up()

    def close(self) -> None:
        """The process is deleted."""
        self._end_input()
        self._end_master()
        self._watch_out(0)
        self._output.close()
        self.close_stdin()

    # carrying

    def _arrange(self) -> None:
        """Watch for what can be done now."""
        if self._master >= 0:
            events = (loop.IN if len(self._to_client) < LIMIT else 0) | (loop.OUT if self._to_process else 0)
            if events != self._master_events:
                self._master_events = events
                self._watch(self._master, events, self._master_ready)
        if self._in >= 0:
            events = loop.IN if len(self._to_process) < LIMIT and self._master >= 0 else 0
            if events != self._in_events:
                self._in_events = events
                self._watch(self._in, events, self._input_ready)
        self._watch_out(loop.OUT if self._to_client else 0)
        if self._hung_up and not self._to_client:
            self.drained.resolve()

    def _watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        # With nothing to watch for, epoll would still report a hang-up, again and again.
        if events:
            self.loop.watch(fd, events, handler)
        else:
            self.loop.forget(fd)

    def _watch_out(self, events: int) -> None:
        if events != self._out_events:
            self._out_events = events
            self._watch(self._output.fd, events, self._output_ready)

    def _master_ready(self, events: int) -> None:
        if events & loop.OUT and self._to_process:
            self._write_master()
        if self._master >= 0 and events & (loop.IN | loop.GONE):
            self._read_master()
        self._arrange()

    def _read_master(self) -> None:
        try:
            data = os.read(self._master, CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:
                self.loop.log(f"terminal: {error}")
            data = b""
        if data:
            self._to_client += data
            self._write_client()
        else:
            self._hung_up = True
            self._end_input()
            self._end_master()

    def _write_master(self) -> None:
        try:
            del self._to_process[: os.write(self._master, self._to_process)]
        except BlockingIOError:
            pass
        except OSError:
            self._to_process.clear()

    def _output_ready(self, _: int) -> None:
        self._write_client()
        self._arrange()

    def _write_client(self) -> None:
        try:
            del self._to_client[: os.write(self._output.fd, self._to_client)]
        except BlockingIOError:
            pass
        except OSError as error:
            self.loop.log(f"terminal output: {error}")
            self._to_client.clear()

    def _input_ready(self, _: int) -> None:
        try:
            data = os.read(self._in, CHUNK)
        except BlockingIOError:
            return
        if data:
            self._to_process += data
        else:
            self._to_process += EOT
            self._end_input()
        self._write_master()
        self._arrange()

    def _end_input(self) -> None:
        if self._in >= 0:
            self.loop.forget(self._in)
            os.close(self._in)
            self._in = -1

    def _end_master(self) -> None:
        if self._master >= 0:
            self.loop.forget(self._master)
            os.close(self._master)
            self._master = -1
