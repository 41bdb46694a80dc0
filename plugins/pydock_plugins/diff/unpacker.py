"""The daemon's side of unpacking: one helper process per layer, bounded in number, killed when nobody waits for it any more.

Vocabulary: the *zygote* is started at the first layer and ended after ``linger`` idle seconds; a *child* is its fork for one layer; a
*feed* tells a child how much of a blob that is still being fetched it may read.
Invariants: when ``apply`` is left, by whatever way, its child is gone; what a child reports is checked; a dead zygote fails only the
layers it had in hand, and the next one starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from pydock.base import errors, groups, safefs, syscalls
from pydock.base.failpoint import failpoint
from pydock.core import diff
from pydock_plugins.diff import helper, limits, sandbox, wire

_DIFF_ID: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST_DETAIL: Final = 4096
_KINDS: Final = {cls.__name__: cls for cls in errors.PydockError.__subclasses__()}

Lowers = Callable[[], Awaitable[Sequence[str]]]


@dataclasses.dataclass(frozen=True, slots=True)
class ApplyRequest:
    """A layer for a directory.

    ``mode`` "overlay": ``target`` is an overlay upper directory, and ``lowers`` gives the layer directories below, topmost first, when
    the archive needs them (it may wait until they are complete); None for the lowest layer. "plain": ``target`` holds all layers.
    ``recursive``: there are mounts below ``target`` that belong to it. ``sync``: write the filesystem back before the answer.
    """

    blob: diff.Source
    target: Path
    mode: Literal["overlay", "plain"]
    lowers: Lowers | None = None
    recursive: bool = False
    sync: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class ApplyResult:
    """``size`` bytes of uncompressed archive with the digest ``diff_id``, holding ``entries`` entries."""

    size: int
    diff_id: str
    entries: int


class Whole:
    """A ``diff.Source`` for a blob that is all there."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd, self.size, self.available = fd, size, size

    async def grown(self, beyond: int) -> int:
        """All of it."""
        return self.size


class Unpacker:
    """Applies layers, at most ``concurrency`` at a time; a helper that reports nothing for ``stall`` seconds is given up."""

    def __init__(self, *, bounds: limits.Limits | None = None, concurrency: int = 0, stall: float = 300.0, linger: float = 60.0) -> None:
        self._bounds = dataclasses.asdict(bounds or limits.Limits())
        self._slots = asyncio.Semaphore(concurrency or os.cpu_count() or 1)
        self._stall, self._linger = stall, linger
        self._helper: helper.Helper | None = None
        self._ending: list[helper.Helper] = []
        self._busy = 0
        self._idle: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Unpacker:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._retire()
        await self._close_retired()

    def warm(self) -> None:
        """Start the zygote now, so that the first layer need not wait for it (about 60 ms)."""
        with self._zygote():
            pass

    async def apply(self, request: ApplyRequest) -> ApplyResult:
        """Unpack ``request.blob``.

        InvalidArgument for a malformed archive, ResourceExhausted over a limit or on a full disk, DeadlineExceeded for a helper that hangs,
        Internal for one that dies, and whatever the blob or the lowers raise.
        """
        async with _Slot(self._slots) as slot:
            await self._close_retired()
            with self._zygote() as zygote, _tree(request.target, sandbox.TREE_ATTRIBUTES, recursive=request.recursive) as tree:
                async with zygote.child(self._stall) as child:
                    return await _Conversation(child, request, self._stall, slot).run(tree, self._bounds)

    @contextlib.contextmanager
    def _zygote(self) -> Iterator[helper.Helper]:
        """The running zygote, started if need be and kept while in use."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._helper is None or not self._helper.alive:
            self._retire()
            self._helper = helper.Helper.start()
        self._busy += 1
        try:
            yield self._helper
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle = asyncio.get_running_loop().call_later(self._linger, self._retire)

    def _retire(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._helper is not None:
            self._helper.stop()
            self._ending.append(self._helper)
            self._helper = None

    async def _close_retired(self) -> None:
        while self._ending:
            await self._ending.pop().close()


@contextlib.contextmanager
def _tree(path: Path | str, attributes: int, *, recursive: bool = False) -> Iterator[int]:
    """A detached mount of the directory ``path``: with it, a helper reaches that directory and nothing beside it."""
    with safefs.opened(safefs.open_root(path)) as root:
        tree = syscalls.clone_tree(root, attributes=attributes, recursive=recursive)
    with safefs.opened(tree):
        yield tree


class _Slot:
    """One unit of the bound on helpers, which may be lent back for a while."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots, self._held = slots, False

    async def acquire(self) -> None:
        await self._slots.acquire()
        self._held = True

    def release(self) -> None:
        if self._held:
            self._slots.release()
        self._held = False

    async def __aenter__(self) -> _Slot:
        await self.acquire()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.release()


