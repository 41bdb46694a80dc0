"""The process that is the shim: it forks a worker to do the work, takes over when there is none, and forks another when there is again.

A worker that has carried a container through create and start has written to some 1.5 MB of memory it once shared with every other shim.
The container then runs for hours and asks nothing of it.  So a worker with nothing to do packs what it knows (``slumber``) into one
message, with the descriptors it keeps, and ends; the monitor, which never did more than wait, holds them at 0.3 MB and watches the
descriptors, the socket and its children.  Whatever happens, the next worker is forked in a third of a millisecond, takes the message, and
finds the request still unread in its socket.

Invariants:

- The monitor is the shim: ``shim.json`` names it, it is the subreaper, all containers' processes become its children and it alone reaps
  them.  It tells the worker of each end; ends that come while nobody works wait for the next worker, which they wake.
- A worker sleeps only when it has told how many ends it took in and the monitor has sent no more.
- A worker dies with its monitor (PDEATHSIG); a worker that dies otherwise takes the monitor with it, as one process would.

On their channel (SOCK_SEQPACKET): ``EXIT`` records and single bytes ``TERM``, ``YES``, ``NO`` to the worker; ``HEAD`` and the packed state,
with descriptors, from it.  Not all of these are watched: a FIFO with output that nobody reads is ready all the time.
"""

from __future__ import annotations

import os
import select
import struct
import time

from pydock_shim import linux, shim, std
from pydock_shim.std import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydock_shim import host

EXIT = struct.Struct("=iiq")  # pid, status, ns since the epoch
HEAD = struct.Struct("=qi")  # ends taken in, how many of the descriptors are to be watched (they come first)
TERM, YES, NO = b"t", b"y", b"n"
STATE_LIMIT = 96 << 10  # bytes of a packed state: what fits a socket's buffer
FDS_LIMIT = 200


def run(where: host.Host, terms: bytes, listener: int) -> None:
    """Be the monitor; never returns."""
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    woken, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _nothing)
    parent, state, fds = os.getpid(), b"", [listener]
    waiting: list[bytes] = []
    while True:
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = os.fork()
        if worker == 0:
            signal.set_wakeup_fd(-1)
            channel.close()
            os.close(woken)
            os.close(writer)
            shim.work(where, terms, theirs, state, fds, parent)
        theirs.close()
        for fd in fds[1:]:
            os.close(fd)
        state, fds, watched = _while_awake(worker, channel, woken, listener, waiting)
        channel.close()
        waiting = _while_asleep(woken, fds[:watched])


def _while_awake(worker: int, channel: socket.socket, woken: int, listener: int, messages: list[bytes]) -> tuple[bytes, list[int], int]:
    """Tell the worker of ends and signals, ``messages`` first, until it sleeps; its state, its descriptors, how many to watch."""
    told = 0
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(channel.fileno(), select.POLLIN)
    while True:
        for message in messages:
            channel.send(message)
            told += len(message) == EXIT.size
        poll.poll()
        messages = _news(woken, worker)
        if messages:
            continue
        try:
            data, fds = std.receive_fds(channel, FDS_LIMIT, STATE_LIMIT)
        except BlockingIOError:
            continue
        if not data:
            continue  # the worker is gone: its end is among the next news
        taken, watched = HEAD.unpack_from(data)
        if taken == told:
            channel.send(YES)
            os.waitpid(worker, 0)
            return data[HEAD.size :], [listener, *fds], 1 + watched
        for fd in fds:
            os.close(fd)
        channel.send(NO)


def _while_asleep(woken: int, fds: list[int]) -> list[bytes]:
    """Wait until there is something to do; the messages for who will do it."""
    poll = select.poll()
    for fd in (woken, *fds):
        poll.register(fd, select.POLLIN)
    while True:
        ready = poll.poll()
        messages = _news(woken, 0)
        if messages or any(fd != woken for fd, _ in ready):
            return messages


def _news(woken: int, worker: int) -> list[bytes]:
    """Signals and ends of children since the last call, as messages.  The end of the worker is the end of the shim."""
    try:
        numbers = os.read(woken, 512)
    except BlockingIOError:
        return []
    messages = [TERM] if signal.SIGTERM in numbers else []
    while True:
        try:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return messages
        if info is None:
            return messages
        status = info.si_status if info.si_code == os.CLD_EXITED else 128 + info.si_status
        if info.si_pid == worker:
            os._exit(status)
        messages.append(EXIT.pack(info.si_pid, status, time.time_ns()))


def _nothing(signum: int, stack: object) -> None:
    """A handler there must be for the wakeup descriptor; and SIG_IGN would pass to the containers."""
