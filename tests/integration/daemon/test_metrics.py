"""Where a real daemon serves its figures, and that it costs nothing when it does not."""

from __future__ import annotations

import re
import socket
import urllib.request
from pathlib import Path

import pytest

from pydock.testing import daemon as harness


def test_a_loopback_port_serves_them() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with harness.running(config=f'[metrics]\naddress = "127.0.0.1:{port}"\n'):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert "process_start_time_seconds" in answer.read().decode()


def test_an_address_others_could_reach_stops_the_start() -> None:
    with pytest.raises(harness.DaemonFailed, match=re.escape("metrics.address: metrics address '0.0.0.0:1338': expected unix://")):
        with harness.running(config='[metrics]\naddress = "0.0.0.0:1338"\n'):
            pass


def test_a_port_that_is_taken_stops_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(harness.DaemonFailed, match="cannot listen at 127"):
            with harness.running(config=f'[metrics]\naddress = "127.0.0.1:{taken.getsockname()[1]}"\n'):
                pass


def test_nothing_of_it_is_loaded_while_it_is_off(daemon: harness.Daemon) -> None:
    assert "no metrics address is configured" in daemon.log()
    assert "_http_parser" not in Path(f"/proc/{daemon.pid}/maps").read_text()
