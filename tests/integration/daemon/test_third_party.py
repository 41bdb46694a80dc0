"""Plugins that other packages install, in a real daemon."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock.base import digest
from pydock.client import connection, content
from pydock.testing import daemon as harness

pytestmark = pytest.mark.root

URI = "com.example.thing.v1.one"
POINTS = f"[pydock.plugins]\n{URI} = example_thing\n"
MODULE = """
from collections.abc import AsyncIterator
from dataclasses import dataclass

from pydock.core import plugin


@dataclass(frozen=True)
class ThingConfig(plugin.Config):
    words: str = plugin.option("none", "what to write")


@plugin.plugin("com.example.thing.v1", "one")
async def one(cfg: ThingConfig, root: plugin.PluginRoot, daemon: plugin.Daemon) -> AsyncIterator[None]:
    {body}
"""
WRITES = """(root / "up").write_text(f"{cfg.words} {daemon.address}")
    yield
    (root / "down").write_text("closed")"""
FAILS = """raise OSError("no such luck")
    yield"""
SKIPS = """raise plugin.SkipPlugin("not on this host")
    yield"""
LOOPS = """
    async def loop() -> None:
        raise OSError("lost")

    import asyncio
    async with plugin.background() as spawn:
        asyncio.get_running_loop().call_later(0.2, lambda: spawn(loop(), name="loop"))
        yield"""


README = Path(__file__).parents[3] / "plugins" / "README.md"


@pytest.fixture
def place() -> Iterator[Path]:
    with harness.place() as made:
        yield made


def daemon_with(place: Path, body: str, config: str = "") -> harness.Daemon:
    packages = place / "site-packages"
    information = packages / "example-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1\n")
    (information / "entry_points.txt").write_text(POINTS)
    (packages / "example_thing.py").write_text(MODULE.replace("{body}", body))
    return harness.Daemon(place, config=config, env={"PYTHONPATH": str(packages)})


def test_it_is_started_with_its_section_of_the_configuration_and_closed(place: Path) -> None:
    daemon = daemon_with(place, WRITES, f'[plugins."{URI}"]\nwords = "hello"\n')
    daemon.start()
    daemon.stop()
    own = daemon.root / URI
    assert (own / "up").read_text() == f"hello {daemon.address}"
    assert (own / "down").read_text() == "closed"
    assert own.stat().st_mode & 0o777 == 0o700


def test_it_can_be_disabled_and_its_wrong_configuration_is_named(place: Path) -> None:
    daemon = daemon_with(place, WRITES, f'disabled_plugins = ["{URI}"]\n')
    daemon.start()
    daemon.stop()
    assert not (daemon.root / URI).exists()
    daemon.config_path.write_text(f'[plugins."{URI}"]\nword = "hello"\n')
    with pytest.raises(harness.DaemonFailed, match=r"word: unknown key; known here: words"):
        daemon.start()


def test_its_failure_stops_the_start_and_names_it(place: Path) -> None:
    with pytest.raises(harness.DaemonFailed, match=f"plugin {URI} did not start: no such luck"):
        daemon_with(place, FAILS).start()


def test_skipping_itself_stops_nothing(place: Path) -> None:
    daemon = daemon_with(place, SKIPS)
    daemon.start()
    assert "not on this host" in daemon.log()
    assert daemon.stop() == 0


def test_a_failing_loop_of_it_ends_the_daemon_with_the_reason_in_the_log(place: Path) -> None:
    daemon = daemon_with(place, LOOPS)
    daemon.start()
    assert daemon.process is not None
    assert daemon.process.wait(15) == 1
    daemon.process = None
    assert "a background part failed" in daemon.log()
    assert "OSError: lost" in daemon.log()
    assert not daemon.address.exists()


def blocks(language: str) -> list[str]:
    """Return the examples of the README for authors of plugins."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def install(packages: Path) -> None:
    """Put the README's example into a directory as an installer would."""
    module, test = blocks("python")
    information = packages / "example-1.dist-info"
    information.mkdir(parents=True)
    points = tomllib.loads(blocks("toml")[0])["project"]["entry-points"]["pydock.plugins"]
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[pydock.plugins]\n" + "".join(f"{uri} = {value}\n" for uri, value in points.items()))
    (packages / "example_blobs.py").write_text(module)
    (packages / "test_example_blobs.py").write_text(test)


def test_the_readmes_plugin_is_short_and_holds_the_content_of_a_daemon(place: Path) -> None:
    install(place / "site-packages")
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 20
    config = blocks("toml")[1].replace("/srv/blobs", str(place / "blobs"))
    daemon = harness.Daemon(place, config=config, env={"PYTHONPATH": str(place / "site-packages")})
    daemon.start()
    data = b"kept elsewhere"
    try:
        with connection.connect(str(daemon.address), "default") as conn:
            content.ingest(conn, "ref", io.BytesIO(data))
    finally:
        daemon.stop()
    assert (place / "blobs" / "blobs" / "sha256" / digest.compute(data).partition(":")[2]).read_bytes() == data


def test_the_readmes_test_runs_the_contract_suite(place: Path) -> None:
    install(place)
    (place / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_example_blobs.py"]
    ended = subprocess.run(argv, cwd=place, capture_output=True, text=True, timeout=100, check=False)
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert ended.returncode == 0 and passed, ended.stdout
    assert int(passed[1]) > 20
