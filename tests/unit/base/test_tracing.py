"""Spans."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pydock.base import tracing


@pytest.fixture
def spans() -> Iterator[list[tracing.Span]]:
    found: list[tracing.Span] = []
    tracing.record(found.append)
    yield found
    tracing.record(None)


@tracing.traced("step")
async def step(value: int) -> int:
    return value


def test_nothing_is_made_while_tracing_is_off() -> None:
    with tracing.span("x") as made:
        assert made is None


async def test_steps_belong_to_what_they_are_part_of_over_tasks_too(spans: list[tracing.Span]) -> None:
    with tracing.span("whole", {"a": "b"}):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(step(7))
    inner, outer = spans
    assert task.result() == 7
    assert (inner.name, outer.name, outer.attributes) == ("step", "whole", {"a": "b"})
    assert (inner.trace, inner.parent, outer.parent) == (outer.trace, outer.id, "")
    assert 0 < outer.start <= inner.start <= inner.end <= outer.end


def test_two_wholes_are_two_traces(spans: list[tracing.Span]) -> None:
    for _ in range(2):
        with tracing.span("whole"):
            pass
    assert spans[0].trace != spans[1].trace


def test_a_failure_is_told_and_passed_on(spans: list[tracing.Span]) -> None:
    with pytest.raises(ValueError, match="no good"), tracing.span("x"):
        raise ValueError("no good")
    assert spans[0].error == "no good"


def test_a_clients_trace_is_gone_on_with(spans: list[tracing.Span]) -> None:
    with tracing.span("x", traceparent=f"00-{'a' * 32}-{'b' * 16}-01"):
        pass
    assert (spans[0].trace, spans[0].parent, spans[0].serves) == ("a" * 32, "b" * 16, True)


@pytest.mark.parametrize(
    "header", ["", "x", f"00-{'0' * 32}-{'b' * 16}-01", f"ff-{'a' * 32}-{'b' * 16}-01", f"00-{'A' * 32}-{'b' * 16}-01"]
)
def test_a_header_that_is_none_begins_a_trace(spans: list[tracing.Span], header: str) -> None:
    with tracing.span("x", traceparent=header):
        pass
    assert spans[0].parent == ""
    assert len(spans[0].trace) == 32
