"""Shared flushes."""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import Any

import pytest

from pydock.base import groupsync


class Disk:
    """A flush that stands still until it is let go, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.fails = 0
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)

    def flush(self) -> None:
        self.begun.release()
        self.let_go.acquire()
        self.count += 1
        if self.fails:
            self.fails -= 1
            raise OSError(errno.EIO, "lost")


async def begun(disk: Disk) -> None:
    await asyncio.to_thread(disk.begun.acquire)


async def start(group: asyncio.TaskGroup, shared: groupsync.Shared, number: int) -> list[asyncio.Task[None]]:
    tasks = [group.create_task(shared.run()) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


async def test_those_who_come_during_a_flush_share_the_next_one() -> None:
    disk = Disk()
    shared = groupsync.Shared(disk.flush)
    async with asyncio.TaskGroup() as group:
        await start(group, shared, 1)
        await begun(disk)
        late = await start(group, shared, 10)
        disk.let_go.release()
        await begun(disk)
        assert not any(task.done() for task in late)
        disk.let_go.release()
    assert disk.count == 2


async def test_a_failure_reaches_all_who_waited_for_it_and_nobody_else() -> None:
    disk = Disk()
    shared = groupsync.Shared(disk.flush)

    async def outcome() -> int | None:
        try:
            await shared.run()
        except OSError as error:
            return error.errno
        return None

    async with asyncio.TaskGroup() as group:
        first = group.create_task(outcome())
        await begun(disk)
        late = [group.create_task(outcome()) for _ in range(3)]
        await asyncio.sleep(0)
        disk.let_go.release()
        await begun(disk)
        disk.fails = 1
        disk.let_go.release()
    assert first.result() is None
    assert [task.result() for task in late] == [errno.EIO] * 3
    disk.let_go.release()
    await shared.run()


async def test_when_the_leader_is_cancelled_the_others_still_get_their_flush() -> None:
    disk = Disk()
    shared = groupsync.Shared(disk.flush)
    async with asyncio.TaskGroup() as group:
        await start(group, shared, 1)
        await begun(disk)
        leader, *others = await start(group, shared, 3)
        leader.cancel()
        disk.let_go.release(2)
        done: Any = await asyncio.gather(leader, *others, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [None, None]
    assert disk.count == 2


async def test_a_cancelled_follower_does_not_disturb_the_flush() -> None:
    disk = Disk()
    shared = groupsync.Shared(disk.flush)
    leader = asyncio.ensure_future(shared.run())
    await begun(disk)
    second = asyncio.ensure_future(shared.run())
    follower = asyncio.ensure_future(shared.run())
    await asyncio.sleep(0)
    follower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follower
    disk.let_go.release(2)
    await asyncio.gather(leader, second)
    assert disk.count == 2
