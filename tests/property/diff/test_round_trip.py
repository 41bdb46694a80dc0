"""A layer made of what changed, put onto what was before, gives what is now: through overlayfs and on copies, whichever way it is found."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydock.base import safefs, syscalls
from pydock_plugins.diff import apply, limits, lowers, stream, tar_walk, tar_write
from pydock_plugins.snapshots import copying

pytestmark = pytest.mark.root

Op = tuple[str, str, str, int]
NAMES = ("a", "b", "c", "\u00e9" * 60)
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
KINDS = (
    *("file", "dir", "hard", "file", "dir", "hard", "rm", "renew", "link", "fifo", "node"),
    *("mode", "owner", "attribute", "whole second", "move", "sparse"),
)
OPS = st.lists(st.tuples(st.sampled_from(KINDS), PATHS, PATHS, st.integers(0, 3)), max_size=14)


def perform(root: str, op: Op, tag: str) -> None:
    """One change below ``root``; what cannot be is left."""
    kind, path, other, number = op
    place, second = f"{root}/{path}", f"{root}/{other}"
    with contextlib.suppress(OSError):
        if kind in ("file", "sparse") and os.path.exists(place) and not os.path.isfile(place):
            return  # opening a FIFO waits, and opening a device acts on it
        if kind == "file":
            Path(place).write_bytes(f"{tag}{number}".encode() * (number * 40_000 + 1))
        elif kind == "sparse":
            with Path(place).open("wb") as file:
                file.truncate(100_000)
        elif kind == "dir":
            os.makedirs(place)
        elif kind in ("rm", "renew") and os.path.isdir(place) and not os.path.islink(place):
            shutil.rmtree(place)
            if kind == "renew":
                os.mkdir(place)
        elif kind == "rm":
            os.unlink(place)
        elif kind == "link":
            os.symlink("/nowhere/" + other * 2, place)
        elif kind == "hard":
            os.link(second, place, follow_symlinks=False)
        elif kind == "fifo":
            os.mkfifo(place)
        elif kind == "node":
            os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 3 + number))
        elif kind == "mode":
            os.chmod(place, (0o755, 0o4711, 0o1777, 0o000)[number])
        elif kind == "owner":
            os.chown(place, 3_000_000 * number, 5, follow_symlinks=False)
        elif kind == "attribute":
            os.setxattr(place, "user.note", f"{tag}{number}".encode() + b"\n\0=")
        elif kind == "whole second":
            os.utime(place, (5, 1_500_000_000 + number // 2), follow_symlinks=False)
        elif kind == "move":
            os.rename(place, second)


def look(root: str) -> dict[str, tuple[object, ...]]:
    """Everything a layer is to keep, by path."""
    seen: dict[str, tuple[object, ...]] = {}
    first: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(folders + files):
            place = os.path.join(folder, name)
            path, status = os.path.relpath(place, root), os.lstat(place)
            data: object = None
            if stat.S_ISREG(status.st_mode):
                data = Path(place).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                data = os.readlink(place)
            keys = [key for key in os.listxattr(place, follow_symlinks=False) if "overlay" not in key]
            own = tuple((key, os.getxattr(place, key, follow_symlinks=False)) for key in sorted(keys))
            same = path if stat.S_ISDIR(status.st_mode) else first.setdefault((status.st_dev, status.st_ino), path)
            seen[path] = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns, data, own, same)
    return seen


def unpack(layer: bytes, target: str, below: str = "") -> None:
    with contextlib.ExitStack() as stack:
        stack.callback(os.umask, os.umask(0))
        root = stack.enter_context(safefs.opened(safefs.open_root(target)))
        fds = [stack.enter_context(safefs.opened(safefs.open_root(below)))] if below else []
        blob = stack.enter_context(safefs.opened(os.memfd_create("layer")))
        os.write(blob, layer)
        source = stream.Stream(stream.Blob(blob, len(layer), final=True), limits.Limits())
        target_ = apply.Target(root, "overlay" if below else "plain", lowers.Lowers(lambda: fds) if below else None)
        apply.apply(source.pull, target_, limits.Limits())


def written(write: Callable[[tar_walk.Layer], None], upper: str) -> bytes:
    pieces: list[bytes] = []
    with safefs.opened(safefs.open_root(upper)) as root:
        write(tar_walk.Layer(pieces.append, tar_walk.Tree(root)))
    return b"".join(pieces) + tar_write.END


def pairs(lower: str, upper: str) -> bytes:
    with safefs.opened(safefs.open_root(lower)) as fd:
        return written(lambda layer: tar_walk.Pairs(layer, tar_walk.Tree(fd)).write(), upper)


def marks(lower: str, upper: str) -> bytes:
    with safefs.opened(safefs.open_root(lower)) as fd:
        return written(lambda layer: tar_walk.Marks(layer, below=lowers.Lowers(lambda: [fd])).write(), upper)


@contextlib.contextmanager
def mounted(folder: str, lower: str, name: str) -> Iterator[tuple[str, str]]:
    """An overlay on ``lower``: its upper directory, and the view of both."""
    upper, work, merged = (f"{folder}/{name}-{part}" for part in ("upper", "work", "merged"))
    for path in (upper, work, merged):
        os.makedirs(path, exist_ok=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work},index=off"
    syscalls.mount(b"overlay", os.fsencode(merged), b"overlay", 0, options.encode())
    try:
        yield upper, merged
    finally:
        syscalls.umount(os.fsencode(merged))


@contextlib.contextmanager
def before(ops: list[Op]) -> Iterator[tuple[str, str]]:
    """A directory to work in and the tree before, in it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        lower = f"{folder}/lower"
        os.mkdir(lower)
        for op in ops:
            perform(lower, op, "old")
        yield folder, lower


def copied(source: str, target: str) -> str:
    os.mkdir(target)
    copying.copy_tree(Path(source), Path(target))
    return target


def after_restoring(folder: str, lower: str, layer: bytes) -> dict[str, tuple[object, ...]]:
    """What the layer makes of the tree before, through an overlay; on a copy it has to make the same."""
    os.makedirs(f"{folder}/again-upper")
    unpack(layer, f"{folder}/again-upper", lower)
    with mounted(folder, lower, "again") as (_, merged):
        seen = look(merged)
    plain = copied(lower, f"{folder}/again-plain")
    unpack(layer, plain)
    assert look(plain) == seen
    shutil.rmtree(plain)
    for part in ("upper", "work"):
        shutil.rmtree(f"{folder}/again-{part}")
    return seen


@settings(max_examples=60, deadline=None, derandomize=True)
@given(OPS, OPS)
def test_copies_come_back(old: list[Op], new: list[Op]) -> None:
    with before(old) as (folder, lower):
        upper = copied(lower, f"{folder}/upper")
        for op in new:
            perform(upper, op, "new")
        wanted = look(upper)
        layer = pairs(lower, upper)
        assert layer == pairs(lower, upper)
        assert after_restoring(folder, lower, layer) == wanted


@settings(max_examples=60, deadline=None, derandomize=True)
@given(OPS, OPS)
def test_overlays_come_back(old: list[Op], new: list[Op]) -> None:
    with before(old) as (folder, lower):
        with mounted(folder, lower, "now") as (upper, merged):
            for op in new:
                perform(merged, op, "new")
            wanted = look(merged)
            by_sides = pairs(lower, merged)
        by_marks = marks(lower, upper)
        assert after_restoring(folder, lower, by_marks) == wanted
        assert after_restoring(folder, lower, by_sides) == wanted
