"""Dataclasses to and from JSON text by their annotations: the form in which records are stored.

Vocabulary: a *form* is the pair of functions between a type and plain JSON values.  Supported: str, int, float, bool, bytes (base64),
enums (by value), ``T | None``, Mapping[str, T], Sequence[T] and tuple[T, ...] (back as tuple), dataclasses of these.
Invariants: a field that equals its default is left out and comes back as its default; a field nobody knows, or of a wrong type, is a
ValueError, never dropped in silence.
"""

from __future__ import annotations

import base64
import binascii
import collections.abc
import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Convert = Callable[[Any], Any]

_PLAIN = {str, int, float, bool}
_MAPPINGS = {dict, collections.abc.Mapping}
_SEQUENCES = {list, tuple, collections.abc.Sequence}


@dataclasses.dataclass(frozen=True)
class Form(Generic[T]):
    """``dump`` gives plain JSON values, ``load`` takes them back and raises ValueError for what it does not understand."""

    dump: Callable[[T], Any]
    load: Callable[[Any], T]

    def to_text(self, value: T) -> str:
        """Return ``value`` as compact ASCII JSON."""
        return json.dumps(self.dump(value), separators=(",", ":"))

    def from_text(self, text: str) -> T:
        """Return the value whose `to_text` is ``text``. Raises ValueError."""
        return self.load(json.loads(text))


@functools.cache
def of(kind: Any) -> Form[Any]:
    """Return the form of a type. Raises TypeError for one that is not supported."""
    origin = typing.get_origin(kind)
    if kind in _PLAIN:
        return Form(_same, functools.partial(_load_plain, kind))
    if kind is bytes:
        return Form(_dump_bytes, _load_bytes)
    if origin in (typing.Union, types.UnionType):
        return _optional(typing.get_args(kind))
    if origin in _MAPPINGS:
        return _mapping(of(typing.get_args(kind)[1]))
    if origin in _SEQUENCES:
        return _sequence(of(typing.get_args(kind)[0]))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return Form(lambda value: value.value, kind)
    if dataclasses.is_dataclass(kind):
        return _record(kind)
    raise TypeError(f"{kind!r} has no stored form")


def _same(value: Any) -> Any:
    return value


def _load_plain(kind: type, value: Any) -> Any:
    if type(value) is kind:
        return value
    if kind is float and type(value) is int:
        return float(value)
    raise ValueError(f"{value!r:.80} is not of type {kind.__name__}")


def _dump_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _load_bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise ValueError(f"{value!r:.80} is not base64")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{value!r:.80} is not base64") from error


def _optional(kinds: tuple[Any, ...]) -> Form[Any]:
    rest = [kind for kind in kinds if kind is not types.NoneType]
    if len(rest) != 1 or len(kinds) != 2:
        raise TypeError(f"a union of {kinds!r} has no stored form")
    inner = of(rest[0])
    return Form(
        lambda value: None if value is None else inner.dump(value),
        lambda value: None if value is None else inner.load(value),
    )


def _mapping(inner: Form[Any]) -> Form[Any]:
    def load(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueError(f"{value!r:.80} is not a mapping")
        return {key: inner.load(item) for key, item in value.items()}

    return Form(lambda value: {key: inner.dump(item) for key, item in value.items()}, load)


def _sequence(inner: Form[Any]) -> Form[Any]:
    def load(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise ValueError(f"{value!r:.80} is not a list")
        return tuple(inner.load(item) for item in value)

    return Form(lambda value: [inner.dump(item) for item in value], load)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _record(kind: Any) -> Form[Any]:
    hints = typing.get_type_hints(kind)
    fields = [(field.name, _default(field), of(hints[field.name])) for field in dataclasses.fields(kind)]
    loads: Mapping[str, Convert] = {name: form.load for name, _, form in fields}

    def dump(value: Any) -> dict[str, Any]:
        plain = {}
        for name, default, form in fields:
            item = getattr(value, name)
            if default is dataclasses.MISSING or item != default:
                plain[name] = form.dump(item)
        return plain

    def load(value: Any) -> Any:
        if type(value) is not dict:
            raise ValueError(f"{value!r:.80} is not a record of {kind.__name__}")
        unknown = value.keys() - loads.keys()
        if unknown:
            raise ValueError(f"a record of {kind.__name__} has no field {sorted(unknown)[0]!r}")
        try:
            return kind(**{name: loads[name](item) for name, item in value.items()})
        except TypeError as error:
            raise ValueError(f"a record of {kind.__name__} is not whole: {error}") from error

    return Form(dump, load)
