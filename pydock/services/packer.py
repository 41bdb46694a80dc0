"""The wire form of events: which message each of pydock's own becomes, and the fields filters may ask of any.

Source: containerd.events (and, for images alone, containerd.services.images.v1, which is where containerd has always kept them).
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import message

from pydock._proto.containerd.events import container_pb2, content_pb2, namespace_pb2, sandbox_pb2, snapshot_pb2, task_pb2
from pydock._proto.containerd.services.images.v1 import events_pb2 as images_pb2
from pydock._proto.containerd.types import event_pb2
from pydock.core import containers, events, plugin
from pydock.services import codec

_MODULES: tuple[Any, ...] = (container_pb2, content_pb2, namespace_pb2, sandbox_pb2, snapshot_pb2, task_pb2, images_pb2)
_BY_CLASS: dict[str, type[message.Message]] = {
    name: getattr(module, name) for module in _MODULES for name in module.DESCRIPTOR.message_types_by_name
}
_BY_TYPE: dict[str, Any] = {kind.DESCRIPTOR.full_name: kind for kind in _BY_CLASS.values()}


class Packer:
    """See `pydock.core.events.Packer`."""

    def pack(self, event: events.Event) -> containers.Any:
        """Return the message named as the class of ``event``, with the attributes of its fields' names."""
        return codec.pack(codec.encode(_BY_CLASS[type(event).__name__], event))

    def field(self, event: containers.Any, path: tuple[str, ...]) -> str | None:
        """Return the text of a field; None for a type, a field or a map key that is not there."""
        kind = _BY_TYPE.get(codec.type_name(event))
        return None if kind is None else _text(_parsed(kind, event.value), path)


@functools.lru_cache(maxsize=16)  # one event is asked by every filter of every subscriber in turn
def _parsed(kind: Any, value: bytes) -> message.Message | None:
    result: message.Message = kind()
    try:
        result.ParseFromString(value)
    except message.DecodeError:
        return None
    return result


def _text(source: Any, path: tuple[str, ...]) -> str | None:
    """Return the text of the field ``path``; a map takes the rest of the path, dots and all, as its key."""
    if source is None or not path:
        return None
    field = source.DESCRIPTOR.fields_by_name.get(path[0])
    if field is None:
        return None
    value = getattr(source, path[0])
    if field.message_type is None:
        return None if field.is_repeated or value == "" else _scalar(value)
    if field.message_type.GetOptions().map_entry:
        return _scalar(value[key]) if (key := ".".join(path[1:])) in value else None
    return None if field.is_repeated else _text(value, path[1:])


def _scalar(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@functools.lru_cache(maxsize=64)  # every subscriber sends the same bytes
def wire_envelope(envelope: events.Envelope) -> bytes:
    """Return the serialised containerd.types.Envelope."""
    return codec.encode(event_pb2.Envelope, envelope).SerializeToString()


@plugin.plugin("io.containerd.internal.v1", "event-packer")
async def packer() -> AsyncIterator[events.Packer]:
    """Provide the wire form of events."""
    yield Packer()
