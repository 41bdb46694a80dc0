"""Tasks under real shims and a real OCI runtime."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import Any

import pytest

from pydock.base import errors
from pydock.core import containers, tasks

pytestmark = pytest.mark.root

NS = "default"


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)])
async def test_a_task_ends_with_the_status_of_its_init(place: Any, script: str, status: int) -> None:
    async with place.daemon() as run:
        await place.create(run, "web", "sh", "-c", script)
        waiting = asyncio.ensure_future(run.verbs.wait(NS, "web"))
        pid = await run.verbs.start(NS, "web")
        # A pid namespace's init cannot kill itself by default: the kernel drops the signal and the shell goes on to its end.
        expected = 0 if "kill" in script else status
        end = await waiting
        assert (end.pid, end.status) == (pid, expected)
        assert (await run.verbs.get(NS, "web")).status is tasks.Status.STOPPED
        assert (await run.verbs.delete(NS, "web")).status == expected
        with pytest.raises(errors.NotFound, match="task web"):
            await run.verbs.get(NS, "web")


async def test_a_killed_init_ends_with_137(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "web", "sleep", "1000")
        waiting = asyncio.ensure_future(run.verbs.wait(NS, "web"))
        await run.verbs.kill(NS, "web", "", signal.SIGKILL)
        assert (await waiting).status == 137
        with pytest.raises(errors.NotFound):
            await run.verbs.kill(NS, "web", "", signal.SIGTERM)
        await run.verbs.delete(NS, "web")


async def test_an_exec_has_an_end_of_its_own(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "web", "sleep", "1000")
        await place.exec(run, "web", "job", "sh", "-c", "exit 3")
        assert (await run.verbs.get(NS, "web", "job")).status is tasks.Status.CREATED
        with pytest.raises(errors.AlreadyExists):
            await place.exec(run, "web", "job", "true")
        waiting = asyncio.ensure_future(run.verbs.wait(NS, "web", "job"))
        await run.verbs.start(NS, "web", "job")
        assert (await waiting).status == 3
        assert (await run.verbs.delete_process(NS, "web", "job")).status == 3
        with pytest.raises(errors.NotFound):
            await run.verbs.get(NS, "web", "job")
        assert (await run.verbs.get(NS, "web")).status is tasks.Status.RUNNING
        await place.stop(run, "web")


async def test_an_exec_that_cannot_run_says_so_and_can_be_deleted(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "web", "sleep", "1000")
        await place.exec(run, "web", "job", "no-such-program")
        with pytest.raises(errors.PydockError, match="no-such-program"):
            await run.verbs.start(NS, "web", "job")
        await run.verbs.delete_process(NS, "web", "job")
        await place.stop(run, "web")


async def test_pausing_shows_and_ends(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "web", "sleep", "1000")
        await run.verbs.pause(NS, "web")
        assert (await run.verbs.get(NS, "web")).status is tasks.Status.PAUSED
        await run.verbs.resume(NS, "web")
        assert (await run.verbs.list(NS))[0].status is tasks.Status.RUNNING
        await place.stop(run, "web")


async def test_pids_and_figures_of_a_task(place: Any) -> None:
    async with place.daemon() as run:
        pid = await place.start(run, "web", "sleep", "1000")
        assert pid in [found.pid for found in await run.verbs.pids(NS, "web")]
        (metric,) = await run.verbs.metrics(NS, ["web"])
        assert metric.id == "web"
        assert metric.data.type_url.endswith(".Metrics")
        await place.stop(run, "web")


async def test_a_created_task_can_be_deleted_without_ever_running(place: Any) -> None:
    async with place.daemon() as run:
        await place.create(run, "web", "sleep", "1000")
        assert (await run.verbs.get(NS, "web")).status is tasks.Status.CREATED
        await run.verbs.delete(NS, "web")
        assert await run.verbs.list(NS) == []


async def test_an_id_is_taken_once_and_free_again_after_deletion(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "web", "sleep", "1000")
        with pytest.raises(errors.AlreadyExists, match="task web: already exists"):
            await place.create(run, "web", "true")
        await place.stop(run, "web")
        await place.start(run, "web", "sleep", "1000")
        await place.stop(run, "web")


async def test_a_running_task_is_not_deleted(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "web", "sleep", "1000")
        with pytest.raises(errors.FailedPrecondition):
            await run.verbs.delete(NS, "web")
        assert (await run.verbs.get(NS, "web")).status is tasks.Status.RUNNING
        await place.stop(run, "web")


async def test_events_of_a_task_come_in_order_and_once(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "web", "sh", "-c", "exit 5")
        await run.verbs.wait(NS, "web")
        await run.verbs.delete(NS, "web")
        await place.until(lambda: "/tasks/delete" in run.heard.topics())
        assert run.heard.topics() == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
        assert run.heard.exits() == [("web", "web", 5)]


async def test_a_container_that_cannot_be_made_leaves_nothing(place: Any) -> None:
    async with place.daemon() as run:
        for _ in range(3):
            with pytest.raises(errors.PydockError, match=r"failed to create shim task: .*no-such-program"):
                await place.create(run, "web", "no-such-program")
        assert await run.verbs.list(NS) == []
        assert not place.shims() and not list(place.bundles.glob("*/*"))
        await place.start(run, "web", "sleep", "1000")
        await place.stop(run, "web")


@pytest.mark.parametrize("spec", [b"", b"[]", b"{", b"\xff"])
async def test_a_spec_that_is_no_json_object_is_an_invalid_argument(place: Any, spec: bytes) -> None:
    container = containers.Container("web", spec=containers.Any("spec", spec))
    async with place.daemon() as run:
        with pytest.raises(errors.InvalidArgument):
            await run.verbs.create(NS, container, place.creation("web"))
        assert not place.shims() and not list(place.bundles.glob("*/*"))


@pytest.mark.parametrize("id", ["", "../up", "a/b", "-dash", "x" * 77])
async def test_an_id_out_of_its_grammar_is_an_invalid_argument(place: Any, id: str) -> None:
    async with place.daemon() as run:
        with pytest.raises(errors.InvalidArgument):
            await place.create(run, id, "true")


async def test_a_client_that_leaves_while_its_task_is_made_leaves_nothing(place: Any) -> None:
    async with place.daemon() as run:
        for turns in range(0, 40, 4):
            making = asyncio.ensure_future(place.create(run, "web", "sleep", "1000"))
            for _ in range(turns):
                await asyncio.sleep(0)
            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making
            assert await run.verbs.list(NS) == []
            assert not place.shims() and not list(place.bundles.glob("*/*"))


async def test_a_full_state_directory_is_a_typed_error_and_the_next_try_works(place: Any) -> None:
    place.bundles.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=4", "full", place.bundles], check=True)
    try:
        async with place.daemon() as run:
            with pytest.raises(errors.ResourceExhausted, match="No space left on device"):
                await place.create(run, "web", "true")
            assert not list(place.bundles.glob("*/*"))
            subprocess.run(["mount", "-o", "remount,nr_inodes=1000", place.bundles], check=True)
            await place.start(run, "web", "sleep", "1000")
            await place.stop(run, "web")
    finally:
        subprocess.run(["umount", "--lazy", place.bundles], check=True)


async def test_a_launcher_that_is_killed_costs_nobody_anything(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "web", "sleep", "1000")
        launcher = run.verbs._parts.launcher
        first = launcher.pid
        making = [asyncio.ensure_future(place.start(run, f"web{n}", "sleep", "1000")) for n in range(4)]
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        await asyncio.gather(*making)
        assert launcher.pid not in (0, first)
        assert [process.status for process in await run.verbs.list(NS)] == [tasks.Status.RUNNING] * 5
        await place.stop(run, "web", *(f"web{n}" for n in range(4)))
        await place.until(lambda: not place.left()["processes"])


async def test_a_stopped_shim_delays_its_own_task_only(place: Any) -> None:
    async with place.daemon() as run:
        await place.start(run, "hung", "sleep", "1000")
        await place.start(run, "web", "sleep", "1000")
        shim = place.shims()["hung"]
        os.killpg(shim, signal.SIGSTOP)
        try:
            assert len(await run.verbs.list(NS)) == 2
            assert [metric.id for metric in await run.verbs.metrics(NS, [])] == ["web"]
            waiting = asyncio.ensure_future(run.verbs.kill(NS, "hung", "", signal.SIGKILL))
            await place.stop(run, "web")
            assert not waiting.done()
        finally:
            os.killpg(shim, signal.SIGCONT)
        await waiting
        await place.stop(run, "hung")


async def test_fifty_rounds_leak_nothing(place: Any) -> None:
    async with place.daemon() as run:
        await once(run, place, "first")
        await place.until(lambda: not place.shims() and len(run.verbs._records.all()) == 0)
        before = place.left()
        for _ in range(25):
            await asyncio.gather(once(run, place, "one"), once(run, place, "two"))
        await place.until(lambda: len(run.verbs._records.all()) == 0 and len(run.heard.exits()) == 102)
        assert place.left() == before
        assert sorted(set(run.heard.exits())) == sorted(
            (id, end, status) for id in ("first", "one", "two") for end, status in ((id, 137), ("job", 4))
        )


async def once(run: Any, place: Any, id: str) -> None:
    """One task with one exec, from birth to deletion."""
    await place.start(run, id, "sleep", "1000")
    await place.exec(run, id, "job", "sh", "-c", "exit 4")
    await run.verbs.start(NS, id, "job")
    assert (await run.verbs.wait(NS, id, "job")).status == 4
    await run.verbs.delete_process(NS, id, "job")
    await run.verbs.kill(NS, id, "", signal.SIGKILL)
    assert (await run.verbs.wait(NS, id)).status == 137
    await run.verbs.delete(NS, id)
