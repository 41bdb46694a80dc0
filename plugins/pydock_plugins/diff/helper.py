"""The unpack zygote as the daemon holds it: started, asked for children, and ended.

Vocabulary: a *child* is a forked process for one layer, held by pidfd and spoken to over its own socket.
Invariants: a child that is left is dead and reaped before its context ends; messages are dispatched by request id; when the zygote dies,
what waits for it gets Unavailable, and children it had end when their sockets close.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final

from pydock.base import errors
from pydock_plugins.diff import wire

_GONE: Final = -1
_END_SECONDS: Final = 10.0


async def ready(sock: socket.socket, *, to_write: bool = False) -> None:
    """Return when ``sock`` can be read, or written."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    add(sock.fileno(), wake)
    try:
        await waiter
    finally:
        remove(sock.fileno())


async def send(sock: socket.socket, message: wire.Message, fds: Sequence[int] = ()) -> None:
    """Send on a non-blocking socket; Unavailable when the other end is gone."""
    while True:
        try:
            return wire.send(sock, message, fds)
        except BlockingIOError:
            await ready(sock, to_write=True)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise errors.Unavailable("unpack helper is gone") from error


async def receive(sock: socket.socket) -> wire.Message | None:
    """The next message on a non-blocking socket, None at its end."""
    while True:
        try:
            return wire.receive(sock)[0]
        except BlockingIOError:
            await ready(sock)
        except ConnectionResetError:
            return None


class Child:
    """A helper for one layer; ``sock`` is non-blocking."""

    def __init__(self, sock: socket.socket, started: asyncio.Future[int], ended: asyncio.Future[int]) -> None:
        self.sock, self._started, self._ended = sock, started, ended

    async def started(self) -> None:
        """Return when the process is there; Unavailable when the zygote is not."""
        await asyncio.shield(self._started)

    async def status(self) -> int:
        """The wait status of the process once it has ended, -1 when nobody saw it."""
        return await asyncio.shield(self._ended)

    async def end(self) -> None:
        """Close the socket, kill what still runs and wait until it is gone."""
        self.sock.close()
        if self._started.done() and not self._started.cancelled() and self._started.exception() is None:
            pidfd = self._started.result()
            try:
                if not self._ended.done():
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                await asyncio.wait([self._ended], timeout=_END_SECONDS)
            finally:
                os.close(pidfd)
            return
        # Its process reads the end of the socket as soon as it exists, and ends by itself.
        await asyncio.wait([self._ended], timeout=_END_SECONDS)


class Helper:
    """A running zygote."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process, self._control = process, control
        self._ids = itertools.count(1)
        self._started: dict[int, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._gone: asyncio.Future[None] | None = None
        self.alive = True
        control.setblocking(False)
        asyncio.get_running_loop().add_reader(control.fileno(), self._dispatch)

    @classmethod
    def start(cls) -> Helper:
        """Exec the zygote; it imports while the caller goes on, and takes requests meanwhile."""
        ours, theirs = wire.pair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", "pydock_plugins.diff.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={"LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2"},
                start_new_session=True,
            )
        return cls(process, ours)

    @property
    def pid(self) -> int:
        """The zygote's process."""
        return self._process.pid

    @contextlib.asynccontextmanager
    async def child(self, patience: float) -> AsyncIterator[Child]:
        """A fresh child; dead when the context is left. Unavailable when the zygote has died, DeadlineExceeded when it does not answer."""
        loop = asyncio.get_running_loop()
        ours, theirs = wire.pair()
        ours.setblocking(False)
        number = next(self._ids)
        child = Child(ours, loop.create_future(), loop.create_future())
        self._started[number], self._ended[number] = child._started, child._ended
        try:
            with theirs:
                await send(self._control, {"id": number}, [theirs.fileno()])
            await self._born(child, patience)
            yield child
        finally:
            await child.end()
            self._started.pop(number, None)
            self._ended.pop(number, None)

    async def _born(self, child: Child, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await child.started()
        except TimeoutError:
            self._process.kill()
            raise errors.DeadlineExceeded(f"unpack zygote does not answer for {patience:g} seconds") from None

    def _dispatch(self) -> None:
        while self.alive:
            try:
                message, fds = wire.receive(self._control, 1)
            except BlockingIOError:
                return
            except ConnectionResetError:
                message, fds = None, []
            if message is None:
                self.stop()
                return
            started, ended = self._started.get(message["id"]), self._ended.get(message["id"])
            if fds and started is not None and not started.done():
                started.set_result(fds[0])
            elif fds:
                os.close(fds[0])
            elif ended is not None and not ended.done():
                ended.set_result(int(message["exit"]))

    def _lost(self) -> None:
        self.alive = False
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        for started in self._started.values():
            if not started.done():
                started.set_exception(errors.Unavailable("unpack helper ended"))
                started.exception()  # taken: a waiter that was cancelled will not
        for ended in self._ended.values():
            if not ended.done():
                ended.set_result(_GONE)

    def stop(self) -> None:
        """Tell the zygote to end with all its children, and have it reaped when it has; `close` waits for that."""
        if self.alive:
            self._lost()
        if self._gone is None:
            self._control.close()
            loop = asyncio.get_running_loop()
            self._gone = loop.create_future()
            pidfd = os.pidfd_open(self._process.pid)
            loop.add_reader(pidfd, self._reap, pidfd)

    def _reap(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        self._process.wait()
        if self._gone is not None:
            self._gone.set_result(None)

    async def close(self) -> None:
        """End the zygote and every child, and return when they are gone."""
        self.stop()
        if self._gone is None:
            return
        await asyncio.wait([self._gone], timeout=_END_SECONDS)
        if not self._gone.done():
            self._process.kill()
            await asyncio.wait([self._gone])
