"""Any sequence of layers leaves the tree a plain dictionary would: on one directory, and seen through overlayfs."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydock.base import safefs, syscalls
from pydock.testing import layers
from pydock_plugins.diff import apply, limits, lowers, stream

pytestmark = pytest.mark.root

Op = tuple[str, str]
Model = dict[str, str]
NAMES = ("a", "b", "c")


@st.composite
def operations(draw: st.DrawFn) -> Op:
    """A kind and a path of one to three names."""
    path = "/".join(draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)))
    return draw(st.sampled_from(("file", "file", "dir", "dir", "whiteout", "opaque", "fifo"))), path


def archive(ops: list[Op], tag: str) -> bytes:
    entries = []
    for kind, path in ops:
        name = path.encode()
        head, _, base = name.rpartition(b"/")
        match kind:
            case "file":
                entries.append(layers.file(name, f"{tag}:{path}".encode()))
            case "dir":
                entries.append(layers.directory(name))
            case "fifo":
                entries.append(layers.entry(name, b"6"))
            case "whiteout":
                entries.append(layers.file((head + b"/" if head else b"") + b".wh." + base))
            case "opaque":
                entries.append(layers.file(name + b"/.wh..wh..opq"))
    return layers.tar(*entries)


class Unfit(Exception):
    """The layer puts something below a file."""


def naive(below: Model, ops: list[Op], tag: str) -> Model:
    """What OCI's rules make of ``below`` and a layer, by brute force: first what the layer itself holds, then what it hides."""
    mine: Model = {}
    hidden: set[str] = set()
    opaque: set[str] = set()

    def parents(path: str) -> None:
        parts = path.split("/")
        for size in range(1, len(parts)):
            parent = "/".join(parts[:size])
            if parent not in mine:
                if below_now(parent) not in (None, "dir"):
                    raise Unfit
                mine[parent] = "dir"
            elif mine[parent] != "dir":
                raise Unfit

    def below_now(path: str) -> str | None:
        parts = path.split("/")
        for size in range(1, len(parts) + 1):
            upto = "/".join(parts[:size])
            if upto in hidden or ("/".join(parts[: size - 1]) in opaque):
                return None
        return below.get(path)

    for kind, path in ops:
        if kind == "opaque":
            parents(path + "/x")
            opaque.add(path)
            continue
        parents(path)
        if kind == "whiteout":
            hidden.add(path)
            continue
        if kind != "dir" or mine.get(path, "dir") != "dir":
            for other in [other for other in mine if other == path or other.startswith(path + "/")]:
                del mine[other]
            hidden.add(path)
        elif path not in mine and below_now(path) not in (None, "dir"):
            hidden.add(path)
        mine[path] = f"{tag}:{path}" if kind == "file" else kind
    seen = {path: what for path in below if (what := below_now(path)) is not None}
    return seen | mine


def look(root: str) -> Model:
    seen: Model = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            seen[str(path.relative_to(root))] = "dir" if path.is_dir() else "fifo" if path.is_fifo() else path.read_text()
    return seen


def unpack(layer: bytes, target: str, mode: str, below: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        stack.callback(os.umask, os.umask(0))
        root = stack.enter_context(safefs.opened(safefs.open_root(target)))
        fds = [stack.enter_context(safefs.opened(safefs.open_root(path))) for path in below]
        blob = stack.enter_context(safefs.opened(os.memfd_create("layer")))
        os.write(blob, layer)
        source = stream.Stream(stream.Blob(blob, len(layer), final=True), limits.Limits())
        apply.apply(source.pull, apply.Target(root, mode, lowers.Lowers(lambda: fds) if below else None), limits.Limits())


def fit(stack: list[list[Op]]) -> tuple[Model, list[bytes]]:
    """The model of the layers that can be, and their archives; a layer that cannot is left out."""
    model: Model = {}
    archives = []
    for number, ops in enumerate(stack):
        kept: list[Op] = []
        for op in ops:
            with contextlib.suppress(Unfit):
                naive(model, [*kept, op], str(number))
                kept.append(op)
        model = naive(model, kept, str(number))
        archives.append(archive(kept, str(number)))
    return model, archives


LAYERS = st.lists(st.lists(operations(), max_size=8), min_size=1, max_size=4)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(LAYERS)
def test_layers_on_one_directory(stack: list[list[Op]]) -> None:
    model, archives = fit(stack)
    with tempfile.TemporaryDirectory() as folder:
        for layer in archives:
            unpack(layer, folder, "plain", [])
        assert look(folder) == model


@settings(max_examples=60, deadline=None, derandomize=True)
@given(LAYERS)
def test_layers_through_overlayfs(stack: list[list[Op]]) -> None:
    model, archives = fit(stack)
    with tempfile.TemporaryDirectory() as folder:
        below: list[str] = []
        for number, layer in enumerate(archives):
            upper = f"{folder}/{number}"
            Path(upper).mkdir()
            unpack(layer, upper, "overlay", below)
            below.insert(0, upper)
        merged, empty = Path(folder, "merged"), Path(folder, "empty")
        merged.mkdir()
        empty.mkdir()
        options = "lowerdir=" + ":".join([*below, str(empty)])
        syscalls.mount(b"overlay", os.fsencode(merged), b"overlay", 0, options.encode())
        try:
            assert look(str(merged)) == model
        finally:
            syscalls.umount(os.fsencode(merged))
