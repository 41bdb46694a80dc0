"""Traces of real requests, as an OpenTelemetry collector receives them."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock.testing import daemon as harness

pytestmark = pytest.mark.root


class Collector:
    """Takes spans in at a loopback port."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.services: set[str] = set()
        self.paths: set[str] = set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.take(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, sent: dict[str, Any]) -> None:
        self.paths.add(path)
        for resource in sent["resourceSpans"]:
            self.services |= {pair["value"]["stringValue"] for pair in resource["resource"]["attributes"]}
            for scope in resource["scopeSpans"]:
                self.spans += scope["spans"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_a_pull_and_a_run_are_told_step_by_step(peer: Callable[[str], Path], reference: str, collector: Collector) -> None:
    with harness.running(env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "mine"}) as daemon:
        ctr = [peer("ctr"), "--address", daemon.address]
        subprocess.run([*ctr, "images", "pull", "--plain-http", reference], check=True, capture_output=True, timeout=60)
        subprocess.run([*ctr, "run", "--rm", reference, "one", "true"], check=True, capture_output=True, timeout=60)
        subprocess.run([*ctr, "containers", "info", "nobody"], check=False, capture_output=True, timeout=60)
    assert (collector.paths, collector.services) == ({"/v1/traces"}, {"mine"})
    spans = {span["spanId"]: span for span in collector.spans}
    names = {span["name"] for span in spans.values()}
    assert {"pull", "pull.blob", "unpack", "unpack.layer", "task.create", "task.create.shim", "task.create.init"} <= names
    [layer] = [span for span in spans.values() if span["name"] == "unpack.layer"]
    chain = []
    while layer:
        chain.append(layer["name"])
        layer = spans.get(layer["parentSpanId"], {})
    assert chain[-1] == "containerd.services.transfer.v1.Transfer/Transfer"
    assert {"unpack", "pull"} <= set(chain)
    failed = [span for span in spans.values() if span["status"]]
    assert any("nobody" in span["status"]["message"] and span["name"].endswith("Containers/Get") for span in failed)
    assert all(int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"]) for span in spans.values())


def test_a_collector_that_is_away_is_said_once_and_hurts_nobody(peer: Callable[[str], Path]) -> None:
    with harness.running(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) as daemon:
        subprocess.run([peer("ctr"), "--address", daemon.address, "version"], check=True, capture_output=True, timeout=60)
        assert daemon.stop() == 0
        assert daemon.log().count("traces cannot be sent") == 1


def test_an_endpoint_that_is_none_stops_the_start() -> None:
    with pytest.raises(harness.DaemonFailed, match="expected http:// or https://"):
        with harness.running(env={"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4317"}):
            pass
