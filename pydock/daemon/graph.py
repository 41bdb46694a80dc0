"""Starts plugins in dependency order and closes them in reverse.

Vocabulary: the *plan* is the start order with, for each parameter, the uris that fill it; *given* values are those of the daemon itself.
Invariants: the order depends on names only; every plugin but one that raises SkipPlugin must start, or none stays up;
a plugin that needs a skipped one is skipped too, unless its parameter is optional, a Mapping or a Sequence.
All factories are entered by the one task that calls ``start``, so a TaskGroup around a ``yield`` fails that task.
"""

from __future__ import annotations

import contextlib
import dataclasses
import graphlib
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydock.base import errors
from pydock.core import plugin
from pydock.daemon import resolve
from pydock.daemon.resolve import BadPlugin, Kind, Need

log = logging.getLogger(__name__)


class PluginFailed(errors.Internal):
    """A plugin could not be started; the cause is chained."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One plugin to start: its registration, signature and, for each parameter, the uris that fill it."""

    registration: plugin.Registration
    signature: resolve.Signature
    sources: Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Context:
    """What does not come from plugins: the daemon's own values by type, configuration by uri, the two directories."""

    given: Mapping[Any, Any]
    config: Callable[[str, type[plugin.Config]], plugin.Config]
    root: Path
    state: Path


def plan(registrations: Iterable[plugin.Registration], given: Iterable[Any] = ()) -> list[Step]:
    """Return the steps in start order. Raises BadPlugin for a duplicate, missing, ambiguous or cyclic dependency."""
    by_uri = _by_uri(registrations)
    signatures = {uri: resolve.signature(registration) for uri, registration in by_uri.items()}
    known = frozenset(given)
    sources = {
        uri: {need.parameter: _sources(uri, need, signatures, known) for need in made.needs} for uri, made in signatures.items()
    }
    return [Step(by_uri[uri], signatures[uri], sources[uri]) for uri in _order(sources)]


def _by_uri(registrations: Iterable[plugin.Registration]) -> dict[str, plugin.Registration]:
    by_uri: dict[str, plugin.Registration] = {}
    for registration in sorted(registrations, key=lambda one: one.uri):
        if registration.uri in by_uri:
            raise BadPlugin(f"plugin {registration.uri} is registered twice")
        by_uri[registration.uri] = registration
    return by_uri


def _sources(uri: str, need: Need, signatures: Mapping[str, resolve.Signature], given: frozenset[Any]) -> tuple[str, ...]:
    if need.kind in (Kind.CONFIG, Kind.ROOT, Kind.STATE) or need.type in given:
        return ()
    found = tuple(resolve.providers(need, signatures))
    where = f"plugin {uri}: parameter {need.parameter!r}"
    if need.kind in (Kind.MAPPING, Kind.SEQUENCE):
        return found
    if len(found) > 1:
        raise BadPlugin(f"{where}: {resolve.show(need.type)} is provided by {' and '.join(found)}; name one by Annotated")
    if not found and need.kind is Kind.ONE:
        raise BadPlugin(f"{where}: no plugin provides {resolve.show(need.type)}{f' as {need.uri}' if need.uri else ''}")
    return found


def _order(sources: Mapping[str, Mapping[str, tuple[str, ...]]]) -> list[str]:
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    for uri in sorted(sources):
        sorter.add(uri, *sorted({source for filled in sources[uri].values() for source in filled}))
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise BadPlugin(_cycle(error.args[1], sources)) from None
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return order


def _cycle(uris: list[str], sources: Mapping[str, Mapping[str, tuple[str, ...]]]) -> str:
    """Name a cycle by its parameters; ``uris`` runs from provider to user and ends where it began."""
    links = []
    for provider, user in itertools.pairwise(uris):
        parameter = next(name for name, filled in sources[user].items() if provider in filled)
        links.append(f"parameter {parameter!r} of {user} needs {provider}")
    return f"plugins need each other: {'; '.join(links)}"


