"""The ``Comparer`` for tar layers: decides from two snapshots' mounts how to find what changed, and writes it as it is found.

Vocabulary: a *stack* is the directories that a snapshot's mounts are made of, topmost first; where the upper stack is one directory on top
of the lower stack, that directory's marks are the layer (`tar_walk.Marks`); two single directories are gone through side by side
(`tar_walk.Pairs`); anything else is mounted, read-only, and gone through so. A *pipe* carries pieces from the walking thread to the loop.
Invariants: memory is bounded by a few pieces; nothing is written to the trees; no mount is left behind; the walking thread has ended when
`Walker.compare` is left, by whatever way.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from pydock.base import errors, groups, offload, safefs
from pydock.core import content, diff, mounts, plugin
from pydock.oci import image
from pydock_plugins.diff import lowers, tar_walk, tar_write

PIECE: Final = 1 << 20
IN_FLIGHT: Final = 4
GZIP_LEVEL: Final = 5
ZSTD_LEVEL: Final = 3

FORMATS: Final = {
    image.LAYER: "", image.DOCKER_LAYER: "",
    image.LAYER_GZIP: "gzip", image.DOCKER_LAYER_GZIP: "gzip",
    image.LAYER_ZSTD: "zstd",
}  # fmt: skip

_WRITE_OPTIONS: Final = ("upperdir=", "workdir=", "volatile", "rw")


class Compressor(Protocol):
    """What zlib's and zstandard's objects have in common."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Plain:
    """No compression."""

    def compress(self, data: bytes) -> bytes:
        """The data."""
        return data

    def flush(self) -> bytes:
        """Nothing is held back."""
        return b""


def compressor(format: str) -> Compressor:
    """A compressor that gives equal bytes for equal input on every machine: no times, one thread, no code by the kind of processor."""
    if format == "gzip":
        return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    if format == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
    return Plain()


class _Stopped(Exception):
    """Nobody wants the rest."""


class Pipe:
    """Pieces from a thread to a coroutine, at most `IN_FLIGHT` at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._stopped = False

    def put(self, piece: bytes | None) -> None:
        """In the thread: hand a piece on, None for the end; waits for room. Raises _Stopped."""
        self._room.acquire()
        self.check()
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def check(self) -> None:
        """In the thread: raise _Stopped when `stop` was called."""
        if self._stopped:
            raise _Stopped

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces up to the end; what is yielded is done with when the next is asked for."""
        while (piece := await self._pieces.get()) is not None:
            yield piece
            self._room.release()

    def stop(self) -> None:
        """Make the thread end at its next piece."""
        self._stopped = True
        self._room.release()


class Sink:
    """In the thread: an archive's pieces are hashed, compressed and put into a pipe in portions of about `PIECE` bytes."""

    def __init__(self, pipe: Pipe, format: str) -> None:
        self._pipe, self._compressor = pipe, compressor(format)
        self._hash = hashlib.sha256()
        self._waiting = bytearray()
        self._ready = bytearray()
        self.size = 0

    @property
    def diff_id(self) -> str:
        """The digest of the archive so far, uncompressed."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, piece: bytes) -> None:
        """Take a piece; an empty one only asks whether anybody still wants the rest. Raises _Stopped."""
        self._pipe.check()
        self._waiting += piece
        if len(self._waiting) >= PIECE:
            self._compress()

    def close(self) -> None:
        """Write what is held back, and the end."""
        self._compress()
        self._ready += self._compressor.flush()
        if self._ready:
            self._pipe.put(bytes(self._ready))
        self._pipe.put(None)

    def _compress(self) -> None:
        data = bytes(self._waiting)
        self._waiting.clear()
        self.size += len(data)
        self._hash.update(data)
        self._ready += self._compressor.compress(data)
        if len(self._ready) >= PIECE:
            self._pipe.put(bytes(self._ready))
            self._ready.clear()


@dataclass(frozen=True, slots=True)
class Sources:
    """Directories to read: ``below`` are those under an overlay upper directory, None where ``lower`` is to be gone through beside it."""

    upper: str
    lower: str | None = None
    below: Sequence[str] | None = None
    prefix: bytes = b"trusted.overlay."


def stack(found: Sequence[mounts.Mount]) -> list[str] | None:
    """The directories of a snapshot, topmost first; none for no mounts, None where they cannot be told."""
    if not found:
        return []
    directories = mounts.directories(found)
    only = found[0]
    if directories is None or only.target:
        return None
    if only.type == "overlay":
        return [path for path in (directories[0], *directories[1]) if path]
    is_bind = only.type in ("bind", "rbind") or "bind" in only.options or "rbind" in only.options
    return [only.source] if is_bind else None


def direct(lower: Sequence[mounts.Mount], upper: Sequence[mounts.Mount]) -> Sources | None:
    """What to read without mounting anything, None where that cannot be."""
    before, after = stack(lower), stack(upper)
    if before is None or not after:
        return None
    if len(after) > 1 and after[1:] == before:
        prefix = b"user.overlay." if "userxattr" in upper[0].options else b"trusted.overlay."
        return Sources(after[0], below=before, prefix=prefix)
    if len(after) == 1 and len(before) < 2:
        return Sources(after[0], before[0] if before else None)
    return None


def read_only(found: Sequence[mounts.Mount]) -> list[mounts.Mount]:
    """The mounts without anything that writes: a second writer of an overlay's directories would harm the first."""
    return [_read_only_overlay(each) if each.type == "overlay" else _with(each, "ro") for each in found]


