"""Blocking work beside the event loop: one bounded pool of threads for all of pydock.

Vocabulary: *run* borrows a pool thread for one short call (system calls, hashing, SQLite); *dedicated* makes a thread of its own for
a call that lasts, such as a stage that reads a queue: pool threads held by stages that wait for each other would never come free.
Invariant: neither returns before its thread is done, even when the caller is cancelled, so what the thread uses may be closed next.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from collections.abc import Callable
from concurrent import futures
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

WORKERS = min(8, (os.cpu_count() or 1) + 2)


@functools.cache
def _pool() -> futures.ThreadPoolExecutor:
    return futures.ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="offload")


async def run(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return ``call(*args, **kwargs)`` made in a pool thread, with the caller's context variables."""
    context = contextvars.copy_context()
    return await _to_the_end(_pool().submit(functools.partial(context.run, call, *args, **kwargs)))


async def dedicated(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Return ``call(*args, **kwargs)`` made in a new thread; for work that lasts or waits for other work."""
    context = contextvars.copy_context()
    result: futures.Future[T] = futures.Future()
    result.set_running_or_notify_cancel()

    def work() -> None:
        try:
            result.set_result(context.run(call, *args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - handed to the waiter, like the pool does
            result.set_exception(error)

    threading.Thread(target=work, name=f"dedicated-{getattr(call, '__name__', 'call')}", daemon=True).start()
    return await _to_the_end(result)


async def _to_the_end(work: futures.Future[T]) -> T:
    """Wait for ``work``; a cancellation drops what is not begun and otherwise takes effect when the thread is done."""
    waiter = asyncio.wrap_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not waiter.done():
        try:
            await asyncio.shield(waiter)
        except asyncio.CancelledError as error:
            if waiter.cancelled():
                raise
            cancelled = error
            if work.cancel():
                raise
        except Exception:  # noqa: BLE001, S110 - the result is taken below, once
            pass
    if cancelled is not None:
        waiter.exception()  # taken, so that asyncio does not report it as lost
        raise cancelled
    return waiter.result()