class _Conversation:
    """One request, the questions of the child, one answer."""

    def __init__(self, child: helper.Child, request: ApplyRequest, stall: float, slot: _Slot) -> None:
        self._child, self._request, self._stall, self._slot = child, request, stall, slot

    async def run(self, tree: int, bounds: dict[str, int]) -> ApplyResult:
        blob = self._request.blob
        told = blob.available
        final = told >= blob.size
        first = {
            "mode": self._request.mode, "available": told, "final": final, "below": self._request.lowers is not None,
            "limits": bounds, "sync": self._request.sync,
        }  # fmt: skip
        if final:
            await helper.send(self._child.sock, first, [blob.fd, tree])
            return await self._talk()
        ours, theirs = wire.pair()
        with ours:
            with theirs:
                await helper.send(self._child.sock, first, [blob.fd, tree, theirs.fileno()])
            ours.setblocking(False)
            return await self._talk_and_feed(ours, told)

    async def _talk_and_feed(self, feed: socket.socket, told: int) -> ApplyResult:
        async with groups.group() as group:
            feeding = group.create_task(self._feed(feed, told))
            result = await self._talk()
            feeding.cancel()
        return result

    async def _feed(self, feed: socket.socket, told: int) -> None:
        """Tell what came since ``told``, which the child knows; the blob may have come to its end meanwhile."""
        blob = self._request.blob
        while told < blob.size:
            told = await blob.grown(told)
            try:
                await helper.send(feed, {"available": told, "final": told >= blob.size})
                failpoint("unpack.mid_tar")
            except errors.Unavailable:
                return  # the child is done, or dead: the conversation knows which

    async def _talk(self) -> ApplyResult:
        while True:
            message = await self._next()
            match message:
                case None:
                    raise _died(await self._child.status())
                case {"need": "lowers"}:
                    await self._send_lowers()
                case {"progress": int()}:
                    continue
                case {"result": {"size": int(size), "diff_id": str(diff_id), "entries": int(entries)}} if _DIFF_ID.fullmatch(diff_id):
                    return ApplyResult(size, diff_id, entries)
                case {"error": {"type": str(kind), "detail": str(detail)}}:
                    raise _KINDS.get(kind, errors.Internal)(detail[:_LONGEST_DETAIL])
                case _:
                    raise errors.Internal("unpack helper answered nonsense")

    async def _next(self) -> wire.Message | None:
        blob = self._request.blob
        while True:
            try:
                async with asyncio.timeout(self._stall):
                    return await helper.receive(self._child.sock)
            except TimeoutError:
                if blob.available >= blob.size:
                    raise errors.DeadlineExceeded(f"unpack helper did nothing for {self._stall:g} seconds") from None

    async def _below(self) -> Sequence[str]:
        """The layers below; the slot is given back meanwhile, since one of them may be waiting for it."""
        if self._request.lowers is None:
            return ()
        self._slot.release()
        paths = await self._request.lowers()
        await self._slot.acquire()
        return paths

    async def _send_lowers(self) -> None:
        paths = await self._below()
        chunks = [paths[start : start + wire.MAX_FDS] for start in range(0, len(paths), wire.MAX_FDS)] or [()]
        for index, chunk in enumerate(chunks):
            with contextlib.ExitStack() as trees:
                fds = [trees.enter_context(_tree(path, sandbox.LOWER_ATTRIBUTES)) for path in chunk]
                await helper.send(self._child.sock, {"lowers": len(fds), "more": index + 1 < len(chunks)}, fds)


def _died(status: int) -> errors.PydockError:
    """What a child that ended without an answer means."""
    if status >= 0 and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return errors.ResourceExhausted("layer takes more processor time than an unpack helper may use")
        return errors.Internal(f"unpack helper was ended by signal {number}")
    return errors.Internal("unpack helper ended without an answer")
