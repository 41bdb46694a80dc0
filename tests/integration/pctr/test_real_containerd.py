"""``pctr`` on the real containerd: what it says on the wire is what others say, too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydock.testing import daemon as harness
from pydock.testing import images, leakcheck

pytestmark = pytest.mark.root

NAME = "docker.io/library/busybox:test"
CONFIG = """version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{place}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{place}/opt"
"""
Pctr = Callable[..., str]


@pytest.fixture(scope="module")
def pctr(peer: Callable[[str], Path]) -> Iterator[Pctr]:
    """A real containerd with a busybox image; call it with a command line for its output."""
    binary = peer("containerd")
    with harness.place("containerd-") as place:
        (place / "config.toml").write_text(CONFIG.format(place=place))
        environment = {"PATH": f"{binary.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        with (place / "log").open("wb") as log:
            process = subprocess.Popen([binary, "-c", place / "config.toml"], stdout=log, stderr=log, env=environment)

        def call(*args: str, code: int = 0, input: bytes = b"") -> str:
            line = [sys.executable, "-c", "from pydock.cli.pctr import main; main()", "-a", f"{place}/c.sock", *args]
            done = subprocess.run(line, input=input, capture_output=True, timeout=60)
            assert done.returncode == code, done.stderr
            return done.stdout.decode()

        try:
            leakcheck.settle(lambda: "" if answers(place / "c.sock") else "containerd does not answer")
            archive = place / "busybox.tar"
            archive.write_bytes(images.archive(images.busybox(), NAME))
            assert call("images", "import", str(archive)) == f"{NAME}\n"
            yield call
        finally:
            process.kill()
            process.wait()


def answers(socket: Path) -> bool:
    """Tell whether somebody serves the socket."""
    line = [sys.executable, "-c", "from pydock.cli.pctr import main; main()", "-a", str(socket), "--connect-timeout", "1", "version"]
    return socket.exists() and subprocess.run(line, capture_output=True).returncode == 0


def test_a_container_runs_and_is_gone(pctr: Pctr) -> None:
    assert pctr("run", "--rm", "-u", "user", NAME, "c1", "sh", "-c", "id -u; cat; exit 7", input=b"in", code=7) == "1000\nin"
    assert pctr("containers", "ls", "-q") == pctr("tasks", "ls", "-q") == ""


def test_a_detached_container_is_used_and_removed(pctr: Pctr) -> None:
    pctr("run", "-d", NAME, "c1", "sh", "-c", "read line; echo got $line; exit 5")
    assert pctr("exec", "c1", "echo", "hi") == "hi\n"
    assert pctr("tasks", "attach", "c1", input=b"a\n", code=5) == "got a\n"
    pctr("containers", "rm", "c1")


def test_an_image_is_exported_whole_though_the_stream_is_left_open(pctr: Pctr, tmp_path: Path) -> None:
    pctr("images", "export", str(tmp_path / "out.tar"), NAME)
    listed = subprocess.run(["tar", "tf", str(tmp_path / "out.tar")], capture_output=True, text=True, check=True).stdout.split()
    assert {"oci-layout", "index.json", "manifest.json"} <= set(listed)
    assert json.loads(pctr("--json", "images", "check"))[0]["complete"] is True


def test_its_plugins_and_snapshots_are_listed(pctr: Pctr) -> None:
    assert "io.containerd.snapshotter.v1" in pctr("plugins", "ls")
    assert "Committed" in pctr("snapshots", "ls")
