"""Background loops that fail are seen and started again."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from pydock.daemon import supervisor


class FakeTime:
    """A clock that moves only by sleeping, or as a loop says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


async def test_a_failing_loop_is_logged_and_restarted_after_growing_pauses(caplog: pytest.LogCaptureFixture) -> None:
    time = FakeTime()
    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs <= 12:
            raise OSError("again")

    await supervisor.BackOff(time.sleep, lambda: time.now).keep("looper", loop)
    assert time.pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert time.pauses[-1] == supervisor.LONGEST_PAUSE
    assert len([one for one in caplog.records if one.exc_info]) == 12


async def test_a_loop_that_ran_well_for_long_is_restarted_soon() -> None:
    time = FakeTime()
    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs == 4:
            time.now += supervisor.CALM
        if runs <= 4:
            raise OSError("again")

    await supervisor.BackOff(time.sleep, lambda: time.now).keep("looper", loop)
    assert time.pauses == [0.1, 0.2, 0.4, 0.1]


async def test_cancelling_ends_a_kept_loop() -> None:
    async def loop() -> None:
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervisor.BackOff().keep("looper", loop))
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()


async def test_the_failure_of_a_task_that_nobody_awaits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    supervisor.watch(loop)
    future = loop.create_future()
    future.set_exception(OSError("forgotten"))
    del future
    gc.collect()
    assert any(one.exc_info and "forgotten" in str(one.exc_info[1]) for one in caplog.records if one.levelno == logging.ERROR)
