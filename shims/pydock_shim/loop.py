"""One epoll loop: descriptors, timers, children, and generators that wait for promises.

A *routine* is a generator that yields promises and is resumed with their values (or their errors, thrown in).  ``Loop.start`` runs one
and gives a promise of its result.  Nothing here blocks but ``epoll.poll``; there are no threads.

Children are reaped in one place, on SIGCHLD, by ``waitid``.  The shim is a subreaper, so strangers turn up too: a child nobody waits
for yet is remembered while a runtime call is under way (``expecting``), because the pid file that names it may not have been read.
"""

from __future__ import annotations

import errno
import os
import select
import time

from pydock_shim import wire
from pydock_shim.std import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    Routine = Generator["Promise", Any, Any]

GENERATOR = type(_ for _ in ())
IN, OUT, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR


class RpcError(Exception):
    """What a caller is told: a gRPC status number and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Promise:
    """A value to come.  ``resolve`` and ``fail`` count once; later calls are ignored."""

    __slots__ = ("callbacks", "done", "error", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: Exception | None = None
        self.callbacks: list[Callable[[Promise], None]] = []

    def resolve(self, value: Any = None) -> None:
        self._settle(value, None)

    def fail(self, error: Exception) -> None:
        self._settle(None, error)

    def follow(self, other: Promise) -> None:
        """Settle as ``other``, which is settled, did."""
        self._settle(other.value, other.error)

    def _settle(self, value: Any, error: Exception | None) -> None:
        if self.done:
            return
        self.done, self.value, self.error = True, value, error
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback(self)

    def then(self, callback: Callable[[Promise], None]) -> None:
        """Call ``callback`` with this promise once it is settled, at once if it is."""
        if self.done:
            callback(self)
        else:
            self.callbacks.append(callback)


class Timer:
    """A call to come; ``cancel`` forgets it."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callable[[], None] | None) -> None:
        self.at, self.call = at, call

    def cancel(self) -> None:
        self.call = None


class Lock:
    """One routine at a time: ``yield lock.enter()``, then ``leave``, first come first served."""

    __slots__ = ("_busy", "_waiting")

    def __init__(self) -> None:
        self._busy = False
        self._waiting: list[Promise] = []

    def enter(self) -> Promise:
        turn = Promise()
        if self._busy:
            self._waiting.append(turn)
        else:
            self._busy = True
            turn.resolve()
        return turn

    def leave(self) -> None:
        if self._waiting:
            self._waiting.pop(0).resolve()
        else:
            self._busy = False


class Exit:
    """How a child ended: status as a shell counts it (128+n for signal n), ns since the epoch."""

    __slots__ = ("at", "pid", "status")

    def __init__(self, pid: int, status: int, at: int) -> None:
        self.pid, self.status, self.at = pid, status, at


