"""Keeps background loops alive: one failure of one of them is a log line and a pause, never a silent end.

Vocabulary: a *run* is one life of a loop; a run that lasted ``CALM`` seconds resets the pause before the next.
Invariant: no exception of a task is lost: a loop's is logged here, any other's by the event loop's handler that ``watch`` sets.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
CALM = 60.0


class BackOff:
    """Implements ``plugin.Supervisor``: restarts after 0.1 s, doubling to 30 s."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, clock: Callable[[], float] = time.monotonic) -> None:
        self._sleep = sleep
        self._clock = clock

    async def keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run ``loop()`` until it returns or this is cancelled."""
        pause = FIRST_PAUSE
        while True:
            begun = self._clock()
            try:
                await loop()
                return
            except Exception:
                if self._clock() - begun >= CALM:
                    pause = FIRST_PAUSE
                log.exception("background loop failed", extra={"loop": name, "restart_seconds": pause})
            await self._sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Log what no one awaited: exceptions of forgotten tasks and callbacks."""
    loop.set_exception_handler(_report)


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    where = context.get("task") or context.get("future") or context.get("handle") or ""
    log.error("unhandled failure", exc_info=error, extra={"reason": context.get("message", ""), "where": str(where)})
