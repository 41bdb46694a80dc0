"""The daemon's side of the launcher, against small processes that play its part."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
import time
from collections.abc import Callable

import pytest

from pydock_plugins.runtime import held, launcher

HEAD = "import json,os,signal,socket\ns=socket.socket(fileno=3)\n"
ECHO = HEAD + "while m:=s.recv(65536): s.send(json.dumps({'ok':True,'said':json.loads(m)}).encode())\n"


def playing(*scripts: str) -> Callable[[], launcher.Handle]:
    """A starter of launchers that run one script after the other, the last one for ever."""
    left = list(scripts)

    def start() -> launcher.Handle:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            script = left.pop(0) if len(left) > 1 else left[0]
            pid, pidfd = held.spawn([sys.executable, "-I", "-S", "-c", script], {launcher.CHILD_FD: theirs.fileno()})
        ours.setblocking(False)
        return launcher.Handle(ours, pid, pidfd, time.monotonic())

    return start


async def ask(daemon: launcher.Launcher, **request: object) -> dict[str, object]:
    return await daemon.answer(daemon.post(request))


async def test_answers_come_in_the_order_of_the_requests() -> None:
    async with launcher.Launcher(starter=playing(ECHO)) as daemon:
        replies = await asyncio.gather(*(ask(daemon, n=n) for n in range(50)))
        assert [reply["said"] for reply in replies] == [{"n": n} for n in range(50)]


async def test_a_refusal_carries_its_words() -> None:
    script = HEAD + 's.recv(65536); s.send(b\'{"ok":false,"error":"no memory"}\'); s.recv(1)\n'
    async with launcher.Launcher(starter=playing(script)) as daemon:
        with pytest.raises(launcher.Refused, match="no memory"):
            await ask(daemon)


async def test_a_launcher_killed_under_a_request_is_lost_and_the_next_request_gets_a_new_one() -> None:
    script = HEAD + "s.recv(65536); os.kill(os.getpid(),9)\n"
    async with launcher.Launcher(starter=playing(script, ECHO)) as daemon:
        with pytest.raises(launcher.Lost):
            await ask(daemon)
        assert (await ask(daemon, n=1))["ok"]


async def test_a_launcher_that_hangs_is_killed_after_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "REQUEST_SECONDS", 0.05)
    async with launcher.Launcher(starter=playing(HEAD + "signal.pause()\n", ECHO)) as daemon:
        first = daemon.pid
        with pytest.raises(launcher.Lost, match="did not answer"):
            await ask(daemon)
        monkeypatch.setattr(launcher, "REQUEST_SECONDS", 5)
        while daemon.pid == first:
            await asyncio.sleep(0)
        assert (await ask(daemon))["ok"]


@pytest.mark.parametrize("noise", ["b'not json'", "b'[]'"])
async def test_a_launcher_that_talks_nonsense_is_replaced(noise: str) -> None:
    async with launcher.Launcher(starter=playing(HEAD + f"s.recv(65536); s.send({noise}); signal.pause()\n", ECHO)) as daemon:
        with pytest.raises(launcher.Lost):
            await ask(daemon)
        assert (await ask(daemon))["ok"]


async def test_leaving_ends_the_launcher_and_leaks_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with launcher.Launcher(starter=playing(ECHO)) as daemon:
        await ask(daemon)
        pidfd = os.pidfd_open(daemon.pid)
    while held.is_alive(pidfd):
        await asyncio.sleep(0)
    held.reap(pidfd)
    os.close(pidfd)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_child_inherits_what_is_named_and_nothing_else() -> None:
    reader, writer = os.pipe()
    other = os.open("/dev/null", os.O_RDONLY)
    os.environ["SECRET_TOKEN"] = "x"
    script = "import os; os.write(3, repr((sorted(os.listdir('/proc/self/fd')), 'SECRET_TOKEN' in os.environ)).encode())"
    _, pidfd = held.spawn([sys.executable, "-I", "-S", "-c", script], {3: writer})
    os.close(writer)
    fds, secret = eval(os.read(reader, 4096))
    held.end(pidfd)
    for fd in (reader, other, pidfd):
        os.close(fd)
    del os.environ["SECRET_TOKEN"]
    assert fds == ["0", "1", "2", "3", "4"]  # 4 is the listing's own
    assert not secret


def test_a_process_is_held_only_by_its_start_time() -> None:
    pid = os.getpid()
    ticks = held.start_ticks(pid)
    pidfd = held.hold(pid, ticks)
    assert pidfd >= 0 and held.is_alive(pidfd)
    os.close(pidfd)
    assert held.hold(pid, ticks + 1) == -1
    assert held.hold(0, 0) == -1
    assert held.hold(1 << 22, 1) == -1


def test_out_of_descriptors_a_process_is_not_taken_for_dead() -> None:
    pid = os.getpid()
    ticks = held.start_ticks(pid)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            held.hold(pid, ticks)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
