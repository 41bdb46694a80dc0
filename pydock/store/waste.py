"""What deletions leave behind, on its way from the stores to the collector.

Vocabulary: a *dropped* snapshot has lost its record and waits for its files to be removed; *dirty* means that some record went whose
removal may have made others unreachable.
Invariant: nothing here is durable: what a crash loses is found again by the collector's first full pass.
"""

from __future__ import annotations

import asyncio
import collections


class Waste:
    """A mailbox; `wake` is set when files are handed over, `dirty` when a full pass is due."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.dirty = asyncio.Event()
        self._snapshots: collections.deque[tuple[str, str]] = collections.deque()
        self._blobs: collections.deque[str] = collections.deque()

    def mark_dirty(self) -> None:
        """Say that something may have become unreachable."""
        self.dirty.set()

    def drop_snapshot(self, snapshotter: str, backend: str) -> None:
        """Hand over the files of a snapshot whose record is gone."""
        self._snapshots.append((snapshotter, backend))
        self.wake.set()

    def drop_blob(self, digest: str) -> None:
        """Hand over bytes that one namespace sees no more; others may."""
        self._blobs.append(digest)
        self.wake.set()

    def next_snapshot(self) -> tuple[str, str] | None:
        """Take the oldest dropped (snapshotter, key)."""
        return self._snapshots.popleft() if self._snapshots else None

    def next_blob(self) -> str | None:
        """Take the oldest dropped digest."""
        return self._blobs.popleft() if self._blobs else None
