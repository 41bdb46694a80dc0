"""A daemon with little patience, registries that misbehave, and the real ``ctr`` between them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from pydock._proto.containerd.services.content.v1 import content_pb2
from pydock._proto.containerd.services.images.v1 import images_pb2
from pydock._proto.containerd.services.leases.v1 import leases_pb2
from pydock._proto.containerd.services.snapshots.v1 import snapshots_pb2
from pydock.testing import daemon as harness
from pydock.testing import flaky_registry, images

CONFIG = """
[plugins."io.pydock.remotes.v1.registry"]
stall_seconds = 0.3
slow_window_seconds = 0.3
slowest_bytes = 20000
request_tries = 3

[plugins."io.containerd.transfer.v1.local"]
max_download_tries = 3
"""
_names = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Left:
    """What a namespace holds: refs of ingests with their bytes, digests of blobs, keys of active snapshots, leases, image names."""

    ingests: dict[str, int]
    blobs: frozenset[str]
    active: tuple[str, ...]
    committed: tuple[str, ...]
    leases: tuple[str, ...]
    images: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """Tell whether a definite failure left nothing in its way: blobs that are right may stay."""
        return not (self.ingests or self.active or self.leases or self.images)


@dataclasses.dataclass
class Ctr:
    """The real client in a namespace of its own."""

    binary: Path
    daemon: harness.Daemon
    channel: grpc.Channel
    namespace: str

    def argv(self, *words: str) -> list[str]:
        """Return the argument vector of one command."""
        return [str(self.binary), "--address", str(self.daemon.address), "--namespace", self.namespace, *words]

    def run(self, *words: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run one command."""
        return subprocess.run(self.argv(*words), capture_output=True, timeout=timeout, check=False, text=True, stdin=subprocess.DEVNULL)

    def good(self, *words: str) -> str:
        """Run one command that must end well, and return its output."""
        ended = self.run(*words)
        assert ended.returncode == 0, f"{words}: {ended.stderr}\n{self.daemon.log_tail()}"
        return ended.stdout

    def bad(self, *words: str) -> str:
        """Run one command that must fail, and return its complaint; the daemon must survive it."""
        ended = self.run(*words)
        assert ended.returncode != 0, f"{words}: {ended.stdout}"
        assert self.daemon.process is not None and self.daemon.process.poll() is None
        return ended.stderr.strip()

    def pull(self, name: str, *flags: str) -> str:
        """Pull over plain HTTP."""
        return self.good("images", "pull", "--plain-http", *flags, name)

    def refused(self, name: str, *flags: str) -> str:
        """Pull what cannot be pulled."""
        return self.bad("images", "pull", "--plain-http", *flags, name)

    def has(self, name: str) -> bool:
        """Tell whether it was pulled, and nothing left that was only needed on the way."""
        left = self.left()
        return name in left.images and not (left.ingests or left.active or left.leases)

    def left(self) -> Left:
        """Return what there is."""
        blobs = [one.digest for part in self._ask(content_pb2, "Content", "List") for one in part.info]
        [statuses] = self._ask(content_pb2, "Content", "ListStatuses")
        ingests = statuses.statuses
        trees = [one for part in self._ask(snapshots_pb2, "Snapshots", "List", snapshotter="overlayfs") for one in part.info]
        [held] = self._ask(leases_pb2, "Leases", "List")
        [names] = self._ask(images_pb2, "Images", "List")
        return Left(
            {one.ref: one.offset for one in ingests},
            frozenset(blobs),
            tuple(one.name for one in trees if one.kind != snapshots_pb2.COMMITTED),
            tuple(one.name for one in trees if one.kind == snapshots_pb2.COMMITTED),
            tuple(one.id for one in held.leases),
            tuple(one.name for one in names.images),
        )

    def _ask(self, module: Any, service: str, name: str, **fields: Any) -> list[Any]:
        """Call a method by name and return its answers."""
        method = module.DESCRIPTOR.services_by_name[service].methods_by_name[name]
        kind, answer = (message_factory.GetMessageClass(one) for one in (method.input_type, method.output_type))
        make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = make(
            f"/{method.containing_service.full_name}/{name}",
            request_serializer=kind.SerializeToString,
            response_deserializer=answer.FromString,
        )
        found = call(kind(**fields), metadata=[("containerd-namespace", self.namespace)], timeout=20)
        return list(found) if method.server_streaming else [found]


@pytest.fixture(scope="session")
def impatient() -> Iterator[harness.Daemon]:
    """One daemon for all files here; every test has its namespace and its bytes."""
    with harness.running(config=CONFIG) as running:
        yield running


@pytest.fixture(scope="session")
def channel(impatient: harness.Daemon) -> Iterator[grpc.Channel]:
    """A connection to look at the daemon's state by."""
    with grpc.insecure_channel(f"unix://{impatient.address}") as made:
        yield made


@pytest.fixture
def ctr(impatient: harness.Daemon, channel: grpc.Channel, peer: Callable[[str], Path]) -> Ctr:
    """The real ctr 2.1."""
    return Ctr(peer("ctr"), impatient, channel, f"t{next(_names)}")


@pytest.fixture(scope="session")
def _shared() -> Iterator[flaky_registry.FlakyRegistry]:
    with flaky_registry.running() as made:
        yield made


@pytest.fixture
def flaky(_shared: flaky_registry.FlakyRegistry) -> Iterator[flaky_registry.FlakyRegistry]:
    """A registry that is well until the test says otherwise."""
    yield _shared
    _shared.heal()
    _shared.authority = None
    _shared.elsewhere = ""


@pytest.fixture
def other() -> Iterator[flaky_registry.FlakyRegistry]:
    """Another host: its own address of the loopback net, its own port."""
    with flaky_registry.running(address="127.0.0.2") as made:
        yield made


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> images.Image:
    """An image nobody else has: two layers, the upper one of 300 kB that gzip cannot make smaller."""
    return unique(request.node.nodeid)


def unique(seed: str, size: int = 300_000) -> images.Image:
    """Return the image of ``seed``."""
    noise = random.Random(hashlib.sha256(seed.encode()).digest()).randbytes(size)
    return images.image([images.layer({"seed": seed.encode()}), images.layer({"noise": noise})])


def layer_of(image: images.Image) -> tuple[str, int]:
    """Return digest and size of the largest blob."""
    return max(((key, len(data)) for key, data in image.blobs.items()), key=lambda pair: pair[1])
