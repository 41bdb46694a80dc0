"""Groups that fail as their task does, and work that is finished although somebody leaves."""

from __future__ import annotations

import asyncio

import pytest

from pydock.base import errors, groups


async def test_the_first_failure_comes_out_bare() -> None:
    async def fail(name: str, after: int) -> None:
        for _ in range(after):
            await asyncio.sleep(0)
        raise errors.NotFound(name)

    with pytest.raises(errors.NotFound) as caught:
        async with groups.group() as tasks:
            tasks.create_task(fail("late", 9))
            tasks.create_task(fail("early", 1))
    assert caught.value.detail == "early"
    assert isinstance(caught.value.__cause__, BaseExceptionGroup)


async def test_a_failure_of_the_body_comes_out_bare() -> None:
    with pytest.raises(errors.Aborted):
        async with groups.group() as tasks:
            tasks.create_task(asyncio.Event().wait())
            raise errors.Aborted("body")


async def test_finished_work_gives_its_result_or_its_failure() -> None:
    async def work(good: bool) -> int:
        await asyncio.sleep(0)
        if not good:
            raise errors.NotFound("x")
        return 5

    assert await groups.finish(work(True)) == 5
    with pytest.raises(errors.NotFound):
        await groups.finish(work(False))


async def test_a_cancellation_waits_for_what_is_to_be_finished() -> None:
    begun, may_end, done = asyncio.Event(), asyncio.Event(), []

    async def clean() -> None:
        begun.set()
        await may_end.wait()
        done.append("clean")

    async def leave() -> None:
        await groups.finish(clean())
        done.append("not reached")

    task = asyncio.create_task(leave())
    await begun.wait()
    for _ in range(3):  # however often
        task.cancel()
        await asyncio.sleep(0)
    assert done == []
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["clean"]


async def test_a_failure_of_what_is_finished_is_not_lost_to_a_cancellation() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def clean() -> None:
        begun.set()
        await may_end.wait()
        raise errors.Internal("disk")

    task = asyncio.create_task(groups.finish(clean()))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(errors.Internal):
        await task
