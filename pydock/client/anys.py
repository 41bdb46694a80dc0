"""``google.protobuf.Any`` the way containerd's clients write it: the type URL is the bare message name, without a host.

Vocabulary: a *known* type is one this client can unpack by name (events, progress, metrics, options); the rest stays packed. JSON documents
(the runtime spec and its process) travel under type URLs of their own.
"""

from __future__ import annotations

import importlib
import json
from typing import Any, TypeVar

from google.protobuf import any_pb2, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from pydock.base import clock

M = TypeVar("M", bound=Message)

SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"

_EVENTS = ("task", "container", "content", "snapshot", "namespace", "sandbox")
# The package of a message -> the generated modules that may define it, relative to pydock._proto.
_MODULES = {
    "containerd.events": tuple(f"containerd.events.{name}_pb2" for name in _EVENTS),
    "containerd.services.images.v1": ("containerd.services.images.v1.events_pb2",),
    "containerd.runc.v1": ("containerd.runc.v1.options_pb2",),
    "io.containerd.cgroups.v1": ("io.containerd.cgroups.v1.metrics_pb2",),
    "io.containerd.cgroups.v2": ("io.containerd.cgroups.v2.metrics_pb2",),
}


def pack(message: Message) -> any_pb2.Any:
    """Return ``message`` packed under its bare name."""
    return any_pb2.Any(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())


def pack_json(type_url: str, document: object) -> any_pb2.Any:
    """Return a JSON document packed under ``type_url``."""
    return any_pb2.Any(type_url=type_url, value=json.dumps(document, separators=(",", ":")).encode())


def unpack(packed: any_pb2.Any, kind: type[M]) -> M | None:
    """Return the message when it is one of ``kind``."""
    return kind.FromString(packed.value) if name(packed) == kind.DESCRIPTOR.full_name else None


def name(packed: any_pb2.Any) -> str:
    """Return the message name in a type URL, with or without a host before it."""
    return packed.type_url.rpartition("/")[2]


def plain(packed: any_pb2.Any) -> Any:
    """Return the content as JSON-like data: a JSON document, a known message, else its type URL and size."""
    unknown = {"type_url": packed.type_url, "size": len(packed.value)} if packed.type_url else None
    try:
        if packed.type_url in (SPEC, PROCESS):
            return json.loads(packed.value)
        message = _known(name(packed))
        if message is None:
            return unknown
        message.ParseFromString(packed.value)
    except (ValueError, DecodeError, RecursionError):
        return unknown
    return _fields(message)


def _fields(message: Message) -> dict[str, Any]:
    """Return the fields that are set, by the names of the protocol."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            found[field.name] = {str(key): _value(value[key], field) for key in value}
        elif field.is_repeated:
            found[field.name] = [_value(each, field) for each in value]
        else:
            found[field.name] = _value(value, field)
    return found


def _value(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, any_pb2.Any):
        return plain(value)
    if isinstance(value, timestamp_pb2.Timestamp):
        return clock.format_rfc3339(value.ToNanoseconds())
    if isinstance(value, Message):
        return _fields(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if field.enum_type is not None and value in field.enum_type.values_by_number:
        return field.enum_type.values_by_number[value].name
    return value


def _known(full_name: str) -> Message | None:
    package, _, short = full_name.rpartition(".")
    for module in _MODULES.get(package, ()):
        kind = getattr(importlib.import_module(f"pydock._proto.{module}"), short, None)
        if kind is not None:
            return kind()  # type: ignore[no-any-return]
    return None
