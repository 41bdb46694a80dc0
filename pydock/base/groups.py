"""Task groups whose failure is the failure of one task, as callers of a verb expect it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def group() -> AsyncIterator[asyncio.TaskGroup]:
    """As `asyncio.TaskGroup`, but the first task's own exception comes out, with the group as its cause."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as several:
        raise _first(several) from several


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` does once it has done it: a cancellation meanwhile takes effect afterwards.

    For cleaning up, which a sibling that fails a moment later must not stop half way.
    """
    cancelled: asyncio.CancelledError | None = None
    async with group() as tasks:
        task = tasks.create_task(work)
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
