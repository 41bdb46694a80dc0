"""Fixtures of every test: real daemons at places of their own, and who may run what."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydock.testing import daemon as harness
from pydock.testing import registry as registries

CI = os.environ.get("CI") == "true"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root where there is none; in CI that is a failure, since a skipped promise is not kept."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
def daemon() -> Iterator[harness.Daemon]:
    """A ready daemon on fresh directories."""
    with harness.running() as running:
        yield running


def missing(what: str) -> None:
    """Skip the test for want of ``what``; in CI fail it, since a promise that is skipped is not kept."""
    (pytest.fail if CI else pytest.skip)(f"{what}; tools/dev test sets it up")


@pytest.fixture(scope="session")
def peer() -> Callable[[str], Path]:
    """Give the path of a real program by name: ctr, ctr-1.6, containerd, containerd-1.6 ... (see tools/peers)."""

    def find(name: str) -> Path:
        folder = os.environ.get("PYDOCK_PEERS", "")
        if not folder:
            missing("PYDOCK_PEERS does not name the folder of real clients")
        path = Path(folder) / name
        if not path.exists():
            missing(f"there is no {name} in {folder}")
        return path

    return find


@pytest.fixture(scope="session")
def registry() -> Iterator[registries.Registry]:
    """A real registry on a loopback port, empty but for what tests push."""
    if registries.program() is None:
        missing("docker-registry is not installed")
    with registries.running() as running:
        yield running
