"""Events on the wire."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from pydock._proto.containerd.events import container_pb2, task_pb2
from pydock._proto.containerd.types import event_pb2
from pydock.core import containers, events
from pydock.services import codec, packer


def _kinds(kind: type[events.Event] = events.Event) -> Iterator[type[events.Event]]:
    for item in kind.__subclasses__():
        yield item
        yield from _kinds(item)


def test_every_event_of_ours_has_a_message_with_all_its_fields() -> None:
    for kind in _kinds():
        wire = packer._BY_CLASS[kind.__name__].DESCRIPTOR
        names = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
        assert names <= set(wire.fields_by_name), kind
        assert codec.plan(wire, kind)


def test_images_keep_their_old_package() -> None:
    packed = packer.Packer().pack(events.ImageCreate("busybox", {"k": "v"}))
    assert packed.type_url == "containerd.services.images.v1.ImageCreate"


def test_nested_fields_are_packed() -> None:
    runtime = events.ContainerRuntime("io.containerd.runc.v2", containers.Any("t", b"v"))
    packed = packer.Packer().pack(events.ContainerCreate("c1", "busybox", runtime))
    assert packed.type_url == "containerd.events.ContainerCreate"
    message = container_pb2.ContainerCreate.FromString(packed.value)
    assert (message.id, message.runtime.name, message.runtime.options.value) == ("c1", "io.containerd.runc.v2", b"v")


CREATED = codec.pack(
    container_pb2.ContainerCreate(id="c1", runtime=container_pb2.ContainerCreate.Runtime(name="r")),
)
UPDATED = codec.pack(container_pb2.ContainerUpdate(id="c1", labels={"a.b/c": "v"}))
EXITED = codec.pack(task_pb2.TaskExit(container_id="c1", exit_status=137))


@pytest.mark.parametrize(
    ("event", "path", "text"),
    [
        (CREATED, ("id",), "c1"),
        (CREATED, ("runtime", "name"), "r"),
        (CREATED, ("image",), None),
        (CREATED, ("nope",), None),
        (CREATED, (), None),
        (UPDATED, ("labels", "a", "b/c"), "v"),
        (UPDATED, ("labels", "a"), None),
        (EXITED, ("exit_status",), "137"),
        (containers.Any("some.Other", b"x"), ("id",), None),
        (containers.Any(CREATED.type_url, b"\xff\xff"), ("id",), None),
    ],
)
def test_a_field_is_found_by_its_path(event: containers.Any, path: tuple[str, ...], text: str | None) -> None:
    assert packer.Packer().field(event, path) == text


def test_an_envelope_is_serialised_once() -> None:
    envelope = events.Envelope(1_000_000_002, "default", "/a", containers.Any("t", b"v"))
    first = packer.wire_envelope(envelope)
    message = event_pb2.Envelope.FromString(first)
    assert (message.timestamp.seconds, message.timestamp.nanos, message.topic, message.event.value) == (1, 2, "/a", b"v")
    assert packer.wire_envelope(envelope) is first
