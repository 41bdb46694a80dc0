"""Signals, and the end of the daemon: graceful within ten seconds, at once when asked twice.

Vocabulary: a *graceful* end stops answering, closes the plugins in reverse and leaves every container running.
Invariants: the first SIGTERM or SIGINT begins it, also in the middle of a start; the second ends the process there and then;
``alarm(2)`` ends it even if the event loop no longer turns. SIGHUP re-reads what can be; SIGPIPE is a failed write like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

LONGEST_SECONDS = 10
STOPPING = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """The wish to end: awaited by the running daemon, raised as a cancellation in one that still starts."""

    def __init__(self, task: asyncio.Task[Any], leave: Callable[[int], None] = os._exit) -> None:
        self._task = task
        self._leave = leave
        self._asked = asyncio.Event()
        self._ready = False

    @property
    def asked(self) -> bool:
        """Tell whether a stop was asked for."""
        return self._asked.is_set()

    async def wait(self) -> None:
        """Say that the start is over and wait until a stop is asked for."""
        self._ready = True
        await self._asked.wait()

    def ask(self, number: signal.Signals) -> None:
        """Begin a graceful end, or end at once if one has begun."""
        if self.asked:
            log.warning("second signal: leaving at once", extra={"signal": number.name})
            self._leave(128 + number)
            return
        log.info("stopping; containers go on", extra={"signal": number.name})
        self._asked.set()
        signal.alarm(LONGEST_SECONDS)
        if not self._ready:
            self._task.cancel()


def install(loop: asyncio.AbstractEventLoop, stop: Stop, reload: Callable[[], None]) -> None:
    """Connect the signals."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for number in STOPPING:
        loop.add_signal_handler(number, stop.ask, number)
    loop.add_signal_handler(signal.SIGHUP, reload)


def notify(state: str) -> None:
    """Tell systemd a state, "READY=1" (sd_notify(3)); nothing without a NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), name)


class Readiness:
    """The write end of a pipe named by PYDOCK_READY_FD, on which whoever started the daemon waits: a line, or an end without one."""

    def __init__(self) -> None:
        text = os.environ.pop("PYDOCK_READY_FD", "")
        self._fd = int(text) if text.isdigit() else -1
        if self._fd >= 0:
            os.set_inheritable(self._fd, False)

    def tell(self) -> None:
        """Write the line and close the pipe."""
        if self._fd >= 0:
            os.write(self._fd, b"ready\n")
            os.close(self._fd)
            self._fd = -1
