"""Locks by name."""

from __future__ import annotations

import asyncio

import pytest

from pydock.base import locks


async def test_one_key_is_held_by_one_at_a_time_and_in_order() -> None:
    keyed, order = locks.Keyed(), []

    async def work(number: int) -> None:
        async with keyed.hold("k"):
            order.append(number)
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(work(number) for number in range(3)))
    assert order == [0, 0, 1, 1, 2, 2]
    assert len(keyed) == 0


async def test_other_keys_are_not_kept_waiting() -> None:
    keyed = locks.Keyed()
    async with keyed.hold("a"), keyed.hold("b"):
        assert len(keyed) == 2
    assert len(keyed) == 0


async def test_a_waiter_that_is_cancelled_leaves_nothing() -> None:
    keyed = locks.Keyed()

    async def wait() -> None:
        async with keyed.hold("k"):
            raise AssertionError("never held")

    async with keyed.hold("k"):
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(wait())
            await asyncio.sleep(0)
            waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            waiter.result()
    assert len(keyed) == 0
