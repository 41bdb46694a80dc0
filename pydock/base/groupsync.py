"""Group commit for blocking flushes: callers that come while one runs share the next one.

Vocabulary: a *flush* is a blocking call that makes everything done before it durable (fsync of a directory, syncfs of a file system).
Invariant: the flush a caller waits for began after the caller asked, so it covers what the caller did before.
Why: N parallel commits cost two flushes instead of N, and a lone one costs exactly one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pydock.base import offload

# A batch whose leader was cancelled before the flush ended: the others choose a new leader.
_LEADERLESS = "leaderless"


class Shared:
    """One flush, shared. A failure goes to all who waited for it; nobody's failed flush is retried on their behalf."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._running = asyncio.Lock()
        self._gathering: asyncio.Future[OSError | str | None] | None = None

    async def run(self) -> None:
        """Return when a flush that began after this call has ended. Raises the OSError of that flush."""
        while self._gathering is not None:
            outcome = await asyncio.shield(self._gathering)
            if isinstance(outcome, OSError):
                raise OSError(outcome.errno, outcome.strerror)
            if outcome is None:
                return
        await self._lead()

    async def _lead(self) -> None:
        batch: asyncio.Future[OSError | str | None] = asyncio.get_running_loop().create_future()
        self._gathering = batch
        outcome: OSError | str | None = _LEADERLESS
        try:
            async with self._running:
                self._gathering = None
                await offload.run(self._flush)
                outcome = None
        except OSError as error:
            outcome = error
            raise
        finally:
            if self._gathering is batch:
                self._gathering = None
            batch.set_result(outcome)
