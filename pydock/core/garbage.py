"""Garbage collection: what nothing refers to any more goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Collected:
    """What one pass removed: blobs and snapshots over all namespaces, and leases that had expired."""

    blobs: int = 0
    snapshots: int = 0
    leases: int = 0


@dataclass(slots=True)
class History:
    """All passes of this daemon so far: how many went well and failed, how long they took in s, what they removed."""

    passes: int = 0
    failures: int = 0
    seconds: float = 0.0
    blobs: int = 0
    snapshots: int = 0
    leases: int = 0

    def add(self, done: Collected | None, seconds: float) -> None:
        """Count a pass, None for one that failed."""
        self.seconds += seconds
        if done is None:
            self.failures += 1
            return
        self.passes += 1
        self.blobs += done.blobs
        self.snapshots += done.snapshots
        self.leases += done.leases


class Collector(Protocol):
    """Runs by itself after deletions; `collect` is for a client that waits for the space ("synchronous" deletions)."""

    history: History

    async def collect(self) -> Collected:
        """Do a pass over what is unreachable now and return when its files are gone too."""
