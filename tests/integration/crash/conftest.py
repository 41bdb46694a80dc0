"""One world for many crashes, made again when a test left it in disorder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock.testing import crash, flaky_registry


def warm(run: crash.Run) -> None:
    """Run a container once."""
    with run.world.connected(run.ns) as conn:
        run.container(conn, "warm", "true")
        run.create(conn, "warm")
        run.start(conn, "warm")


class Worlds:
    """The world that is in use."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._stack = contextlib.ExitStack()
        self._world: crash.World | None = None

    def sound(self) -> crash.World:
        """Return a world whose daemon runs and in which nothing went wrong."""
        if self._world is None or self._world.spoiled or self._world.daemon.process is None:
            self.close()
            self._world = self._stack.enter_context(crash.world(self._tree, warm))
        return self._world

    def close(self) -> None:
        """Remove it."""
        self._world = None
        self._stack.close()


@pytest.fixture(scope="session")
def tree() -> Iterator[Path]:
    """A root file system."""
    if os.geteuid():
        pytest.skip("needs root")
    with crash.rootfs() as made:
        yield made


@pytest.fixture(scope="session")
def worlds(tree: Path) -> Iterator[Worlds]:
    """Worlds for all tests here."""
    made = Worlds(tree)
    yield made
    made.close()


@pytest.fixture
def world(worlds: Worlds) -> Iterator[crash.World]:
    """A sound world in which nothing is planned."""
    made = worlds.sound()
    made.disarm()
    yield made
    made.disarm()


@pytest.fixture
def fresh(tree: Path) -> Iterator[crash.World]:
    """A world of this test alone."""
    with crash.world(tree, warm) as made:
        yield made


@pytest.fixture(scope="session")
def source() -> Iterator[flaky_registry.FlakyRegistry]:
    """A registry."""
    with flaky_registry.running() as made:
        yield made
