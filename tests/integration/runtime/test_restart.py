"""Tasks outlive the daemon, and the daemon outlives shims: adoption, missed exits, dead and hung shims.

A daemon here is one runtime in this process; leaving its block is its end.  What a ``kill -9`` of a real daemon process adds is tested
with the whole daemon (tests/integration/restart).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import Any

import pytest

from pydock.base import errors
from pydock.core import tasks
from pydock_plugins.runtime import tending

pytestmark = pytest.mark.root

NS = "default"


async def test_running_tasks_and_execs_are_found_again(place: Any) -> None:
    async with place.daemon() as run:
        pids = [await place.start(run, f"web{n}", "sleep", "1000") for n in range(3)]
        await place.exec(run, "web0", "job", "sleep", "1000")
        job = await run.verbs.start(NS, "web0", "job")
        await place.exec(run, "web0", "later", "sh", "-c", "exit 6")
    async with place.daemon() as run:
        assert [(found.pid, found.status) for found in await run.verbs.list(NS)] == [(pid, tasks.Status.RUNNING) for pid in pids]
        assert (await run.verbs.get(NS, "web0", "job")).pid == job
        assert (await run.verbs.get(NS, "web0", "later")).status is tasks.Status.CREATED
        await run.verbs.start(NS, "web0", "later")
        assert (await run.verbs.wait(NS, "web0", "later")).status == 6
        await place.until(lambda: run.heard.exits() == [("web0", "later", 6)])
        await place.stop(run, "web0", "web1", "web2")


async def test_an_exit_while_no_daemon_ran_is_told_once_with_its_true_status_and_time(place: Any) -> None:
    async with place.daemon() as run:
        pid = await place.start(run, "web", "sh", "-c", "trap 'exit 9' TERM; while true; do sleep 0.01; done")
        await asyncio.sleep(0.2)  # the shell needs a moment to set its trap; there is nothing to see it by
    before = time.time_ns()
    os.kill(pid, signal.SIGTERM)
    await place.until(lambda: list(place.bundles.glob("*/web/exit.json")))
    after = time.time_ns()
    async with place.daemon() as run:
        end = await run.verbs.wait(NS, "web")
        assert end.status == 9
        assert before < end.exited_at < after
        await place.until(lambda: run.heard.exits())
    async with place.daemon() as again:
        assert (await again.verbs.get(NS, "web")).exit_status == 9
        assert (await again.verbs.delete(NS, "web")).status == 9
        await place.until(lambda: "/tasks/delete" in again.heard.topics())
    assert run.heard.exits() == [("web", "web", 9)]
    assert again.heard.exits() == []


async def test_a_shim_that_is_killed_ends_its_container_with_137_told_once(place: Any) -> None:
    async with place.daemon() as run:
        pid = await place.start(run, "web", "sleep", "1000")
        await place.exec(run, "web", "job", "sleep", "1000")
        await run.verbs.start(NS, "web", "job")
        waiting = asyncio.ensure_future(run.verbs.wait(NS, "web", "job"))
        await asyncio.sleep(0)
        os.kill(place.shims()["web"], signal.SIGKILL)
        assert (await waiting).status == 137
        assert (await run.verbs.wait(NS, "web")).status == 137
        assert not place.lives(pid)
        found = await run.verbs.get(NS, "web")
        assert (found.status, found.exit_status, found.pid) == (tasks.Status.STOPPED, 137, pid)
        with pytest.raises(errors.NotFound, match="process already finished"):
            await run.verbs.kill(NS, "web", "", signal.SIGTERM)
        assert run.heard.exits() == [("web", "job", 137), ("web", "web", 137)]
    async with place.daemon() as run:
        assert (await run.verbs.delete(NS, "web")).status == 137
        assert run.heard.topics() == ["/tasks/delete"]
        await place.until(lambda: not place.left()["cgroups"])
        await place.start(run, "web", "sleep", "1000")
        await place.stop(run, "web")


@pytest.mark.parametrize("state", ["created", "paused", "stopped"])
async def test_a_shim_killed_in_any_state_leaves_a_task_that_can_be_deleted(place: Any, state: str) -> None:
    async with place.daemon() as run:
        await place.create(run, "web", "sleep", "1000")
        if state != "created":
            await run.verbs.start(NS, "web")
        if state == "paused":
            await run.verbs.pause(NS, "web")
        if state == "stopped":
            await run.verbs.kill(NS, "web", "", signal.SIGKILL)
            await run.verbs.wait(NS, "web")
        os.kill(place.shims()["web"], signal.SIGKILL)
        assert (await run.verbs.wait(NS, "web")).status == 137
        await place.until(lambda: len(run.heard.exits()) == 1)
        await run.verbs.delete(NS, "web")
        left = place.left()
        assert (left["cgroups"], [name for name in left["files"] if "/web" in name]) == ([], [])


async def test_shim_and_init_that_died_while_no_daemon_ran_are_one_end(place: Any) -> None:
    async with place.daemon() as run:
        pid = await place.start(run, "web", "sleep", "1000")
        shim = place.shims()["web"]
    os.kill(shim, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    async with place.daemon() as run:
        assert (await run.verbs.wait(NS, "web")).status == 137
        await place.until(lambda: run.heard.exits() == [("web", "web", 137)])
        await run.verbs.delete(NS, "web")
        await place.start(run, "web", "sleep", "1000")
        await place.stop(run, "web")


async def test_a_container_whose_shim_died_while_no_daemon_ran_is_ended(place: Any) -> None:
    async with place.daemon() as run:
        pid = await place.start(run, "web", "sleep", "1000")
        shim = place.shims()["web"]
    os.kill(shim, signal.SIGKILL)
    async with place.daemon() as run:
        end = await run.verbs.wait(NS, "web")
        assert (end.pid, end.status) == (pid, 137)
        assert not place.lives(pid)
        await run.verbs.delete(NS, "web")


async def test_a_pid_that_belongs_to_somebody_else_now_is_not_touched(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "web", "sleep", "1000")
    stranger = await asyncio.create_subprocess_exec("sleep", "1000")
    (shim_json,) = place.bundles.glob("*/web/shim.json")
    known = json.loads(shim_json.read_text())
    shim_json.write_text(json.dumps({**known, "pid": stranger.pid}))
    os.kill(known["pid"], signal.SIGKILL)
    async with place.daemon() as run:
        assert (await run.verbs.wait(NS, "web")).status == 137
        await run.verbs.delete(NS, "web")
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_a_hung_shim_delays_neither_the_start_nor_other_tasks_and_comes_back(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tending, "LOAD_SECONDS", 0.3)
    async with place.daemon() as run:
        hung = await place.start(run, "hung", "sleep", "1000")
        await place.start(run, "web", "sleep", "1000")
        shim = place.shims()["hung"]
    os.killpg(shim, signal.SIGSTOP)
    async with place.daemon() as run:
        assert (await run.verbs.get(NS, "web")).status is tasks.Status.RUNNING
        states = {found.container_id: found.status for found in await run.verbs.list(NS)}
        assert states == {"hung": tasks.Status.UNKNOWN, "web": tasks.Status.RUNNING}
        os.killpg(shim, signal.SIGCONT)
        record = run.verbs._records.find(NS, "hung")
        await place.until(lambda: record.processes[""].status is tasks.Status.RUNNING)
        assert (await run.verbs.get(NS, "hung")).pid == hung
        await place.stop(run, "hung", "web")


async def test_a_task_cut_off_while_it_was_made_is_gone_with_everything(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "web", "sleep", "1000")
        (place.bundles / NS / "half").mkdir(mode=0o700)
        (place.bundles / NS / "half" / "config.json").write_text("{}")
    async with place.daemon() as run:
        await place.until(lambda: not (place.bundles / NS / "half").exists())
        assert [found.container_id for found in await run.verbs.list(NS)] == ["web"]
        await place.stop(run, "web")


async def test_a_connection_that_breaks_is_made_again(place: Any) -> None:
    async with place.daemon() as run:
        pid = await place.start(run, "web", "sleep", "1000")
        waiting = asyncio.ensure_future(run.verbs.wait(NS, "web"))
        await asyncio.sleep(0)
        record = run.verbs._records.find(NS, "web")
        record.shim._link._transport.abort()
        await asyncio.sleep(0)
        assert (await run.verbs.get(NS, "web")).pid == pid
        await run.verbs.kill(NS, "web", "", signal.SIGKILL)
        assert (await waiting).status == 137
        await run.verbs.delete(NS, "web")


async def test_twenty_tasks_survive_ten_daemons(place: Any) -> None:
    ids = [f"web{n}" for n in range(20)]
    async with place.daemon() as run:
        pids = await asyncio.gather(*(place.start(run, id, "sleep", "1000") for id in ids))
    for _ in range(10):
        async with place.daemon() as run:
            assert sorted(found.pid for found in await run.verbs.list(NS)) == sorted(pids)
    async with place.daemon() as run:
        await place.stop(run, *ids)
        await place.until(lambda: sorted(run.heard.exits()) == sorted((id, id, 137) for id in ids))
        await place.until(lambda: not run.verbs._records.all() and not place.left()["cgroups"])


async def test_a_shim_without_a_bundle_is_ended_and_its_socket_removed(place: Any) -> None:
    async with place.daemon() as run:
        launcher, sockets, bundle = run.verbs._parts.launcher, run.verbs._parts.sockets, place.base / "lost"
        bundle.mkdir()
        request = {"op": "spawn", "namespace": NS, "id": "lost", "socket": str(sockets / "lost"), "bundle": str(bundle), "events": ""}
        shim = (await launcher.answer(launcher.post({**request, "runtime_root": str(place.base / "r")})))["pid"]
    (sockets / "dead").touch()
    async with place.daemon():
        await place.until(lambda: not list(sockets.iterdir()) and not place.lives(shim))
