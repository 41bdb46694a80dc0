"""A tar that means to escape and a shim that hangs, met by the real ``ctr``: nobody outside is touched, nobody else waits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import empty_pb2

from pydock._proto.containerd.services.tasks.v1 import tasks_pb2
from pydock.testing import daemon as harness
from pydock.testing import images, layers, leakcheck
from pydock.testing import registry as registries

pytestmark = pytest.mark.root

Ctr = Callable[..., subprocess.CompletedProcess[str]]
NAMESPACE = (("containerd-namespace", "default"),)


@pytest.fixture(scope="module")
def daemon() -> Iterator[harness.Daemon]:
    with harness.running() as running:
        yield running


@pytest.fixture(scope="module")
def registry() -> Iterator[registries.Registry]:
    with registries.running() as running:
        yield running


@pytest.fixture(scope="module")
def ctr(daemon: harness.Daemon, peer: Callable[[str], Path]) -> Ctr:
    """``ctr("images", "ls")``: the real client, whatever it answers."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(peer("ctr")), "-a", str(daemon.address), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)

    return run


def _good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("way", [(), ("--local",)])
def test_a_layer_that_means_to_escape_touches_nothing_outside(
    daemon: harness.Daemon, ctr: Ctr, registry: registries.Registry, tmp_path: Path, way: tuple[str, ...]
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    outside = os.fsencode(tmp_path)
    escaping = layers.tar(
        layers.symlink(outside, b"link"),
        layers.file(b"link/through-a-link", b"x"),
        layers.file(b"../" * 40 + outside[1:] + b"/by-climbing", b"x"),
        layers.file(outside + b"/absolute", b"x"),
        layers.file(b"link/.wh.secret"),
        layers.directory(b"link", 0o777),
        layers.symlink(outside + b"/secret", b"name"),
        layers.file(b"name", b"overwritten"),
    )
    before = tmp_path.stat()
    name = registry.push(images.image([escaping]), f"bad/escape{len(way)}:1")
    ctr("images", "pull", "--plain-http", *way, name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert (tmp_path.stat().st_mode, tmp_path.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    _good(ctr("images", "pull", "--plain-http", *way, registry.push(images.busybox(), "bad/right:1")))


def test_a_hard_link_to_a_file_outside_is_none(ctr: Ctr, registry: registries.Registry, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    linking = layers.tar(layers.hardlink(os.fsencode(tmp_path / "secret"), b"mine"), layers.file(b"mine", b"overwritten"))
    ctr("images", "pull", "--plain-http", registry.push(images.image([linking]), "bad/link:1"))
    assert ((tmp_path / "secret").read_bytes(), (tmp_path / "secret").stat().st_nlink) == (b"secret", 1)


def test_a_shim_that_hangs_holds_up_nobody_else_and_nothing_is_left_of_it(
    daemon: harness.Daemon, ctr: Ctr, registry: registries.Registry
) -> None:
    name = registry.push(images.busybox(), "bad/hang:1")
    _good(ctr("images", "pull", "--plain-http", name))
    with leakcheck.unchanged(daemon):
        _good(ctr("run", "-d", name, "hung", "sleep", "1000"))
        shim = _shim(daemon, "hung")
        os.killpg(shim, signal.SIGSTOP)
        try:
            assert _kill(daemon, "hung", seconds=1) is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "hung" in _good(ctr("tasks", "ls"))
            assert _good(ctr("run", "--rm", name, "other", "echo", "runs")) == "runs\n"
        finally:
            os.killpg(shim, signal.SIGCONT)
        _good(ctr("tasks", "rm", "--force", "hung"))
        _good(ctr("containers", "rm", "hung"))


def _shim(daemon: harness.Daemon, id: str) -> int:
    """Return the process group of a task's shim."""
    [record] = daemon.state.glob(f"**/{id}/shim.json")
    return os.getpgid(json.loads(record.read_text())["pid"])


def _kill(daemon: harness.Daemon, id: str, seconds: float) -> grpc.StatusCode:
    with grpc.insecure_channel(f"unix:{daemon.address}") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(
            "/containerd.services.tasks.v1.Tasks/Kill",
            request_serializer=tasks_pb2.KillRequest.SerializeToString,
            response_deserializer=empty_pb2.Empty.FromString,
        )(tasks_pb2.KillRequest(container_id=id, signal=9), metadata=NAMESPACE, timeout=seconds)
    return caught.value.code()