class Loop:
    """The loop itself; ``log`` takes a line about what went wrong inside."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self.log = log
        self.stopping = False
        self.subreaper = os.getpid()  # whose children orphans become
        self.expecting = 0  # runtime calls under way that may bring a child we do not know yet
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._children: dict[int, Promise] = {}
        self._strangers: dict[int, Exit] = {}
        self._own: tuple[int, ...] = ()
        self._soon: list[Callable[[], None]] = []

    # descriptors

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call ``handler(events)`` when ``fd`` has some of ``events``; watching again changes what is watched for."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """No more calls for ``fd``; to be done before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    # time

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, call)
        self._timers.append(timer)
        return timer

    def sleep(self, seconds: float) -> Promise:
        promise = Promise()
        self.after(seconds, promise.resolve)
        return promise

    def soon(self, call: Callable[[], None]) -> None:
        """Call at the end of this turn of the loop."""
        self._soon.append(call)

    def within(self, seconds: float, promise: Promise) -> Promise:
        """A promise of whether ``promise`` was settled in time."""
        verdict = Promise()
        timer = self.after(seconds, lambda: verdict.resolve(False))

        def settled(_: Promise) -> None:
            timer.cancel()
            verdict.resolve(True)

        promise.then(settled)
        return verdict

    @property
    def busy(self) -> bool:
        """Whether there is something to be done later, or a call under way that may bring a child."""
        return bool(self.expecting or self._soon or any(timer.call is not None for timer in self._timers))

    # routines

    def start(self, routine: Routine) -> Promise:
        """Run a routine as far as it goes now; a promise of what it returns."""
        result = Promise()
        self._step(routine, result, None)
        return result

    def _step(self, routine: Routine, result: Promise, settled: Promise | None) -> None:
        while True:
            try:
                if settled is not None and settled.error is not None:
                    awaited = routine.throw(settled.error)
                else:
                    awaited = routine.send(settled.value if settled is not None else None)
            except StopIteration as stop:
                result.resolve(stop.value)
                return
            except RpcError as error:
                result.fail(error)
                return
            except OSError as error:
                result.fail(RpcError(wire.UNKNOWN, f"{error.filename}: {error.strerror}" if error.filename else str(error)))
                return
            if not awaited.done:
                awaited.callbacks.append(lambda promise: self._step(routine, result, promise))
                return
            settled = awaited

    # children

    def child(self, pid: int) -> Promise:
        """A promise of the ``Exit`` of ``pid``, a child of ours or one that will be."""
        promise = self._children.get(pid)
        if promise is None:
            promise = self._children[pid] = Promise()
            stranger = self._strangers.pop(pid, None)
            if stranger is not None:
                del self._children[pid]
                promise.resolve(stranger)
        return promise

    def forget_stranger(self, pid: int) -> None:
        """An exit remembered for ``pid`` was of an older process: one that lives has that pid now."""
        self._strangers.pop(pid, None)

    def expect(self) -> None:
        self.expecting += 1

    def expected(self) -> None:
        self.expecting -= 1
        if not self.expecting:
            self._strangers.clear()

    def reap(self) -> None:
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return
            if info is None:
                return
            status = info.si_status if info.si_code == os.CLD_EXITED else 128 + info.si_status
            self.ended(Exit(info.si_pid, status, time.time_ns()))

    def ended(self, exit: Exit) -> None:
        """A child, ours or one that was told of, has ended."""
        promise = self._children.pop(exit.pid, None)
        if promise is not None:
            promise.resolve(exit)
        elif self.expecting:
            self._strangers[exit.pid] = exit

    def watch_children(self) -> None:
        """From now on SIGCHLD wakes the loop."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._own = (reader, writer)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)

        def woken(_: int) -> None:
            try:
                os.read(reader, 512)
            except BlockingIOError:
                pass
            self.reap()

        self.watch(reader, IN, woken)

    # the loop

    def run(self) -> None:
        """Until ``stopping``."""
        while not self.stopping:
            self.turn(-1.0)

    def turn(self, timeout: float) -> None:
        """Do what there is to do, after waiting for it at most ``timeout`` seconds (negative: as long as it takes)."""
        for fd, events in self._poll(timeout):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)
        self._run_timers()
        while self._soon:
            calls, self._soon = self._soon, []
            for call in calls:
                call()

    def close(self) -> None:
        """Give up the loop's own descriptors."""
        for fd in self._own:
            self.forget(fd)
            os.close(fd)
        self._own = ()
        self._epoll.close()

    def _poll(self, timeout: float) -> list[tuple[int, int]]:
        if self._timers:
            self._timers = [timer for timer in self._timers if timer.call is not None]
            if self._timers:
                first = max(0.0, min(timer.at for timer in self._timers) - time.monotonic())
                timeout = first if timeout < 0 else min(first, timeout)
        try:
            return self._epoll.poll(timeout, 16)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
            return []

    def _run_timers(self) -> None:
        if not self._timers:
            return
        now = time.monotonic()
        for timer in [timer for timer in self._timers if timer.at <= now]:
            call, timer.call = timer.call, None
            if call is not None:
                call()


def _ignore(signum: int, stack: object) -> None:
    """A handler there must be, or the signal would not reach the wakeup descriptor."""
