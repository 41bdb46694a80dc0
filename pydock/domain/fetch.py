"""Fetching one blob into content: resumed, checked, and by one of all who want it at the same time.

Invariants: bytes already there are not fetched again; a break is resumed where it was; what does not have the digest and size of its
descriptor is thrown away; a caller that leaves keeps the ingest for the next try.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from pydock.base import errors, groups, locks
from pydock.base.failpoint import failpoint
from pydock.core import content, remotes
from pydock.domain import manifests
from pydock.oci import image

BLOCK = 1 << 20  # bytes handed to the disk at a time
PATIENCE = 0.2  # seconds bytes may wait for more, unseen by progress and lost to who leaves
TRIES = 6  # breaks in a row without progress
BREAKS = 100  # in all
LABEL = 4096  # bytes of a label, its key included
LOCKED_PAUSE = 0.1  # seconds between looks at an ingest that a client holds
LOCKED_IDLE = 60.0  # seconds such a client may do nothing
PROGRESS = 64 << 10  # bytes that are progress; a registry that sends fewer each time would never be done

Note = Callable[[int], None]  # told the bytes there so far


class Arrival:
    """A blob on its way, as `diff.Source`: whoever unpacks it follows the fetch."""

    def __init__(self, size: int) -> None:
        self.fd, self.size, self.available = -1, size, 0
        self._failed = False
        self._news = asyncio.Event()

    def begin(self, fd: int, available: int = 0) -> None:
        """Let followers read the file ``fd`` is open on."""
        if self.fd < 0:
            # A description of its own, read-only: it goes to a helper that must not be able to change the blob.
            self.fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        self.advance(available)

    def advance(self, available: int) -> None:
        """Tell how many bytes are there now."""
        self.available = available
        self._tell()

    def close(self) -> None:
        """End it; who still waits gets Unavailable."""
        self._failed = True
        self._tell()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    async def begun(self) -> None:
        """Return when the first bytes can be read."""
        while self.fd < 0:
            await self._wait()

    async def grown(self, beyond: int) -> int:
        """Return how many bytes are there once they are more than ``beyond``, or all."""
        while self.available <= beyond and self.available < self.size:
            await self._wait()
        return self.available

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _wait(self) -> None:
        if self._failed:
            raise errors.Unavailable("the blob's fetch was given up")
        await self._news.wait()


@dataclass(frozen=True)
class Wish:
    """A blob wanted in namespace ``ns`` under ``lease``, labelled ``labels`` when it is made; ``arrival`` follows it."""

    ns: str
    descriptor: image.Descriptor
    lease: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    note: Note = lambda _: None
    arrival: Arrival | None = None


def ref_key(descriptor: image.Descriptor) -> str:
    """Return the ingest ref and progress name containerd's clients know a blob by."""
    if descriptor.media_type in image.INDEXES:
        kind = "index"
    elif descriptor.media_type in image.MANIFESTS:
        kind = "manifest"
    elif descriptor.media_type in image.CONFIGS:
        kind = "config"
    else:
        kind = "layer" if manifests.is_layer(descriptor) else "unknown"
    return f"{kind}-{descriptor.digest}"


