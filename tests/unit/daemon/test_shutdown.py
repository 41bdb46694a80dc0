"""The end of the daemon: once gracefully, twice at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock.daemon import shutdown


@pytest.fixture(autouse=True)
def no_alarm() -> Iterator[None]:
    yield
    signal.alarm(0)


def current() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def test_the_first_signal_ends_the_wait_and_sets_a_deadline() -> None:
    left: list[int] = []
    stop = shutdown.Stop(current(), left.append)
    asyncio.get_running_loop().call_soon(stop.ask, signal.SIGTERM)
    await stop.wait()
    assert 0 < signal.alarm(0) <= shutdown.LONGEST_SECONDS
    assert left == []


async def test_the_second_signal_leaves_at_once() -> None:
    left: list[int] = []
    stop = shutdown.Stop(current(), left.append)
    asyncio.get_running_loop().call_soon(stop.ask, signal.SIGTERM)
    await stop.wait()
    stop.ask(signal.SIGINT)
    assert left == [128 + signal.SIGINT]


async def test_a_signal_during_the_start_cancels_it() -> None:
    async def starting() -> None:
        stop = shutdown.Stop(current())
        asyncio.get_running_loop().call_soon(stop.ask, signal.SIGTERM)
        await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await starting()
    current().uncancel()


def test_systemd_is_told_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        shutdown.notify("READY=1")
        assert listener.recv(64) == b"READY=1"
    shutdown.notify("READY=1")  # nobody listens any more: no error


def test_readiness_is_told_once_through_the_pipe_and_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    monkeypatch.setenv("PYDOCK_READY_FD", str(writer))
    readiness = shutdown.Readiness()
    assert not os.get_inheritable(writer)
    assert "PYDOCK_READY_FD" not in os.environ
    readiness.tell()
    readiness.tell()
    assert os.read(reader, 64) == b"ready\n"
    assert os.read(reader, 64) == b""
    os.close(reader)
