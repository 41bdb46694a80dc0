"""How much work a layer makes: counted calls, not time, must grow no faster than the layer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydock.base import safefs, syscalls
from pydock.testing import layers

pytestmark = pytest.mark.root

D, F, S, L = layers.directory, layers.file, layers.symlink, layers.hardlink
COUNTED = ("open", "close", "mkdir", "unlink", "rmdir", "link", "symlink", "mknod", "stat", "fstat", "listdir", "readlink", "chown",
           "fchown", "fchmod", "utime", "write")  # fmt: skip


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many system calls were made since the last question."""
    made = [0]

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            made[0] += 1
            result = call(*args, **kwargs)
            if isinstance(result, list):
                made[0] += len(result)
            return result

        return counted

    for name in COUNTED:
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    monkeypatch.setattr(syscalls, "call", counting(syscalls.call))

    def taken() -> int:
        count, made[0] = made[0], 0
        return count

    return taken


def deep(n: int) -> list[bytes]:
    return [F(b"/".join([b"d%d" % k] * 40) + b"/f") for k in range(n // 40)]


LAYERS: dict[str, Callable[[int], list[bytes]]] = {
    "deep-directories": deep,
    "many-files": lambda n: [F(b"d/f%d" % k) for k in range(n)],
    "many-whiteouts": lambda n: [F(b"d/.wh.f%d" % k) for k in range(n)],
    "one-directory-opaque-many-times": lambda n: [part for k in range(n) for part in (F(b"d/g%d" % k), F(b"d/.wh..wh..opq"))],
    "nested-opaque-from-inside-out": lambda n: [F(b"/".join([b"x"] * (k + 1)) + b"/.wh..wh..opq") for k in reversed(range(n // 10))],
    "many-opaque-directories": lambda n: [part for k in range(n) for part in (F(b"d/e%d/g" % k), F(b"d/e%d/.wh..wh..opq" % k))],
    "many-hard-links": lambda n: [F(b"d/f"), *[L(b"d/f", b"d/l%d" % k) for k in range(n)]],
    "a-link-flipped-many-times": lambda n: [
        part for k in range(n) for part in (D(b"d%d" % (k % 2)), S(b"d%d" % (k % 2), b"l"), F(b"l/f%d" % k))
    ],
    "a-directory-removed-and-made-again": lambda n: [part for k in range(n) for part in (D(b"d"), F(b"d/f"), F(b"d", b"x"))],
    "many-links-on-the-way": lambda n: [
        *[S(b"l%d" % (k + 1), b"l%d" % k) for k in range(50)], D(b"l50"), *[F(b"l0/f%d" % k) for k in range(n)]
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("mode", ["plain", "overlay"])
def test_twice_the_layer_is_at_most_twice_the_work(name: str, mode: str, unpack: Any, work: Callable[[], int], tmp_path: Path) -> None:
    counts = []
    for size in (200, 400):
        root = tmp_path / str(size)
        root.mkdir()
        if mode == "plain":
            unpack(layers.tar(*[F(b"d/f%d" % k) for k in range(size)]), root)
        layer = layers.tar(*LAYERS[name](size))
        work()
        unpack(layer, root, mode)
        counts.append(work())
    assert counts[1] <= 2.2 * counts[0] + 50


def test_a_small_file_in_a_new_directory_takes_four_calls(unpack: Any, work: Callable[[], int], root: Path) -> None:
    work()
    unpack(layers.tar(D(b"d"), F(b"d/f0", b"x")), root)
    few = work()
    unpack(layers.tar(D(b"e"), *[F(b"e/f%d" % k, b"x") for k in range(101)]), root)
    assert work() - few <= 400 + 4


def test_removing_a_deep_tree_holds_one_descriptor_at_a_time(unpack: Any, root: Path) -> None:
    unpack(layers.tar(F(b"/".join([b"d"] * 2000) + b"/f")), root)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, hard))
    try:
        with safefs.opened(safefs.open_root(root)) as top:
            safefs.remove(top, b"d")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(root.iterdir()) == []
