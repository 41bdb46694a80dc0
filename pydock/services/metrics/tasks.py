"""Figures of all running containers, asked of all shims at once.

Vocabulary: a *silent* task is one whose shim did not answer in time; it is left alone for `SILENT_SECONDS`, so that a hung shim costs one
scrape `ANSWER_SECONDS` and the following ones nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydock.base import errors
from pydock.core import tasks

ANSWER_SECONDS = 1.0
SILENT_SECONDS = 60.0

Key = tuple[str, str]  # namespace, container id


@dataclass
class Found:
    """What came of one round."""

    metrics: dict[Key, tasks.Metric] = field(default_factory=dict)
    silent: set[Key] = field(default_factory=set)


class Rounds:
    """Asks a runtime for the figures of its tasks, as often as it is called."""

    def __init__(self, runtime: tasks.Runtime, *, bound: float = ANSWER_SECONDS, now: Callable[[], float] = time.monotonic) -> None:
        self._runtime, self._bound, self._now = runtime, bound, now
        self._silent: dict[Key, float] = {}

    async def collect(self, namespaces: Sequence[str]) -> Found:
        """Return the figures of every task that answers within the bound."""
        lists = await asyncio.gather(*(self._keys(ns) for ns in namespaces))
        keys = [key for found in lists for key in found]
        self._silent = {key: until for key, until in self._silent.items() if until > self._now() and key in set(keys)}
        asked = [key for key in keys if key not in self._silent]
        answers = await asyncio.gather(*(self._ask(key) for key in asked))
        found = Found(silent=set(self._silent))
        for key, answer in zip(asked, answers, strict=True):
            if answer is None:
                found.silent.add(key)
            elif answer:
                found.metrics[key] = answer[0]
        return found

    async def _keys(self, ns: str) -> list[Key]:
        try:
            async with asyncio.timeout(self._bound):
                listed = await self._runtime.list(ns)
        except (TimeoutError, errors.PydockError):
            return []
        return [(ns, item.container_id) for item in listed if item.status in (tasks.Status.RUNNING, tasks.Status.PAUSED)]

    async def _ask(self, key: Key) -> Sequence[tasks.Metric] | None:
        """Return at most one metric; None where nothing came in time."""
        try:
            async with asyncio.timeout(self._bound):
                return await self._runtime.metrics(key[0], [key[1]])
        except TimeoutError:
            self._silent[key] = self._now() + SILENT_SECONDS
            return None
        except errors.PydockError:  # it is just going away
            return ()
