"""Real clients against an engine: pydockd, or for comparison the real containerd (PYDOCK_COMPAT_ENGINE=containerd)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydock.testing import daemon as harness
from pydock.testing import images
from pydock.testing import registry as registries

CONTAINERD = os.environ.get("PYDOCK_COMPAT_ENGINE") == "containerd"
CONTAINERD_CONFIG = """version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{place}/state/containerd.sock"
"""


@dataclasses.dataclass(frozen=True)
class Engine:
    """What the clients talk to; ``daemon`` is None where it is the real containerd."""

    address: Path
    daemon: harness.Daemon | None


@contextlib.contextmanager
def real_containerd(binary: Path) -> Iterator[Engine]:
    """Run the real containerd at a place of its own; it says nowhere that it is ready, so its socket is asked for."""
    with harness.place("containerd-") as place:
        (place / "config.toml").write_text(CONTAINERD_CONFIG.format(place=place))
        environment = {**os.environ, "PATH": f"{binary.parent}:{os.environ['PATH']}", harness.MARK: str(place)}
        with (place / "log").open("wb") as log:
            process = subprocess.Popen([binary, "--config", place / "config.toml"], stdout=log, stderr=log, env=environment)
        engine = Engine(place / "state/containerd.sock", None)
        try:
            end = time.monotonic() + 20
            while not engine.address.exists() and time.monotonic() < end:
                time.sleep(0.05)
            yield engine
        finally:
            process.terminate()
            process.wait(20)
            harness.end_strays(place)


@pytest.fixture(scope="module")
def engine(peer: Callable[[str], Path]) -> Iterator[Engine]:
    """One engine for the tests of a file."""
    if CONTAINERD:
        with real_containerd(peer("containerd")) as real:
            yield real
        return
    with harness.running() as daemon:
        yield Engine(daemon.address, daemon)


class CtrFailed(Exception):
    """The client ended with another status than it should."""


class Ctr:
    """The real ``ctr`` of one version, in a namespace of its own."""

    def __init__(self, binary: Path, address: Path, image: str) -> None:
        self.binary = binary
        self.address = address
        self.image = image
        self.namespace = binary.name.replace(".", "-")
        self.new = binary.name == "ctr"

    def argv(self, *words: str) -> list[str]:
        """Return the argument vector of one command."""
        return [str(self.binary), "--address", str(self.address), "--namespace", self.namespace, *words]

    def __call__(self, *words: str, status: int = 0, stdin: bytes = b"", errors: bool = False) -> str:
        """Run one command and return its output (or its complaint). Raises CtrFailed when it ends with another status."""
        ended = subprocess.run(self.argv(*words), input=stdin, capture_output=True, timeout=60, check=False)
        out, complaint = ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
        if ended.returncode != status:
            raise CtrFailed(f"ctr {' '.join(words)}: status {ended.returncode}, not {status}\n{out}\n{complaint}")
        return complaint if errors else out

    def rows(self, *words: str) -> list[list[str]]:
        """Return the cells of a table without its header, split at blanks."""
        return [line.split() for line in self(*words).splitlines()[1:] if line.strip()]

    @contextlib.contextmanager
    def task(self, name: str, *command: str, flags: tuple[str, ...] = ()) -> Iterator[str]:
        """Run a container in the background while the body runs."""
        self("run", "-d", *flags, self.image, name, *command)
        try:
            yield name
        finally:
            subprocess.run(self.argv("tasks", "rm", "-f", name), capture_output=True, timeout=60, check=False)
            self("containers", "rm", name)

    @contextlib.contextmanager
    def background(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run one command beside the body."""
        process = subprocess.Popen(self.argv(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def reference(registry: registries.Registry) -> str:
    """An image for two platforms in a real registry."""
    other = images.image([images.layer({"other": b"not for here"})], architecture="s390x")
    return registry.push(images.index([images.busybox(), other]), "compat/busybox:1")


@pytest.fixture(scope="module", params=["ctr", "ctr-1.6"])
def ctr(request: pytest.FixtureRequest, engine: Engine, peer: Callable[[str], Path], reference: str) -> Ctr:
    """The real client, its image pulled."""
    made = Ctr(peer(request.param), engine.address, reference)
    made("images", "pull", "--plain-http", reference)
    return made
