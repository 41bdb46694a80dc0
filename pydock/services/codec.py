"""Protobuf messages to core values and back, by the names of their fields.

Vocabulary: a *plan* pairs the fields of one message type with the attributes of one dataclass; it is made from the message's descriptor
and the dataclass's annotations on first use and kept.  A field without an attribute of its name, or the reverse, is left alone.

=============================== ==========================================================
field                           attribute
=============================== ==========================================================
google.protobuf.Timestamp       int, ns since the epoch; 0 is "not set" (and Go's zero time)
google.protobuf.Any             containers.Any (None when not set)
another message                 the dataclass its annotation names (None when not set)
map<string, string or Any>      dict
repeated                        tuple
enum                            the IntEnum its annotation names
=============================== ==========================================================
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from google.protobuf import any_pb2, descriptor, message, timestamp_pb2

from pydock.base import errors
from pydock.core import containers
from pydock.oci import image

M = TypeVar("M", bound=message.Message)
T = TypeVar("T")

SECOND = 1_000_000_000
GO_ZERO = -62_135_596_800  # seconds; the first of January of the year 1, which is what Go sends for a time that is not set
_TIMESTAMP = timestamp_pb2.Timestamp.DESCRIPTOR.full_name
_ANY = any_pb2.Any.DESCRIPTOR.full_name

Described = Any  # a message's descriptor: the stubs have two unrelated types for it
Put = Callable[[Any, Any], None]  # (message, attribute value)
Take = Callable[[Any], Any]  # (message) -> attribute value


class Step(NamedTuple):
    """One pair: the attribute ``name``, how it is put into a message and how it is taken out of one."""

    name: str
    put: Put
    take: Take


def encode(kind: type[M], value: Any, skip: Container[str] = ()) -> M:
    """Return a ``kind`` holding the attributes of the dataclass ``value``, but those named in ``skip``."""
    result = kind()
    fill(result, value, skip)
    return result


def fill(target: message.Message, value: Any, skip: Container[str] = ()) -> None:
    """Put the attributes of the dataclass ``value`` into ``target``, but those named in ``skip``."""
    for name, put, _ in plan(target.DESCRIPTOR, type(value)):
        if name not in skip and (attribute := getattr(value, name)):
            put(target, attribute)


def decode(kind: type[T], source: message.Message, **extra: Any) -> T:
    """Return a ``kind`` made from the fields of ``source``, and from ``extra``, which wins."""
    found = {name: take(source) for name, _, take in plan(source.DESCRIPTOR, kind) if name not in extra}
    return kind(**found, **extra)


def descriptor_of(source: message.Message) -> image.Descriptor:
    """Return the core form of a containerd.types.Descriptor; an unset one is empty."""
    return decode(image.Descriptor, source)


def time_of(source: timestamp_pb2.Timestamp) -> int:
    """Return ns since the epoch, 0 for a time before it (Go's zero time is in the year 1)."""
    return source.seconds * SECOND + source.nanos if source.seconds >= 0 else 0


def stamp(ns: int) -> timestamp_pb2.Timestamp | None:
    """Return the Timestamp of ``ns`` since the epoch, None (not set) for 0."""
    return timestamp_pb2.Timestamp(seconds=ns // SECOND, nanos=ns % SECOND) if ns else None


def go_stamp(ns: int) -> timestamp_pb2.Timestamp:
    """Return the Timestamp of ``ns``, for 0 Go's zero time (year 1): where one is always set, clients print an absent one as 1970."""
    return stamp(ns) or timestamp_pb2.Timestamp(seconds=GO_ZERO)


def any_of(value: any_pb2.Any) -> containers.Any:
    """Return the core form of an Any, byte for byte."""
    return containers.Any(value.type_url, value.value)


def any_or_none(value: any_pb2.Any) -> containers.Any | None:
    """Return the core form of an Any, None for one that holds nothing."""
    return containers.Any(value.type_url, value.value) if value.type_url or value.value else None


def wire_any(value: containers.Any | None) -> any_pb2.Any:
    """Return the wire form of ``value``; empty for None."""
    return any_pb2.Any() if value is None else any_pb2.Any(type_url=value.type_url, value=value.value)


def pack(value: message.Message) -> containers.Any:
    """Return ``value`` in an Any as containerd writes it: the bare full name, no ``type.googleapis.com/`` in front."""
    return containers.Any(value.DESCRIPTOR.full_name, value.SerializeToString())


def parse(kind: type[M], source: containers.Any) -> M:
    """Return the message in ``source``. Raises InvalidArgument when it is of another type or does not parse."""
    wanted = kind.DESCRIPTOR.full_name
    if type_name(source) != wanted:
        raise errors.InvalidArgument(f"type {source.type_url} where {wanted} is expected")
    result = kind()
    try:
        result.ParseFromString(source.value)
    except message.DecodeError:
        raise errors.InvalidArgument(f"{wanted} does not parse") from None
    return result


def type_name(value: containers.Any) -> str:
    """Return the message name of an Any, whether or not its URL has a prefix."""
    return value.type_url.rpartition("/")[2]


def varint(number: int) -> bytes:
    """Return an unsigned number as protobuf writes it, for the few messages that are joined by hand."""
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)


def plan(source: Described, kind: type) -> tuple[Step, ...]:
    """Return the steps between messages of ``source`` and dataclasses of ``kind``."""
    found = _plans.get((source, kind))
    if found is None:
        hints = typing.get_type_hints(kind)
        fields = [source.fields_by_name[item.name] for item in dataclasses.fields(kind) if item.name in source.fields_by_name]
        found = _plans[source, kind] = tuple(Step(field.name, *_pair(field, hints[field.name])) for field in fields)
    return found


_plans: dict[tuple[Described, type], tuple[Step, ...]] = {}


def _pair(field: descriptor.FieldDescriptor, hint: Any) -> tuple[Put, Take]:
    nested = field.message_type
    if nested is not None and nested.GetOptions().map_entry:
        return _map_pair(field.name, nested)
    if field.is_repeated:
        return _repeated_pair(field, hint)
    return _message_pair(field.name, nested, hint) if nested is not None else _scalar_pair(field.name, hint)


def _scalar_pair(name: str, hint: Any) -> tuple[Put, Take]:
    def put(target: Any, value: Any) -> None:
        setattr(target, name, value)

    kind = _named(hint)
    if kind is not None and issubclass(kind, enum.Enum):
        return put, lambda source: kind(getattr(source, name))
    return put, lambda source: getattr(source, name)


def _message_pair(name: str, nested: descriptor.Descriptor, hint: Any) -> tuple[Put, Take]:
    if nested.full_name == _TIMESTAMP:
        return lambda target, value: _put_time(getattr(target, name), value), lambda source: time_of(getattr(source, name))
    if nested.full_name == _ANY:
        return lambda target, value: _put_any(getattr(target, name), value), lambda source: any_or_none(getattr(source, name))
    kind = _named(hint)
    return (_mismatch, _mismatch) if kind is None else _nested_pair(name, kind, type(None) in typing.get_args(hint))


def _nested_pair(name: str, kind: type, optional: bool) -> tuple[Put, Take]:
    def put(target: Any, value: Any) -> None:
        inner = getattr(target, name)
        inner.SetInParent()
        fill(inner, value)

    def take(source: Any) -> Any:
        return None if optional and not source.HasField(name) else decode(kind, getattr(source, name))

    return put, take


def _mismatch(*_: object) -> Any:
    raise TypeError("a message wants a dataclass; name the attribute in skip or extra")


def _repeated_pair(field: descriptor.FieldDescriptor, hint: Any) -> tuple[Put, Take]:
    name, kind = field.name, _named(hint)
    if field.message_type is None or kind is None:
        return lambda target, value: getattr(target, name).extend(value), lambda source: tuple(getattr(source, name))

    def take(source: Any) -> Any:
        return tuple(decode(kind, item) for item in getattr(source, name))

    return lambda target, value: _extend(getattr(target, name), value), take


def _map_pair(name: str, entry: descriptor.Descriptor) -> tuple[Put, Take]:
    if entry.fields_by_name["value"].message_type is None:
        return lambda target, value: getattr(target, name).update(value), lambda source: dict(getattr(source, name))

    def put(target: Any, value: Mapping[str, containers.Any]) -> None:
        for key, item in value.items():
            _put_any(getattr(target, name)[key], item)

    return put, lambda source: {key: any_of(item) for key, item in getattr(source, name).items()}


def _put_time(target: timestamp_pb2.Timestamp, ns: int) -> None:
    target.seconds, target.nanos = divmod(ns, SECOND)


def _put_any(target: any_pb2.Any, value: containers.Any) -> None:
    target.type_url, target.value = value.type_url, value.value


def _extend(target: Any, values: Iterable[Any]) -> None:
    for value in values:
        fill(target.add(), value)


def _named(hint: Any) -> type | None:
    """Return the dataclass or enum that an annotation names, below any ``| None`` and ``Sequence[...]``."""
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, enum.Enum)):
        return hint
    return next((found for item in typing.get_args(hint) if (found := _named(item)) is not None), None)