class Fetches:
    """Fetches of this daemon, one at a time for each namespace and blob."""

    def __init__(self, store: content.Store, tries: int = TRIES) -> None:
        self._store, self._tries = store, tries
        self._locks = locks.Keyed()

    async def fetch(self, fetcher: remotes.Fetcher, wish: Wish) -> bool:
        """Have the blob in the store; tells whether it had to be made."""
        async with self._locks.hold(wish.descriptor.digest):
            made = not await self._there(wish)
            if made:
                try:
                    await self._make(fetcher, wish)
                except errors.AlreadyExists:
                    made = False
        if wish.arrival and wish.arrival.available < wish.descriptor.size:
            await self._show(wish, wish.arrival)
        return made

    async def _show(self, wish: Wish, arrival: Arrival) -> None:
        """Let followers read a blob that was there already, or that came in a way they could not follow."""
        reader = await self._store.open(wish.ns, wish.descriptor.digest)
        try:
            if reader.size != wish.descriptor.size:
                raise errors.FailedPrecondition(f"{wish.descriptor.digest} has {reader.size} bytes, not {wish.descriptor.size}")
            arrival.begin(reader.fd, reader.size)
        finally:
            await reader.close()

    async def _there(self, wish: Wish) -> bool:
        try:
            info = await self._store.info(wish.ns, wish.descriptor.digest)
        except errors.NotFound:
            return False
        if wish.lease and not await self._held(wish):
            return False
        missing = {key: _joined(info.labels.get(key, ""), value) for key, value in wish.labels.items()}
        missing = {key: value for key, value in missing.items() if info.labels.get(key) != value and len(key) + len(value) <= LABEL}
        if missing:
            changed = content.Info(info.digest, info.size, labels=missing)
            await self._store.update(wish.ns, changed, [f"labels.{key}" for key in missing])
        return True

    async def _held(self, wish: Wish) -> bool:
        """Put a blob that is there under the lease too: what else refers to it may be deleted at any time. False when that happened."""
        try:
            writer = await self._store.writer(wish.ns, ref_key(wish.descriptor), wish.descriptor.size, wish.descriptor.digest, wish.lease)
        except errors.AlreadyExists:
            return True
        except errors.Unavailable:
            return False
        await writer.close()
        return False

    async def _make(self, fetcher: remotes.Fetcher, wish: Wish) -> None:
        wanted = wish.descriptor
        writer = await self._writer(wish)
        done = definite = False
        try:
            resumed = await self._fill(fetcher, writer, wish)
            definite = True  # bytes that cannot be committed need not be kept
            try:
                await writer.commit(wanted.size, wanted.digest, wish.labels)
            except errors.FailedPrecondition:
                if not resumed:
                    raise
                await self._again(fetcher, wish)
            done = True
        except errors.PydockError as error:
            definite = definite or not isinstance(error, errors.Unavailable)
            raise
        finally:
            empty = writer.status().offset == 0
            await writer.close()
            if not done and (definite or empty):
                await self._drop(wish)

    async def _again(self, fetcher: remotes.Fetcher, wish: Wish) -> None:
        """Fetch it from the start: what an earlier try left may have been at fault."""
        await self._drop(wish)
        writer = await self._writer(wish)
        try:
            await self._fill(fetcher, writer, wish)
            await writer.commit(wish.descriptor.size, wish.descriptor.digest, wish.labels)
        finally:
            await writer.close()

    async def _writer(self, wish: Wish) -> content.Writer:
        """Open the ingest; one that a client holds is waited for while it grows, as containerd's own clients do."""
        wanted, ref = wish.descriptor, ref_key(wish.descriptor)
        offset, idle = -1, 0.0
        while True:
            await self._clear(wish)
            try:
                return await self._store.writer(wish.ns, ref, wanted.size, wanted.digest, wish.lease)
            except asyncio.CancelledError:
                if await self._offset(wish) == 0:  # made, but not yet ours
                    await self._drop(wish)
                raise
            except errors.Unavailable:
                there = await self._offset(wish)
                idle = idle + LOCKED_PAUSE if there == offset else 0.0
                offset = there
                if idle >= LOCKED_IDLE:
                    raise
            await asyncio.sleep(LOCKED_PAUSE)

    async def _offset(self, wish: Wish) -> int:
        try:
            return (await self._store.status(wish.ns, ref_key(wish.descriptor))).offset
        except errors.NotFound:
            return -1

    async def _clear(self, wish: Wish) -> None:
        """Throw away what a try for another size left: sizes are of descriptors, which may lie."""
        try:
            found = await self._store.status(wish.ns, ref_key(wish.descriptor))
        except errors.NotFound:
            return
        if found.total not in (0, wish.descriptor.size):
            await self._drop(wish)

    async def _drop(self, wish: Wish) -> None:
        try:
            await groups.finish(self._store.abort(wish.ns, ref_key(wish.descriptor)))
        except errors.NotFound:
            return

    async def _fill(self, fetcher: remotes.Fetcher, writer: content.Writer, wish: Wish) -> bool:
        """Bring the ingest to its full size; tells whether it began with bytes of an earlier try."""
        wanted = wish.descriptor
        if writer.status().offset > wanted.size:
            await writer.truncate(0)
        begun = writer.status().offset
        follower = wish.arrival if begun == 0 and wanted.size else None  # what an earlier try left may turn out wrong
        if follower and (fd := getattr(writer, "fd", -1)) >= 0:
            follower.begin(fd)
        tries = breaks = 0
        while (offset := writer.status().offset) < wanted.size:
            try:
                async with fetcher.open(wanted, offset) as data:
                    async for block in _blocks(data):
                        there = await writer.write(block)
                        failpoint("pull.mid_blob")
                        wish.note(there)
                        if follower and follower.fd >= 0:
                            follower.advance(there)
            except errors.Unavailable:
                breaks += 1
                tries = 0 if writer.status().offset >= offset + PROGRESS else tries + 1
                if tries == self._tries or breaks == BREAKS:
                    raise
                await asyncio.sleep(0.1 * 2.0**tries)
        return begun > 0


def _joined(known: str, more: str) -> str:
    """Add a repository to those a blob is known from."""
    return ",".join(sorted({*filter(None, known.split(",")), more}))


async def _blocks(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Gather what comes from the net to blocks worth a thread hop, though not for longer than `PATIENCE`."""
    block, since = bytearray(), time.monotonic()
    try:
        async for chunk in data:
            block += chunk
            if len(block) >= BLOCK or time.monotonic() - since > PATIENCE:
                yield bytes(block)
                block.clear()
                since = time.monotonic()
    except errors.Unavailable:
        if block:
            yield bytes(block)  # what did arrive need not be fetched again
        raise
    if block:
        yield bytes(block)


async def read_document(store: content.Store, ns: str, descriptor: image.Descriptor) -> bytes:
    """Read a manifest, an index or a config whole; ResourceExhausted above `manifests.LIMIT`."""
    if descriptor.size > manifests.LIMIT:
        raise errors.ResourceExhausted(f"{descriptor.digest}: {descriptor.size} bytes, the limit is {manifests.LIMIT}")
    reader = await store.open(ns, descriptor.digest)
    try:
        if reader.size > manifests.LIMIT:
            raise errors.ResourceExhausted(f"{descriptor.digest}: {reader.size} bytes, the limit is {manifests.LIMIT}")
        return await reader.read_at(0, reader.size)
    finally:
        await reader.close()
