"""The exchange."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from pydock.base import errors
from pydock.core import containers, events
from pydock.domain import events as domain


class Packer:
    """Packs an event as its representation; its one field is ``name``."""

    def pack(self, event: events.Event) -> containers.Any:
        return containers.Any(type(event).__name__, repr(event).encode())

    def field(self, event: containers.Any, path: tuple[str, ...]) -> str | None:
        return event.type_url if path == ("name",) else None


def _exchange(limit: int = 100) -> domain.Exchange:
    return domain.Exchange(Packer(), limit=limit, now=lambda: 42)


def _topic(exchange: domain.Exchange, topic: str, ns: str = "default") -> None:
    exchange.publish_packed(ns, topic, containers.Any("x", b""))


async def _take(envelopes: AsyncIterator[events.Envelope], count: int) -> list[events.Envelope]:
    return [await asyncio.wait_for(anext(envelopes), 5) for _ in range(count)]


async def test_an_event_is_packed_stamped_and_delivered() -> None:
    exchange = _exchange()
    async with exchange.subscribe() as envelopes:
        exchange.publish("moby", events.ImageDelete("busybox"))
        [found] = await _take(envelopes, 1)
    assert (found.timestamp, found.namespace, found.topic) == (42, "moby", "/images/delete")
    assert found.event.type_url == "ImageDelete"


async def test_every_subscriber_sees_the_same_order() -> None:
    exchange = _exchange()
    async with exchange.subscribe() as one, exchange.subscribe() as other:
        for number in range(70):
            _topic(exchange, f"/t/{number}")
        assert await _take(one, 70) == await _take(other, 70)


async def test_a_waiting_subscriber_is_woken() -> None:
    exchange = _exchange()
    async with exchange.subscribe() as envelopes, asyncio.TaskGroup() as group:
        waiting = group.create_task(_take(envelopes, 1))
        await asyncio.sleep(0)
        _topic(exchange, "/late")
    assert waiting.result()[0].topic == "/late"


async def test_what_happened_before_is_not_delivered() -> None:
    exchange = _exchange()
    _topic(exchange, "/before")
    async with exchange.subscribe() as envelopes:
        _topic(exchange, "/after")
        assert [item.topic for item in await _take(envelopes, 1)] == ["/after"]


@pytest.mark.parametrize(
    ("filters", "topics"),
    [
        ((), ["/a/x", "/b/y", "/b/z"]),
        (('topic=="/b/y"',), ["/b/y"]),
        (("topic~=|^/b/|", "namespace==other"), ["/b/y", "/b/z"]),
        (("event.name==ImageDelete",), []),
        (("event.name==x,namespace==other",), ["/b/z"]),
        (("event.nope",), []),
    ],
)
async def test_any_filter_that_matches_delivers(filters: tuple[str, ...], topics: list[str]) -> None:
    exchange = _exchange()
    async with exchange.subscribe(filters) as envelopes, exchange.subscribe(('topic=="/end"',)) as end:
        _topic(exchange, "/a/x")
        _topic(exchange, "/b/y")
        _topic(exchange, "/b/z", "other")
        _topic(exchange, "/end")
        found = await _take(envelopes, len(topics))
        assert [item.topic for item in await _take(end, 1)] == ["/end"]
    assert [item.topic for item in found] == topics


async def test_a_filter_that_is_none_is_refused() -> None:
    with pytest.raises(errors.InvalidArgument):
        async with _exchange().subscribe(("topic==",)):
            pass


async def test_a_slow_subscriber_is_cut_off_and_the_others_are_not() -> None:
    exchange = _exchange(limit=10)
    async with exchange.subscribe() as slow, exchange.subscribe() as quick:
        for number in range(30):
            _topic(exchange, f"/t/{number}")
            assert (await _take(quick, 1))[0].topic == f"/t/{number}"
        with pytest.raises(errors.ResourceExhausted, match="30 events behind"):
            await anext(slow)


async def test_a_subscriber_that_was_cut_off_goes_on_where_it_stopped() -> None:
    exchange = _exchange()
    async with exchange.subscribe() as envelopes:
        for number in range(3):
            _topic(exchange, f"/t/{number}")
        [found] = await _take(envelopes, 1)
    _topic(exchange, "/t/3")
    async with exchange.resume((), found.sequence) as envelopes:
        rest = await _take(envelopes, 3)
    assert [item.topic for item in rest] == ["/t/1", "/t/2", "/t/3"]
    assert [item.sequence for item in (found, *rest)] == [1, 2, 3, 4]


async def test_resuming_applies_the_filters_to_what_was_missed() -> None:
    exchange = _exchange(limit=1000)
    for number in range(600):
        _topic(exchange, f"/t/{number}")
    async with exchange.resume(('topic=="/t/599"',), 0) as envelopes:
        assert [item.sequence for item in await _take(envelopes, 1)] == [600]


@pytest.mark.parametrize(("after", "words"), [(0, "the oldest is 21"), (19, "the oldest is 21"), (31, "the newest is 30")])
async def test_a_gap_is_told_with_what_there_is(after: int, words: str) -> None:
    exchange = _exchange(limit=10)
    for number in range(30):
        _topic(exchange, f"/t/{number}")
    assert exchange.span() == events.Span(21, 30)
    with pytest.raises(errors.OutOfRange, match=words):
        async with exchange.resume((), after):
            pass


@pytest.mark.parametrize(("after", "first"), [(20, "/t/20"), (29, "/t/29"), (30, "/new")])
async def test_the_edges_of_what_is_kept_are_no_gap(after: int, first: str) -> None:
    exchange = _exchange(limit=10)
    for number in range(30):
        _topic(exchange, f"/t/{number}")
    async with exchange.resume((), after) as envelopes:
        _topic(exchange, "/new") if after == 30 else None
        assert (await _take(envelopes, 1))[0].topic == first


async def test_numbers_go_on_from_where_they_are_told_to_begin() -> None:
    exchange = domain.Exchange(Packer(), first=1000)
    assert exchange.span() == events.Span(1000, 999)
    _topic(exchange, "/a")
    assert exchange.span() == events.Span(1000, 1000)
    with pytest.raises(errors.OutOfRange, match="kept no more"):
        async with exchange.resume((), 5):
            pass


async def test_memory_is_bounded_whatever_is_published_and_whoever_reads() -> None:
    exchange = domain.Exchange(Packer(), limit=1000, size=1 << 20)
    exchange.publish_packed("default", "/large", containers.Any("x", bytes(2 << 20)))
    assert len(exchange._log) == 1
    tracemalloc.start()
    try:
        async with exchange.subscribe(), exchange.subscribe(), exchange.subscribe():
            for number in range(20_000):
                exchange.publish_packed("default", "/t", containers.Any("x", bytes(number % 5000)))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(exchange._log) <= 1000
    assert sum(len(item.event.value) for item in exchange._log) <= 1 << 20
    assert max(held, peak) < 2 << 20


@pytest.mark.parametrize("topic", ["", "a", "/", "//a", "/a/", "/a b", "/a/../b", "/" + "x" * 77])
def test_a_topic_out_of_its_grammar_is_refused(topic: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="envelope topic"):
        _topic(_exchange(), topic)


@pytest.mark.parametrize(
    "envelope",
    [
        events.Envelope(0, "default", "/a", containers.Any("x", b"")),
        events.Envelope(1, "", "/a", containers.Any("x", b"")),
        events.Envelope(1, "default", "a", containers.Any("x", b"")),
    ],
)
def test_an_envelope_that_is_not_whole_is_not_forwarded(envelope: events.Envelope) -> None:
    with pytest.raises(errors.InvalidArgument):
        _exchange().forward(envelope)


async def test_a_forwarded_envelope_is_delivered_as_it_is() -> None:
    exchange, sent = _exchange(), events.Envelope(7, "k8s.io", "/tasks/exit", containers.Any("x", b"\xff"))
    async with exchange.subscribe() as envelopes:
        exchange.forward(sent)
        assert await _take(envelopes, 1) == [sent]
