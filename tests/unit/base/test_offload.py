"""Blocking work in threads, waited for to its end."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from pydock.base import offload

RUNNERS = pytest.mark.parametrize("run", [offload.run, offload.dedicated])
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


@RUNNERS
async def test_a_result_comes_back_from_another_thread_with_the_callers_context(run: object) -> None:
    variable.set("mine")
    result = await run(lambda *args: (*args, threading.get_ident(), variable.get()), 1, 2)  # type: ignore[operator]
    assert result[:2] == (1, 2)
    assert result[2] != threading.get_ident()
    assert result[3] == "mine"


@RUNNERS
async def test_an_error_comes_back_as_itself(run: object) -> None:
    with pytest.raises(ZeroDivisionError):
        await run(lambda: 1 // 0)  # type: ignore[operator]


@RUNNERS
async def test_a_cancelled_caller_waits_for_the_thread_and_is_then_cancelled(run: object) -> None:
    begun, release, log = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        release.wait()
        log.append("thread done")

    async def caller() -> None:
        try:
            await run(work)  # type: ignore[operator]
        finally:
            log.append("caller done")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(caller())
        await offload.dedicated(begun.wait)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        release.set()
    assert task.cancelled()
    assert log == ["thread done", "caller done"]


async def test_work_that_waits_for_work_has_threads_of_its_own() -> None:
    gate = threading.Barrier(offload.WORKERS + 5)
    await asyncio.wait_for(asyncio.gather(*(offload.dedicated(gate.wait) for _ in range(offload.WORKERS + 5))), 10)


async def test_pool_work_that_did_not_begin_is_dropped_by_a_cancellation() -> None:
    release, ran = threading.Event(), []
    async with asyncio.TaskGroup() as group:
        for _ in range(offload.WORKERS):
            group.create_task(offload.run(release.wait))
        await asyncio.sleep(0)
        late = group.create_task(offload.run(ran.append, 1))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.wait([late])
        assert late.cancelled()
        release.set()
    assert ran == []
