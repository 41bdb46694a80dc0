"""Figures of real containers, as Prometheus would scrape them."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock.testing import daemon as harness
from pydock.testing import leakcheck

pytestmark = pytest.mark.root


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))


Scrape = Callable[[], dict[str, float]]


@pytest.fixture(scope="module")
def metrics_socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pydock-metrics-", dir="/run") as place:
        yield Path(place) / "m.sock"


@pytest.fixture(scope="module")
def engine(peer: Callable[[str], Path], metrics_socket: Path) -> Iterator[harness.Daemon]:
    peer("ctr")
    with harness.running(config=f'[metrics]\naddress = "unix://{metrics_socket}"\n') as daemon:
        yield daemon


def get(path: Path, target: str) -> tuple[int, str]:
    client = Unix(path)
    try:
        client.request("GET", target)
        answer = client.getresponse()
        return answer.status, answer.read().decode()
    finally:
        client.close()


@pytest.fixture
def scrape(metrics_socket: Path) -> Scrape:
    """Every sample by its name and labels, as the text has them."""

    def take() -> dict[str, float]:
        status, text = get(metrics_socket, "/v1/metrics")
        assert status == 200
        rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    return take


def of(name: str, id: str, ns: str) -> str:
    return f'{name}{{container_id="{id}",namespace="{ns}"}}'


def test_a_container_has_containerds_figures(ctr: Any, scrape: Scrape) -> None:
    with ctr.task("figures", "sleep", "60"):
        samples = scrape()
        assert samples[of("container_pids_current", "figures", ctr.namespace)] == 1
        version = "memory_usage_usage" if Path("/sys/fs/cgroup/memory").exists() else "memory_usage"
        assert samples[of(f"container_{version}_bytes", "figures", ctr.namespace)] > 0
        cpu = [name for name in samples if name.startswith(("container_cpu_total_nanoseconds", "container_cpu_usage_usec_microseconds"))]
        assert cpu == [name for name in cpu if 'container_id="figures"' in name] != []
    assert of("container_pids_current", "figures", ctr.namespace) not in scrape()


def test_stores_calls_and_the_process_are_counted(ctr: Any, scrape: Scrape) -> None:
    with pytest.raises(Exception, match="not found"):
        ctr("containers", "info", "nobody")
    samples = scrape()
    ns = ctr.namespace
    assert samples[f'pydock_content_blobs{{namespace="{ns}"}}'] >= 3
    assert 0 < samples[f'pydock_content_bytes{{namespace="{ns}"}}'] <= samples["pydock_content_stored_bytes"]
    assert samples[f'pydock_content_ingests{{namespace="{ns}"}}'] == 0
    assert samples[f'pydock_images{{namespace="{ns}"}}'] == 1
    assert samples[f'pydock_snapshots{{kind="committed",namespace="{ns}",snapshotter="overlayfs"}}'] >= 1
    method = 'grpc_method="Get",grpc_service="containerd.services.containers.v1.Containers",grpc_type="unary"'
    assert samples[f'grpc_server_handled_total{{grpc_code="NotFound",{method}}}'] >= 1
    assert samples[f"grpc_server_handling_seconds_count{{{method}}}"] == samples[f"grpc_server_started_total{{{method}}}"] >= 1
    assert samples["process_resident_memory_bytes"] > 10 << 20
    assert abs(samples["process_start_time_seconds"] - time.time()) < 3600
    assert 'containerd_gc_collections_total{status="success"}' in samples


def test_a_hung_shim_costs_only_its_own_figures(ctr: Any, scrape: Scrape, engine: harness.Daemon) -> None:
    before = set(harness.strays(engine.place))
    with ctr.task("quick", "sleep", "60"):
        others = set(harness.strays(engine.place))
        with ctr.task("hung", "sleep", "60"):
            shims = [pid for pid in set(harness.strays(engine.place)) - others if b"sleep" not in command(pid)]
            assert shims, before
            for pid in shims:
                os.kill(pid, signal.SIGSTOP)
            try:
                samples = scrape()
                assert samples[of("container_pids_current", "quick", ctr.namespace)] == 1
                assert samples[of("pydock_container_silent", "hung", ctr.namespace)] == 1
                assert scrape()[of("pydock_container_silent", "hung", ctr.namespace)] == 1
            finally:
                for pid in shims:
                    os.kill(pid, signal.SIGCONT)
    leakcheck.settle(lambda: "still there" if len(harness.strays(engine.place)) > len(before) else "")


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_both_paths_answer_and_no_other(metrics_socket: Path, engine: harness.Daemon) -> None:
    assert get(metrics_socket, "/metrics")[0] == 200
    assert get(metrics_socket, "/other")[0] == 404
    assert metrics_socket.stat().st_mode & 0o777 == 0o660
