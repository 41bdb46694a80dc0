"""The daemon as a process: claim, sockets, signals, logs, wire edge."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from pydock._proto.grpc.health.v1 import health_pb2
from pydock.testing import daemon as harness
from pydock.testing import leakcheck

pytestmark = pytest.mark.root

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"


@pytest.fixture
def place() -> Iterator[Path]:
    with harness.place() as made:
        yield made


def call(daemon: harness.Daemon, method: str, message: bytes = b"", options: tuple[tuple[str, int], ...] = ()) -> bytes:
    with grpc.insecure_channel(f"unix:{daemon.address}", options=options) as channel:
        unary = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
        return bytes(unary(message, timeout=10))


def code_of(daemon: harness.Daemon, method: str, message: bytes = b"") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(daemon, method, message)
    return caught.value.code(), caught.value.details()


def test_it_says_that_it_serves(daemon: harness.Daemon) -> None:
    answer = health_pb2.HealthCheckResponse.FromString(call(daemon, CHECK))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service_is_not_found_and_its_watch_stays_open(daemon: harness.Daemon) -> None:
    message = health_pb2.HealthCheckRequest(service="x").SerializeToString()
    assert code_of(daemon, CHECK, message)[0] is grpc.StatusCode.NOT_FOUND
    with grpc.insecure_channel(f"unix:{daemon.address}") as channel:
        stream = channel.unary_stream(WATCH, request_serializer=None, response_deserializer=None)(message, timeout=10)
        assert health_pb2.HealthCheckResponse.FromString(next(stream)).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert stream.is_active()
        stream.cancel()


def test_an_unknown_service_and_an_unknown_method_are_unimplemented(daemon: harness.Daemon) -> None:
    for method in ("/no.such.Service/Method", "/grpc.health.v1.Health/Nothing", "/x", "//"):
        assert code_of(daemon, method)[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_beyond_the_limit_is_refused_and_the_next_call_works(daemon: harness.Daemon) -> None:
    assert code_of(daemon, CHECK, bytes((16 << 20) + 1))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert call(daemon, CHECK)


def test_bytes_that_are_no_message_are_refused(daemon: harness.Daemon) -> None:
    assert code_of(daemon, CHECK, b"\xff\xff\xff")[0] in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    assert call(daemon, CHECK)


def test_a_client_that_pings_all_the_time_is_served(daemon: harness.Daemon) -> None:
    options = (("grpc.keepalive_time_ms", 20), ("grpc.http2.max_pings_without_data", 0), ("grpc.keepalive_permit_without_calls", 1))
    with grpc.insecure_channel(f"unix:{daemon.address}", options=options) as channel:
        stream = channel.unary_stream(WATCH, request_serializer=None, response_deserializer=None)(b"", timeout=1)
        next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)  # nothing comes until our own deadline, and no GOAWAY
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_socket_is_for_root_and_the_docker_group(daemon: harness.Daemon) -> None:
    found = daemon.address.stat()
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert found.st_uid == 0
    assert stat.S_IMODE(daemon.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(daemon.state.stat().st_mode) == 0o711


def test_its_sockets_are_never_abstract(daemon: harness.Daemon) -> None:
    inodes = {str(target) for target in _descriptors(daemon.pid)}
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    assert not [row for row in rows if len(row) > 7 and row[7].startswith("@") and f"socket:[{row[6]}]" in inodes]


def _descriptors(pid: int) -> list[Path]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(entry.readlink())
        except OSError:
            continue
    return found


def test_a_second_daemon_says_who_holds_the_directories_and_leaves_the_first_alone(daemon: harness.Daemon) -> None:
    for root, state in ((daemon.root, daemon.place / "s2"), (daemon.place / "r2", daemon.state)):
        command = [sys.executable, "-m", "pydock.daemon.main", "--root", str(root), "--state", str(state)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert ended.returncode == 1
        assert f"another pydockd (pid {daemon.pid}) holds" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert call(daemon, CHECK)


def test_a_stale_socket_after_a_crash_is_replaced(daemon: harness.Daemon) -> None:
    daemon.kill9()
    assert daemon.address.is_socket()
    daemon.start()
    assert call(daemon, CHECK)


def test_a_path_that_is_no_socket_stops_the_start_and_is_kept(place: Path) -> None:
    daemon = harness.Daemon(place)
    daemon.state.mkdir(mode=0o711)
    daemon.address.write_text("precious")
    with pytest.raises(harness.DaemonFailed, match="is not a socket"):
        daemon.start()
    assert daemon.address.read_text() == "precious"


def test_a_socket_directory_open_to_others_stops_the_start(place: Path) -> None:
    (place / "open").mkdir()
    (place / "open").chmod(0o777)
    with pytest.raises(harness.DaemonFailed, match="may be written by others"):
        harness.Daemon(place, flags=["--address", str(place / "open/x.sock")]).start()


def test_a_graceful_stop_removes_the_socket_and_leaves_with_zero(daemon: harness.Daemon) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        daemon.send(number)
        assert daemon.process is not None
        assert daemon.process.wait(15) == 0
        assert not daemon.address.exists()
        assert "unhandled" not in daemon.log()
        daemon.process = None
        daemon.start()


def test_a_stop_does_not_wait_for_streams_that_never_end(daemon: harness.Daemon) -> None:
    with grpc.insecure_channel(f"unix:{daemon.address}") as channel:
        stream = channel.unary_stream(WATCH, request_serializer=None, response_deserializer=None)(b"", timeout=30)
        next(stream)
        assert daemon.stop() == 0
        with pytest.raises(grpc.RpcError):
            next(stream)


def test_two_signals_leave_at_once(daemon: harness.Daemon) -> None:
    daemon.send(signal.SIGSTOP)
    daemon.send(signal.SIGTERM)
    daemon.send(signal.SIGINT)
    daemon.send(signal.SIGCONT)
    assert daemon.process is not None
    assert daemon.process.wait(15) in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_a_hangup_reloads_the_log_level_and_says_so(place: Path) -> None:
    daemon = harness.Daemon(place, flags=[])
    daemon.log_level = ""
    daemon.start()
    try:
        daemon.config_path.write_text('[log]\nlevel = "error"\n')
        daemon.send(signal.SIGHUP)
        _until_logged(daemon, "reloaded log_level=error")
        daemon.config_path.write_text('[log]\nlevel = "loud"\n')
        daemon.send(signal.SIGHUP)
        _until_logged(daemon, "reload refused")
        assert call(daemon, CHECK)

    finally:
        daemon.stop()


def _until_logged(daemon: harness.Daemon, text: str) -> None:
    leakcheck.settle(lambda: "" if text in daemon.log().replace('"', "") else f"not logged: {text}\n{daemon.log()}")


def test_a_log_pipe_that_nobody_reads_does_not_stop_the_service(place: Path) -> None:
    daemon = harness.Daemon(place, env={"GRPC_VERBOSITY": "NONE"})
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(writer, "wb", buffering=0) as full:
        while full.write(bytes(4096)):
            pass
        os.set_blocking(writer, True)
        daemon.log_target = full
        daemon.start()
        try:
            for _ in range(5):
                assert code_of(daemon, CHECK, health_pb2.HealthCheckRequest(service="x").SerializeToString())
            os.close(reader)
            assert call(daemon, CHECK)
        finally:
            assert daemon.stop() == 0


def test_systemd_is_told_that_it_is_ready_and_that_it_stops(place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(place / "notify"))
        listener.settimeout(10)
        daemon = harness.Daemon(place, env={"NOTIFY_SOCKET": str(place / "notify")})
        daemon.start()
        assert listener.recv(64) == b"READY=1"
        daemon.stop()
        assert listener.recv(64) == b"STOPPING=1"


def test_a_wrong_configuration_stops_the_start_with_one_line(place: Path) -> None:
    daemon = harness.Daemon(place, config="[grpc]\nport = 1\n")
    with pytest.raises(harness.DaemonFailed, match=r"ended with 1"):
        daemon.start()
    assert re.fullmatch(r"pydockd: .*config\.toml: grpc\.port: unknown key; .*\n", daemon.log())
    assert not daemon.root.exists()


def test_tcp_is_refused_and_the_docker_socket_not_served_is_said(place: Path) -> None:
    with pytest.raises(harness.DaemonFailed, match="plain TCP is refused"):
        harness.Daemon(place, flags=["--host", "tcp://127.0.0.1:2375"]).start()
    daemon = harness.Daemon(place, flags=["--host", f"unix://{place}/docker.sock"])
    daemon.start()
    daemon.stop()
    assert "the Docker API is not built in" in daemon.log()
    assert not (place / "docker.sock").exists()


def test_calls_leave_no_descriptor_behind(daemon: harness.Daemon) -> None:
    call(daemon, CHECK)
    with leakcheck.unchanged(daemon):
        for _ in range(20):
            call(daemon, CHECK)


def test_a_daemon_out_of_descriptors_recovers(daemon: harness.Daemon) -> None:
    import resource

    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (len(_descriptors(daemon.pid)) + 3, limits[1]))
    clients = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for client in clients:
        client.connect(str(daemon.address))
    for client in clients:
        client.close()
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
    assert call(daemon, CHECK)


def test_the_leak_check_sees_a_leak(daemon: harness.Daemon) -> None:
    before = leakcheck.take(daemon)
    os.mkfifo(daemon.state / "left")
    (daemon.root / ".tmp-left").write_text("")
    told = before.difference(leakcheck.take(daemon))
    assert f"+ sockets: {daemon.state}/left" in told
    assert f"+ temporaries: {daemon.root}/.tmp-left" in told
    (daemon.state / "left").unlink()
    (daemon.root / ".tmp-left").unlink()
    assert before.difference(leakcheck.take(daemon)) == ""
