"""Between TOML tables and dataclasses, both ways: typed reading with exact complaints, documented writing.

Vocabulary: a *key* is the dotted path of a value as TOML writes it; a *mismatch* is a value that does not fit its field.
Invariant: ``read(tomllib.loads(write(x)), type(x)) == x`` for every dataclass of the field types named in ``plugin.option``.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

C = TypeVar("C")

KINDS: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a number"),
    (str, "a string"),
    (Path, "a path"),
    (list, "a list"),
    (tuple, "a list"),
    (dict, "a table"),
)


class Mismatch(ValueError):
    """A key or value that does not belong; the text names it and what is expected."""


def kind(value: object) -> str:
    """Return what a TOML value is in words, "a string"."""
    return next((words for cls, words in KINDS if isinstance(value, cls)), f"a {type(value).__name__}")


def fields(wanted: Any) -> dict[str, tuple[Any, dataclasses.Field[Any]]]:
    """Return the type and field of every setting of a dataclass by name, without hidden ones."""
    hints = typing.get_type_hints(wanted)
    return {field.name: (hints[field.name], field) for field in dataclasses.fields(wanted) if not field.metadata.get("hidden")}


def read(table: Mapping[str, Any], wanted: type[C], key: str = "") -> C:
    """Return ``table`` as a ``wanted``. Raises Mismatch for an unknown key or a value of a wrong type."""
    known = fields(wanted)
    for name in table:
        if name not in known:
            raise Mismatch(f"{_join(key, name)}: unknown key; known here: {', '.join(sorted(known)) or 'none'}")
    return wanted(**{name: _value(value, known[name][0], _join(key, name)) for name, value in table.items()})


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _value(value: Any, hint: Any, key: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _value(value, next(arg for arg in args if arg is not type(None)), key)
    if origin is tuple:
        _expect(value, list, "a list", key)
        return tuple(_value(one, args[0], f"{key}[{index}]") for index, one in enumerate(value))
    if origin is dict:
        _expect(value, dict, "a table", key)
        return {name: _value(one, args[1], _join(key, name)) for name, one in value.items()}
    if dataclasses.is_dataclass(hint):
        _expect(value, dict, "a table", key)
        return read(value, typing.cast("type[Any]", hint), key)
    return _scalar(value, hint, key)


def _scalar(value: Any, hint: Any, key: str) -> Any:
    if hint is Any:
        return value
    if hint is Path:
        _expect(value, str, "a path", key)
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if hint is not bool and isinstance(value, bool):
        raise Mismatch(f"{key}: expected {kind(hint())}, got a boolean")
    _expect(value, hint, kind(hint()), key)
    return value


def _expect(value: Any, wanted: type, words: str, key: str) -> None:
    if not isinstance(value, wanted):
        raise Mismatch(f"{key}: expected {words}, got {kind(value)}")


def write(section: Any, header: str = "", *, documented: bool = True) -> str:
    """Return a dataclass as TOML, each key after its documentation; tables follow under ``[header.name]``."""
    return "\n".join(_lines(section, header, documented)) + "\n"


def _lines(section: Any, header: str, documented: bool) -> Iterator[str]:
    if header:
        yield f"[{header}]"
    tables = []
    for name, (_, field) in fields(type(section)).items():
        value = getattr(section, name)
        if dataclasses.is_dataclass(value):
            tables.append((_join(header, name), value))
            continue
        if isinstance(value, dict) and any(dataclasses.is_dataclass(one) for one in value.values()):
            tables += [(_join(_join(header, name), json.dumps(key)), one) for key, one in value.items()]
            continue
        if name == "plugins" or value is None:
            continue
        if documented and field.metadata.get("doc"):
            yield f"# {field.metadata['doc']}"
        yield f"{name} = {literal(value)}"
    for inner, value in tables:
        yield ""
        yield from _lines(value, inner, documented)


def literal(value: Any) -> str:
    """Return a value as TOML writes it; JSON's strings, numbers and booleans are TOML's too."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(literal(one) for one in value)}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(name)} = {literal(one)}" for name, one in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
