"""Events over the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, timestamp_pb2, unknown_fields

from pydock._proto.containerd.services.events.v1 import events_pb2 as pb
from pydock._proto.containerd.types import event_pb2
from pydock.core import containers
from pydock.core import events as core
from pydock.domain import events as domain
from pydock.services import events, packer


async def _subscribed(exchange: domain.Exchange) -> None:
    async with asyncio.timeout(5):
        while not exchange._subscribers:
            await asyncio.sleep(0)


async def test_what_one_client_publishes_another_receives(dial: Any) -> None:
    exchange = domain.Exchange(packer.Packer())
    async with dial(events.Events(exchange)) as client:
        stream = client.Subscribe(pb.SubscribeRequest(filters=['topic=="/mine"']), ns="")
        await _subscribed(exchange)
        event = any_pb2.Any(type_url="some.Type", value=b"\xff")
        await client.Publish(pb.PublishRequest(topic="/other", event=event))
        await client.Publish(pb.PublishRequest(topic="/mine", event=event), ns="moby")
        found = await stream.read()
        stream.cancel()
    assert (found.namespace, found.topic, found.event) == ("moby", "/mine", event)
    assert found.timestamp.seconds > 0


async def test_an_envelope_is_forwarded_as_it_was_stamped(dial: Any) -> None:
    exchange = domain.Exchange(packer.Packer())
    sent = event_pb2.Envelope(timestamp=timestamp_pb2.Timestamp(seconds=7), namespace="k8s.io", topic="/t", event=any_pb2.Any(type_url="x"))
    async with dial(events.Events(exchange)) as client:
        stream = client.Subscribe(pb.SubscribeRequest())
        await _subscribed(exchange)
        await client.Forward(pb.ForwardRequest(envelope=sent), ns="")
        assert await stream.read() == sent
        stream.cancel()


def _publish_an_old_and_a_new_one(exchange: domain.Exchange) -> None:
    exchange.publish_packed("default", "/new", containers.Any("x", b""))
    exchange.forward(core.Envelope(7_000_000_000, "default", "/old", containers.Any("x", b"")))


async def test_who_comes_back_soon_is_told_what_happened_before_the_start(dial: Any) -> None:
    exchange = domain.Exchange(packer.Packer())
    service = events.Events(exchange, return_seconds=3600)
    _publish_an_old_and_a_new_one(exchange)
    async with dial(service) as client:
        stream = client.Subscribe(pb.SubscribeRequest())
        await stream.initial_metadata()
        exchange.publish_packed("default", "/now", containers.Any("x", b""))
        assert [(await stream.read()).topic for _ in range(2)] == ["/old", "/now"]
        stream.cancel()


async def test_who_comes_later_hears_only_what_follows(dial: Any) -> None:
    exchange = domain.Exchange(packer.Packer())
    service = events.Events(exchange, return_seconds=0)
    _publish_an_old_and_a_new_one(exchange)
    async with dial(service) as client:
        stream = client.Subscribe(pb.SubscribeRequest())
        await stream.initial_metadata()
        exchange.publish_packed("default", "/now", containers.Any("x", b""))
        assert (await stream.read()).topic == "/now"
        stream.cancel()


async def test_a_subscriber_that_goes_is_forgotten(dial: Any) -> None:
    exchange = domain.Exchange(packer.Packer())
    async with dial(events.Events(exchange)) as client:
        stream = client.Subscribe(pb.SubscribeRequest())
        await _subscribed(exchange)
        stream.cancel()
        async with asyncio.timeout(5):
            while exchange._subscribers:
                await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("ns", "topic", "code"), [("", "/a", grpc.StatusCode.FAILED_PRECONDITION), ("default", "a", grpc.StatusCode.INVALID_ARGUMENT)]
)
async def test_a_bad_publication_is_refused(dial: Any, ns: str, topic: str, code: grpc.StatusCode) -> None:
    async with dial(events.Events(domain.Exchange(packer.Packer()))) as client:
        with pytest.raises(grpc.RpcError) as caught:
            await client.Publish(pb.PublishRequest(topic=topic), ns=ns)
    assert caught.value.code() is code


async def test_a_bad_filter_is_refused(dial: Any) -> None:
    async with dial(events.Events(domain.Exchange(packer.Packer()))) as client:
        with pytest.raises(grpc.RpcError) as caught:
            await client.Subscribe(pb.SubscribeRequest(filters=["=="])).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def _sequence(envelope: event_pb2.Envelope) -> int:
    [field] = unknown_fields.UnknownFieldSet(envelope)
    assert (field.field_number, field.wire_type) == (1001, 0)
    return int(field.data)


def _after(client: Any, number: object, **request: Any) -> Any:
    subscribe = client.channel.unary_stream(
        "/containerd.services.events.v1.Events/Subscribe",
        request_serializer=pb.SubscribeRequest.SerializeToString,
        response_deserializer=event_pb2.Envelope.FromString,
    )
    return subscribe(pb.SubscribeRequest(**request), metadata=[("pydock-events-after", str(number))])


async def test_a_client_goes_on_by_metadata_where_it_stopped(dial: Any) -> None:
    exchange = domain.Exchange(packer.Packer())
    for topic in ("/a", "/b", "/c"):
        exchange.publish_packed("default", topic, containers.Any("x", b""))
    async with dial(events.Events(exchange)) as client:
        for after, first in ((1, ("/b", 2)), (2, ("/c", 3)), ("oldest", ("/a", 1))):
            stream = _after(client, after)
            found = await stream.read()
            assert (found.topic, _sequence(found)) == first
            told = dict(await stream.initial_metadata())
            assert (told["pydock-events-oldest"], told["pydock-events-newest"]) == ("1", "3")
            stream.cancel()


async def test_a_client_is_told_the_numbers_at_once_and_may_begin_now(dial: Any) -> None:
    exchange = domain.Exchange(packer.Packer(), first=70)
    exchange.publish_packed("default", "/before", containers.Any("x", b""))
    async with dial(events.Events(exchange)) as client:
        stream = _after(client, "now")
        assert dict(await stream.initial_metadata())["pydock-events-newest"] == "70"
        exchange.publish_packed("default", "/after", containers.Any("x", b""))
        found = await stream.read()
        assert (found.topic, _sequence(found)) == ("/after", 71)
        stream.cancel()


async def test_who_did_not_ask_for_numbers_gets_the_envelope_as_containerd_sends_it(dial: Any) -> None:
    exchange = domain.Exchange(packer.Packer())
    async with dial(events.Events(exchange)) as client:
        stream = client.Subscribe(pb.SubscribeRequest())
        await stream.initial_metadata()
        exchange.publish_packed("default", "/a", containers.Any("x", b""))
        assert len(unknown_fields.UnknownFieldSet(await stream.read())) == 0
        stream.cancel()


async def test_a_gap_is_out_of_range_and_names_the_oldest(dial: Any) -> None:
    exchange = domain.Exchange(packer.Packer(), limit=2)
    for _ in range(5):
        exchange.publish_packed("default", "/a", containers.Any("x", b""))
    async with dial(events.Events(exchange)) as client:
        stream = _after(client, 2)
        with pytest.raises(grpc.RpcError, match="the oldest is 4") as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert dict(await stream.trailing_metadata())["pydock-events-oldest"] == "4"


async def test_a_subscriber_too_slow_is_told_where_it_was(dial: Any) -> None:
    exchange = domain.Exchange(packer.Packer(), size=64 << 10)
    async with dial(events.Events(exchange)) as client:
        stream = _after(client, "now")
        await stream.initial_metadata()
        for number in range(3000):  # far more than grpc takes ahead for a client that does not read
            exchange.publish_packed("default", "/a", containers.Any("x", bytes(8000)))
            if number % 50 == 0:
                await asyncio.sleep(0)
        with pytest.raises(grpc.RpcError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(await stream.trailing_metadata())["pydock-events-last"]) < 3000


@pytest.mark.parametrize("number", ["", "-1", "x", "9" * 30])
async def test_a_number_that_is_none_is_refused(dial: Any, number: str) -> None:
    async with dial(events.Events(domain.Exchange(packer.Packer()))) as client:
        with pytest.raises(grpc.RpcError, match="sequence number") as caught:
            await _after(client, number).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
