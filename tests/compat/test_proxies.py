"""Mechanisms in other processes: pydockd over those of another daemon, and the real containerd over a snapshotter of pydockd."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydock.testing import daemon as harness
from pydock.testing import leakcheck

pytestmark = pytest.mark.root

OFFER = '[plugins."io.pydock.offer.v1.snapshots"]\naddress = "{place}/offer.sock"\n'

PROXIED = """
disabled_plugins = ["io.containerd.content.v1.content", "io.containerd.differ.v1.walking", "io.pydock.compare.v1.walking"]
[proxy_plugins.far]
type = "snapshot"
address = "{far}/offer.sock"
platform = "linux/amd64"
exports = {{ root = "/elsewhere" }}
[proxy_plugins.far-content]
type = "content"
address = "{far}/state/pydock.sock"
namespace = "{ns}"
[proxy_plugins.far-diff]
type = "diff"
address = "{far}/state/pydock.sock"
"""

CONTAINERD = """version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{place}/state/containerd.sock"
[proxy_plugins.pydock]
type = "snapshot"
address = "{far}/offer.sock"
"""

NS = "proxied"
Run = Callable[..., str]


@contextlib.contextmanager
def daemon(config: str) -> Iterator[harness.Daemon]:
    with harness.place() as place:
        made = harness.Daemon(place, config=config.replace("{place}", str(place)))
        made.start()
        try:
            yield made
        finally:
            made.stop()
            harness.end_strays(place)


@pytest.fixture
def far() -> Iterator[harness.Daemon]:
    with daemon(OFFER) as made:
        yield made


def client(binary: Path, address: Path, ns: str = NS) -> Run:
    def run(*words: str) -> str:
        argv = [binary, "--address", address, "--namespace", ns, *words]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        if ended.returncode:
            raise AssertionError(f"{words}: {ended.stderr}")
        return ended.stdout

    return run


def test_content_snapshots_and_diff_may_all_be_in_another_daemon(peer: Callable[[str], Path], far: harness.Daemon, reference: str) -> None:
    with daemon(PROXIED.format(far=far.place, ns=NS)) as near:
        ctr = client(peer("ctr"), near.address)
        ctr("images", "pull", "--plain-http", "--snapshotter", "far", reference)
        assert ctr("run", "--rm", "--snapshotter", "far", reference, "one", "sh", "-c", "echo from there").strip() == "from there"
        ctr("run", "--snapshotter", "far", reference, "two", "sh", "-c", "echo kept > /kept")
        ctr("snapshots", "--snapshotter", "far", "commit", "two-layer", "two")
        listed = ctr("snapshots", "--snapshotter", "far", "ls")
        assert "two-layer" in listed
        layer = subprocess.run(
            [peer("ctr"), "--address", near.address, "-n", NS, "snapshots", "--snapshotter", "far", "diff", "two-layer"],
            check=True,
            capture_output=True,
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            assert "kept" in archive.getnames()
        digests = set(ctr("content", "ls", "-q").split())
        assert digests <= set(client(peer("ctr"), far.address)("content", "ls", "-q").split())
        assert not list((near.root / "io.containerd.content.v1.content").glob("blobs/*/*"))
        rows = [line.split() for line in ctr("plugins", "ls").splitlines()]
        assert {("io.containerd.snapshotter.v1", "far"), ("io.containerd.differ.v1", "far-diff")} <= {tuple(row[:2]) for row in rows}
        near.restart()
        assert "two-layer" in ctr("snapshots", "--snapshotter", "far", "ls")


def test_a_proxy_that_is_away_delays_only_what_needs_it(peer: Callable[[str], Path], reference: str) -> None:
    with daemon('[proxy_plugins.gone]\ntype = "snapshot"\naddress = "{place}/nobody.sock"\n') as near:
        ctr = client(peer("ctr"), near.address)
        ctr("images", "pull", "--plain-http", reference)
        assert ctr("run", "--rm", reference, "here", "echo", "fine").strip() == "fine"
        with pytest.raises(AssertionError, match="proxy plugin gone"):
            ctr("snapshots", "--snapshotter", "gone", "prepare", "x")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ('[proxy_plugins.x]\ntype = "sandbox"\naddress = "/a"\n', "proxy_plugins.x: type: expected snapshot, content or diff"),
        ('[proxy_plugins.x]\ntype = "diff"\naddress = "a"\n', "proxy_plugins.x: address: 'a' is not the absolute path"),
        ('[proxy_plugins.x]\ntype = "diff"\naddress = "/a"\n', "is provided by"),
    ],
)
def test_a_section_that_cannot_be_is_refused_at_start(section: str, words: str) -> None:
    with pytest.raises(harness.DaemonFailed, match=words), daemon(section):
        pass


@contextlib.contextmanager
def containerd(binary: Path, far: harness.Daemon) -> Iterator[Path]:
    """Run the real containerd with our snapshotter as its proxy plugin; yields its socket."""
    with harness.place("containerd-") as place:
        (place / "config.toml").write_text(CONTAINERD.format(place=place, far=far.place))
        environment = {**os.environ, "PATH": f"{binary.parent}:{os.environ['PATH']}", harness.MARK: str(place)}
        with (place / "log").open("wb") as log:
            process = subprocess.Popen([binary, "--config", place / "config.toml"], stdout=log, stderr=log, env=environment)
        socket = place / "state/containerd.sock"
        try:
            leakcheck.settle(lambda: "" if socket.exists() else "containerd does not listen")
            yield socket
        finally:
            process.terminate()
            process.wait(20)
            harness.end_strays(place)


def test_the_real_containerd_runs_containers_on_our_snapshotter(peer: Callable[[str], Path], far: harness.Daemon, reference: str) -> None:
    with containerd(peer("containerd"), far) as socket:
        ctr = client(peer("ctr"), socket)
        ctr("images", "pull", "--local", "--plain-http", "--snapshotter", "pydock", reference)
        said = ctr("run", "--rm", "--snapshotter", "pydock", reference, "one", "sh", "-c", "echo hi > /f && cat /f")
        assert said.strip() == "hi"
        snapshots = [line.split()[0] for line in ctr("snapshots", "--snapshotter", "pydock", "ls").splitlines()[1:]]
        assert snapshots
        assert "gc.root" not in ctr("snapshots", "--snapshotter", "pydock", "info", snapshots[0])
        ours = client(peer("ctr"), far.address, "io.pydock.offered")
        assert all(name in ours("snapshots", "ls") for name in snapshots)
        ctr("images", "rm", "--sync", reference)
        assert ctr("snapshots", "--snapshotter", "pydock", "ls").splitlines()[1:] == []
        leakcheck.settle(lambda: "snapshots are left" if len(ours("snapshots", "ls").splitlines()) > 1 else "")