class Graph:
    """The running plugins and what they provide."""

    def __init__(self, context: Context, table: plugin.PluginTable) -> None:
        self._context = context
        self._table = table
        self._values: dict[str, tuple[tuple[Any, Any], ...]] = {}
        self._ids: dict[str, str] = {}
        self._skipped: dict[str, str] = {}

    async def start(self, steps: Iterable[Step], stack: contextlib.AsyncExitStack) -> None:
        """Start every step, putting what closes it on ``stack``. Raises PluginFailed naming the first that fails."""
        steps = list(steps)
        types = {step.registration.uri: step.registration.type for step in steps}
        for step in steps:
            error = await self._start_one(step, stack)
            requires = sorted({types[source] for filled in step.sources.values() for source in filled})
            self._table.add(self._row(step, tuple(requires), error))

    async def _start_one(self, step: Step, stack: contextlib.AsyncExitStack) -> str:
        """Start one plugin; return why it was skipped, or an empty string."""
        uri = step.registration.uri
        try:
            arguments = {need.parameter: self._argument(step, need) for need in step.signature.needs}
            manager = contextlib.asynccontextmanager(step.registration.factory)
            value = await stack.enter_async_context(manager(**arguments))
        except plugin.SkipPlugin as skip:
            log.info("plugin skipped", extra={"plugin": uri, "reason": skip.reason})
            self._skipped[uri] = str(skip)
            return str(skip)
        except Exception as error:
            raise PluginFailed(f"plugin {uri} did not start: {error or type(error).__name__}") from error
        log.debug("plugin started", extra={"plugin": uri})
        self._keep(step, value)
        return ""

    def _keep(self, step: Step, value: Any) -> None:
        provides = step.signature.provides
        values = value if len(provides) > 1 else (value,)
        self._values[step.registration.uri] = tuple(zip(provides, values, strict=False))
        self._ids[step.registration.uri] = step.registration.id

    def _argument(self, step: Step, need: Need) -> Any:
        uri = step.registration.uri
        match need.kind:
            case Kind.CONFIG:
                return self._context.config(uri, need.type)
            case Kind.ROOT:
                return _directory(self._context.root / uri, 0o700)
            case Kind.STATE:
                return _directory(self._context.state / uri, 0o711)
            case Kind.MAPPING:
                return {self._ids[source]: self._value(source, need.type) for source in step.sources[need.parameter] if self._has(source)}
            case Kind.SEQUENCE:
                return self.all(need.type)
        return self._single(step, need)

    def _single(self, step: Step, need: Need) -> Any:
        if need.type in self._context.given:
            return self._context.given[need.type]
        for source in step.sources[need.parameter]:
            if self._has(source):
                return self._value(source, need.type)
            if need.kind is Kind.ONE:
                raise plugin.SkipPlugin(f"{source} is not there ({self._skipped[source]})")
        return None

    def _row(self, step: Step, requires: tuple[str, ...], error: str) -> plugin.PluginInfo:
        """What introspection tells of a plugin; one that keeps files exports their ``root``, by which clients find them."""
        registration = step.registration
        rooted = any(need.kind is Kind.ROOT for need in step.signature.needs)
        return plugin.PluginInfo(
            type=registration.type,
            id=registration.id,
            requires=requires,
            platforms=registration.platforms,
            capabilities=registration.capabilities,
            exports=({"root": str(self._context.root / registration.uri)} if rooted else {}) | dict(registration.exports),
            init_error=error,
        )

    def _has(self, uri: str) -> bool:
        return uri in self._values

    def _value(self, uri: str, wanted: Any) -> Any:
        return next(value for provided, value in self._values[uri] if resolve.satisfies(provided, wanted))

    def all(self, wanted: Any) -> list[Any]:
        """Return the values of type ``wanted`` of every running plugin, in start order."""
        return [value for values in self._values.values() for provided, value in values if resolve.satisfies(provided, wanted)]


def _directory(path: Path, mode: int) -> Path:
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    path.chmod(mode)
    return path
