"""Unpacking as tests use it: a layer's bytes, a directory, and what came of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pydock.base import safefs, syscalls
from pydock_plugins.diff import apply, limits, lowers, stream, unpacker

Unpack = Callable[..., unpacker.ApplyResult]


@contextlib.contextmanager
def blob_of(layer: bytes) -> Iterator[int]:
    """A descriptor of a file that holds ``layer``."""
    fd = os.memfd_create("layer", os.MFD_CLOEXEC)
    try:
        os.write(fd, layer)
        yield fd
    finally:
        os.close(fd)


def unpack_here(
    layer: bytes, target: Path, mode: str = "plain", below: Sequence[Path] = (), bounds: limits.Limits | None = None
) -> unpacker.ApplyResult:
    """Unpack in this process, without a sandbox: what the walls would catch must not even be tried."""
    bounds = bounds or limits.Limits()
    umask = os.umask(0)
    with contextlib.ExitStack() as stack:
        stack.callback(os.umask, umask)
        root = os.open(target, os.O_PATH | os.O_DIRECTORY)
        stack.callback(os.close, root)
        fds = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in below]
        for fd in fds:
            stack.callback(os.close, fd)
        blob = stack.enter_context(blob_of(layer))
        pieces = stream.Stream(stream.Blob(blob, len(layer), final=True), bounds)
        entries = apply.apply(pieces.pull, apply.Target(root, mode, lowers.Lowers(lambda: fds) if below else None), bounds)
        while pieces.pull():
            pass
        return unpacker.ApplyResult(pieces.size, pieces.diff_id, entries)


@pytest.fixture
def unpack() -> Unpack:
    """``unpack(layer, target, mode="plain", below=(), bounds=None)`` in this process."""
    return unpack_here


@pytest.fixture
async def helpers() -> AsyncIterator[unpacker.Unpacker]:
    """A real unpacker with its helper processes."""
    async with unpacker.Unpacker() as running:
        yield running


@pytest.fixture
def seal(helpers: unpacker.Unpacker) -> Callable[..., object]:
    """``await seal(layer, target, mode="plain", below=())`` in a real helper process."""

    async def run(layer: bytes, target: Path, mode: str = "plain", below: Sequence[Path] = ()) -> unpacker.ApplyResult:
        async def given() -> Sequence[str]:
            return [str(path) for path in below]

        with blob_of(layer) as fd:
            whole = unpacker.Whole(fd, len(layer))
            return await helpers.apply(unpacker.ApplyRequest(whole, target, mode, given if below else None))  # type: ignore[arg-type]

    return run


class Outside:
    """Things beside the target that an escape would reach, and whether anything happened to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "deep").mkdir(parents=True)
        for name, mode in (("secret", 0o400), ("tool", 0o750), ("deep/passwd", 0o644), ("unbroken", 0o640)):
            (folder / name).write_bytes(b"canary")
            (folder / name).chmod(mode)
        (folder / "link").symlink_to("secret")
        self._before = self._look()

    def _look(self) -> dict[str, tuple[object, ...]]:
        seen: dict[str, tuple[object, ...]] = {}
        for path in (self.folder, *sorted(self.folder.rglob("*"))):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            seen[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_ino, status.st_mtime_ns, content)
        return seen

    def assert_untouched(self) -> None:
        """Fail if anything was written, linked, changed or removed."""
        assert self._look() == self._before


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    """Canaries beside ``root``, looked at again when the test ends."""
    canaries = Outside(tmp_path / "outside")
    yield canaries
    canaries.assert_untouched()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An empty target directory; removed by us, since some hold trees deeper than pytest's own removal can go."""
    path = tmp_path / "root"
    path.mkdir(mode=0o755)
    yield path
    with safefs.opened(safefs.open_root(tmp_path)) as folder:
        safefs.remove(folder, b"root")


class Overlay:
    """Directories of an overlay mount with one lower layer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lower, self.upper, self.work, self.merged = (folder / name for name in ("lower", "upper", "work", "merged"))
        for path in (self.lower, self.upper, self.work, self.merged):
            path.mkdir(parents=True)

    @contextlib.contextmanager
    def mounted(self, *lowers: Path) -> Iterator[Path]:
        """The merged view, with ``lowers`` (topmost first) instead of the one lower layer."""
        below = ":".join(str(path) for path in lowers or (self.lower,))
        options = f"lowerdir={below},upperdir={self.upper},workdir={self.work}"
        syscalls.mount(b"overlay", os.fsencode(self.merged), b"overlay", 0, os.fsencode(options))
        try:
            yield self.merged
        finally:
            syscalls.umount(os.fsencode(self.merged))


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    """Fresh overlay directories, not mounted."""
    return Overlay(tmp_path / "overlay")
