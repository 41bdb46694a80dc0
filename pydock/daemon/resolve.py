"""Reads a plugin's needs and provisions off its factory's signature, and matches the ones to the others.

Vocabulary: a *need* is one parameter: how many values (*kind*) of which *type*, and possibly of which plugin (*uri*).
A provided type answers a need of itself or of a class it names as a base. See the table in ``core.plugin``.
Errors name the plugin and the parameter, since they are read by the author of a plugin.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from pydock.base import errors
from pydock.core import plugin


class Kind(enum.Enum):
    """How a need is filled."""

    CONFIG = "config"
    ROOT = "root"
    STATE = "state"
    ONE = "one"
    OPTIONAL = "optional"
    MAPPING = "mapping"
    SEQUENCE = "sequence"


@dataclasses.dataclass(frozen=True)
class Need:
    """One parameter of a factory."""

    parameter: str
    kind: Kind
    type: Any
    uri: str = ""


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a factory needs and provides."""

    needs: tuple[Need, ...]
    provides: tuple[Any, ...]

    @property
    def config(self) -> type[plugin.Config] | None:
        """Return the class of the plugin's configuration, if it has one."""
        return next((need.type for need in self.needs if need.kind is Kind.CONFIG), None)


class BadPlugin(errors.InvalidArgument):
    """A plugin or the set of plugins is wrongly written."""


def signature(registration: plugin.Registration) -> Signature:
    """Return the needs and provisions of a registration. Raises BadPlugin for one that cannot be read."""
    factory = registration.factory
    if not inspect.isasyncgenfunction(factory):
        raise BadPlugin(f"plugin {registration.uri}: the factory must be an async generator function")
    try:
        hints = typing.get_type_hints(factory, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise BadPlugin(f"plugin {registration.uri}: an annotation cannot be resolved: {error}") from error
    needs = []
    for name in inspect.signature(factory).parameters:
        if name not in hints:
            raise BadPlugin(f"plugin {registration.uri}: parameter {name!r} has no annotation")
        needs.append(_need(name, hints[name]))
    return Signature(tuple(needs), _provides(registration, hints.get("return")))


def _need(name: str, hint: Any) -> Need:
    uri = ""
    if typing.get_origin(hint) is typing.Annotated:
        hint, uri = hint.__origin__, str(hint.__metadata__[0])
    if hint is plugin.PluginRoot:
        return Need(name, Kind.ROOT, hint)
    if hint is plugin.PluginState:
        return Need(name, Kind.STATE, hint)
    if inspect.isclass(hint) and issubclass(hint, plugin.Config):
        return Need(name, Kind.CONFIG, hint)
    return _value_need(name, hint, uri)


def _value_need(name: str, hint: Any, uri: str) -> Need:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Mapping and args[0] is str:
        return Need(name, Kind.MAPPING, args[1])
    if origin is Sequence:
        return Need(name, Kind.SEQUENCE, args[0])
    if origin in (types.UnionType, typing.Union) and len(args) == 2 and type(None) in args:
        inner = args[0] if args[1] is type(None) else args[1]
        if typing.get_origin(inner) is typing.Annotated:
            inner, uri = inner.__origin__, str(inner.__metadata__[0])
        return Need(name, Kind.OPTIONAL, inner, uri)
    return Need(name, Kind.ONE, hint, uri)


def _provides(registration: plugin.Registration, hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) is not AsyncIterator and getattr(typing.get_origin(hint), "__name__", "") != "AsyncGenerator":
        raise BadPlugin(f"plugin {registration.uri}: the factory must be annotated to return AsyncIterator[what it provides]")
    provided = typing.get_args(hint)[0]
    if typing.get_origin(provided) is tuple:
        return tuple(typing.get_args(provided))
    return () if provided is type(None) else (provided,)


def satisfies(provided: Any, wanted: Any) -> bool:
    """Tell whether a value of the type ``provided`` answers a need of ``wanted``."""
    return bool(provided == wanted) or (inspect.isclass(provided) and wanted in provided.__mro__)


def providers(need: Need, signatures: Mapping[str, Signature]) -> list[str]:
    """Return the sorted uris of all plugins that provide what ``need`` wants, its own uri apart."""
    exact = [uri for uri, made in signatures.items() if any(given == need.type for given in made.provides)]
    if exact and need.kind in (Kind.ONE, Kind.OPTIONAL):
        found: Iterable[str] = exact
    else:
        found = [uri for uri, made in signatures.items() if any(satisfies(given, need.type) for given in made.provides)]
    return sorted(uri for uri in found if not need.uri or uri == need.uri)


def show(hint: Any) -> str:
    """Return a type as a plugin's author wrote it, ``snapshots.Snapshotter``."""
    if not inspect.isclass(hint):
        return str(hint)
    return f"{hint.__module__.rpartition('.')[2]}.{hint.__qualname__}"