def _with(mount: mounts.Mount, option: str) -> mounts.Mount:
    return replace(mount, options=(*(each for each in mount.options if each not in ("rw", option)), option))


def _read_only_overlay(mount: mounts.Mount) -> mounts.Mount:
    options = [each for each in mount.options if not each.startswith(_WRITE_OPTIONS)]
    upper = next((each.partition("=")[2] for each in mount.options if each.startswith("upperdir=")), "")
    if upper:
        lower = upper.replace("\\", "\\\\").replace(":", "\\:")
        options = [f"lowerdir={lower}:{each.partition('=')[2]}" if each.startswith("lowerdir=") else each for each in options]
    return replace(mount, options=tuple(options))


class Walker:
    """Compares trees in a thread of its own; the trees are read by descriptors, see `tar_walk`."""

    def __init__(self, mounter: mounts.Mounter) -> None:
        self._mounter = mounter

    async def compare(self, trees: diff.Trees, options: diff.LayerOptions, writer: content.Writer) -> diff.Compared:
        """See `diff.Comparer.compare`."""
        media_type = options.media_type or image.LAYER_GZIP
        format = FORMATS.get(media_type)
        if format is None:
            raise errors.Unimplemented(f"unsupported diff media type: {media_type}")
        await writer.truncate(0)
        sources = direct(trees.lower, trees.upper)
        if sources is not None:
            with contextlib.suppress(tar_walk.Redirected):
                return await self._write(sources, format, options, writer)
            await writer.truncate(0)
        async with self._mounter.mounted(read_only(trees.lower)) as lower, self._mounter.mounted(read_only(trees.upper)) as upper:
            return await self._write(Sources(str(upper), str(lower)), format, options, writer)

    async def _write(self, sources: Sources, format: str, options: diff.LayerOptions, writer: content.Writer) -> diff.Compared:
        pipe = Pipe()
        sink = Sink(pipe, format)
        async with groups.group() as group:
            group.create_task(offload.dedicated(_walk, sources, sink, options.source_date_epoch))
            try:
                async for piece in pipe.pieces():
                    await writer.write(piece)
            finally:
                pipe.stop()
        return diff.Compared(options.media_type or image.LAYER_GZIP, sink.diff_id, sink.size, compressed=bool(format))


def _walk(sources: Sources, sink: Sink, epoch: int | None) -> None:
    """In the thread: write the whole archive."""
    with contextlib.ExitStack() as stack, contextlib.suppress(_Stopped):
        layer = tar_walk.Layer(sink.write, tar_walk.Tree(_root(stack, sources.upper)), epoch)
        if sources.below is not None:
            below = [_root(stack, path) for path in sources.below]
            tar_walk.Marks(layer, sources.prefix, lowers.Lowers(lambda: below)).write()
        else:
            tar_walk.Pairs(layer, None if sources.lower is None else tar_walk.Tree(_root(stack, sources.lower))).write()
        sink.write(tar_write.END)
        sink.close()


def _root(stack: contextlib.ExitStack, path: str) -> int:
    return stack.enter_context(_opened_root(path))


@contextlib.contextmanager
def _opened_root(path: str) -> Iterator[int]:
    try:
        fd = safefs.open_root(path)
    except FileNotFoundError:
        raise errors.NotFound(f"directory {path}") from None
    with safefs.opened(fd):
        yield fd


@plugin.plugin("io.pydock.compare.v1", "walking")
async def walking(mounter: mounts.Mounter) -> AsyncIterator[diff.Comparer]:
    """Offer the making of tar layers."""
    yield Walker(mounter)
