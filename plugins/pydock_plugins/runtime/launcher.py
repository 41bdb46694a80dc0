"""The launcher: the small process that forks shims for the daemon, started before grpc and kept alive.

Vocabulary: a *handle* is a started launcher: our end of its SOCK_SEQPACKET pair and its pidfd; a *request* is one JSON datagram, answered
by one JSON datagram, in order.  Invariants: the launcher dies with our end of the pair, shims do not; a request is bounded in time;
when the launcher dies under a request the caller learns it as ``Lost`` and decides whether to ask the next launcher again (the bundle
tells whether a shim came of the first request); one that dies at once is not restarted in a loop but by the next request.
The module imports only the standard library at its top, so that ``start_early`` may run before anything else is loaded.
"""

from __future__ import annotations

import asyncio
import collections
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydock_plugins.runtime import held

LOG = logging.getLogger(__name__)

CHILD_FD = 3
LONGEST_DATAGRAM = 1 << 16
REQUEST_SECONDS = 10.0
STEADY_SECONDS = 1.0  # a launcher that lived shorter is restarted by the next request only


class Lost(Exception):
    """The launcher died or hung before it answered; whether a shim came of it is not known."""


class Refused(Exception):
    """The launcher answered that it could not; the text says why."""


@dataclass
class Handle:
    """A running launcher: our end of the pair, its process."""

    sock: socket.socket
    pid: int
    pidfd: int
    started: float

    def close(self) -> None:
        """Close our end, which ends the launcher, and let go of the process."""
        self.sock.close()
        if not held.is_alive(self.pidfd):
            held.reap(self.pidfd)
        os.close(self.pidfd)


@dataclass(frozen=True)
class Asked:
    """A request on its way."""

    handle: Handle
    future: asyncio.Future[dict[str, Any]]


def program() -> Path:
    """Return the shim package's entry point without importing the package."""
    for folder in sys.path:
        candidate = Path(folder or ".") / "pydock_shim" / "__main__.py"
        if candidate.is_file():
            return candidate.resolve()
    raise FileNotFoundError("the package pydock_shim is not installed beside pydock")


def command(*words: str) -> list[str]:
    """Return the argument vector that runs the shim package with ``words``, isolated from this environment's packages."""
    return [sys.executable, "-I", "-S", "-E", "-OO", str(program()), *words]


def start() -> Handle:
    """Start a launcher and return at once; requests queue in the socket until it is up."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with theirs:
        pid, pidfd = held.spawn(command("launch", "--fd", str(CHILD_FD)), {CHILD_FD: theirs.fileno()})
    ours.setblocking(False)
    return Handle(ours, pid, pidfd, time.monotonic())


def start_early(root: Path, state: Path) -> object:
    """Start a launcher before the heavy imports; the runtime plugin adopts the handle."""
    return start()


class Launcher:
    """The daemon's side: sends requests, restarts the process when it dies."""

    def __init__(self, handle: Handle | None = None, starter: Callable[[], Handle] = start) -> None:
        self._starter = starter
        self._handle = handle
        self._waiting: collections.deque[asyncio.Future[dict[str, Any]]] = collections.deque()
        self._open = False

    async def __aenter__(self) -> Launcher:
        self._open = True
        self._watch(self._handle or self._starter())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._open = False
        self._drop("the daemon stops")

    @property
    def pid(self) -> int:
        """Return the process number of the launcher that runs, 0 when none does."""
        return self._handle.pid if self._handle else 0

    def post(self, request: Mapping[str, object]) -> Asked:
        """Send one datagram at once and return what ``answer`` waits for.  Raises Lost."""
        try:
            handle = self._handle or self._restart()
        except OSError as error:
            raise Lost(f"a launcher cannot be started: {error}") from error
        try:
            handle.sock.send(json.dumps(request, separators=(",", ":")).encode())
        except BlockingIOError:
            raise Lost("the launcher does not read its requests") from None
        except OSError as error:
            self._drop(f"{error}")
            raise Lost(f"the launcher is gone: {error}") from error
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return Asked(handle, future)

    async def answer(self, asked: Asked) -> dict[str, Any]:
        """Return the answer to a posted request.  Raises Lost, Refused; may be called again after a cancellation."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                reply = await asyncio.shield(asked.future)
        except TimeoutError:
            self._abandon(asked.handle)
            raise Lost(f"the launcher did not answer within {REQUEST_SECONDS:.0f} s") from None
        if not reply.get("ok"):
            raise Refused(str(reply.get("error", "the launcher refused without a reason")))
        return reply

    def _abandon(self, handle: Handle) -> None:
        """Kill a launcher that hangs: its answers could no longer be told apart in time, and it may fork no more shims."""
        if handle is self._handle:
            self._died(handle, "it hangs")

    def _watch(self, handle: Handle) -> None:
        self._handle = handle
        loop = asyncio.get_running_loop()
        loop.add_reader(handle.sock.fileno(), self._readable, handle)

    def _readable(self, handle: Handle) -> None:
        try:
            datagram = handle.sock.recv(LONGEST_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            self._died(handle, str(error))
            return
        if not datagram:
            self._died(handle, "it closed its end")
            return
        self._answer(handle, datagram)

    def _answer(self, handle: Handle, datagram: bytes) -> None:
        try:
            reply = json.loads(datagram)
        except ValueError:
            reply = None
        if not isinstance(reply, dict) or not self._waiting:
            LOG.error("the launcher said what nobody asked for; it is replaced")
            held.kill(handle.pidfd)
            return
        future = self._waiting.popleft()
        if not future.done():
            future.set_result(reply)

    def _died(self, handle: Handle, why: str) -> None:
        """Fail what waits and, unless it died as soon as it was started, start the next."""
        steady = time.monotonic() - handle.started > STEADY_SECONDS
        LOG.warning("the launcher (pid %d) ended: %s", handle.pid, why)
        self._drop(why)
        if self._open and steady:
            try:
                self._restart()
            except OSError as error:
                LOG.error("a launcher cannot be started: %s; the next request tries again", error)

    def _restart(self) -> Handle:
        handle = self._starter()
        LOG.info("launcher started again, pid %d", handle.pid)
        self._watch(handle)
        return handle

    def _drop(self, why: str) -> None:
        """Let go of the launcher; while the daemon goes on it is killed first, so that a half-dead one forks no more shims."""
        handle, self._handle = self._handle, None
        if handle is not None:
            asyncio.get_running_loop().remove_reader(handle.sock.fileno())
            if self._open:
                held.end(handle.pidfd)
            handle.close()
        waiting, self._waiting = self._waiting, collections.deque()
        for future in waiting:
            if not future.done():
                future.set_exception(Lost(f"the launcher is gone: {why}"))
