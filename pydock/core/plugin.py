"""What a plugin is: an async-generator factory whose parameters are its needs and whose yield type is what it provides.

Vocabulary: a *type* is a family of plugins (``io.containerd.snapshotter.v1``), an *id* its member (``overlayfs``), a *uri* is ``type.id``;
a *registration* is a factory with both names; a *need* is one parameter of a factory, resolved by its annotation alone:

==================================  =====================================================================================
annotation                          value
==================================  =====================================================================================
a subclass of ``Config``            the section ``[plugins."<uri>"]`` of the configuration file, checked and with defaults
``PluginRoot`` / ``PluginState``    an own directory below the daemon's root (0700, durable) / state (0711, gone after boot)
``T``                               the value of the one plugin that provides ``T``
``Annotated[T, "<uri>"]``           the value of that plugin, where several provide ``T``
``T | None``                        as ``T``, or None where nothing provides it (or its plugin was skipped)
``Mapping[str, T]``                 all values of type ``T`` by plugin id
``Sequence[T]``                     all values of type ``T`` in start order
==================================  =====================================================================================

A factory that yields ``tuple[A, B]`` provides ``A`` and ``B``. The daemon itself provides ``Daemon``, ``PluginTable``, ``Supervisor`` and
``metrics.Options``.
Invariants: a factory yields once; what follows the ``yield`` closes what preceded it; the order of start is the same in every run.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, NewType, Protocol, TypeVar

T = TypeVar("T")

PluginRoot = NewType("PluginRoot", Path)
PluginState = NewType("PluginState", Path)

Factory = Callable[..., AsyncIterator[Any]]


class SkipPlugin(Exception):
    """Raised by a factory that cannot work on this host; not a failure. Clients tell it from one by the last two words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}: skip plugin"


class Config:
    """Base of every plugin's configuration: subclasses are frozen dataclasses whose fields are made by ``option``."""


def option(default: Any, doc: str) -> Any:
    """Give a field of a ``Config`` its default and the sentence that documents it; lists and tables are copied per instance.

    Types a field may have: bool, int, float, str, Path, ``tuple[T, ...]``, ``dict[str, T]``, another such dataclass, ``T | None``.
    """
    if isinstance(default, (list, dict)):
        frozen = default
        return dataclasses.field(default_factory=lambda: type(frozen)(frozen), metadata={"doc": doc})
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclasses.dataclass(frozen=True)
class Registration:
    """A factory under its names, not started; ``capabilities`` and ``exports`` are shown to clients by introspection."""

    type: str
    id: str
    factory: Factory
    platforms: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    exports: tuple[tuple[str, str], ...] = ()

    @property
    def uri(self) -> str:
        """Return ``type.id``, the key of the plugin's configuration section and directories."""
        return f"{self.type}.{self.id}"


@dataclasses.dataclass(frozen=True)
class PluginInfo:
    """One row of introspection: what a plugin is and how its start went; ``init_error`` is empty or ends in "skip plugin"."""

    type: str
    id: str
    requires: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    exports: dict[str, str] = dataclasses.field(default_factory=dict)
    init_error: str = ""


class PluginTable:
    """All plugins of this daemon in start order; complete once the daemon is ready, so read it per request."""

    def __init__(self) -> None:
        self._rows: list[PluginInfo] = []

    def add(self, row: PluginInfo) -> None:
        """Record the outcome of one start."""
        self._rows.append(row)

    def rows(self) -> tuple[PluginInfo, ...]:
        """Return a row for every plugin tried so far."""
        return tuple(self._rows)


@dataclasses.dataclass(frozen=True)
class Daemon:
    """Where this daemon lives: ``root`` is durable, ``state`` is emptied by a boot, ``address`` is the gRPC socket's path.

    ``gid`` owns the public sockets (mode 0660); ``early`` holds what was made before the heavy imports, by the name of its maker.
    """

    root: Path
    state: Path
    address: Path
    gid: int = 0
    version: str = ""
    early: dict[str, object] = dataclasses.field(default_factory=dict)

    @property
    def ttrpc_address(self) -> Path:
        """Return the path at which containerd's clients and shims expect the ttrpc events socket."""
        return Path(f"{self.address}.ttrpc")


class GrpcService(Protocol):
    """One gRPC service; ``handler`` is a ``grpc.GenericRpcHandler``, opaque here so that grpc is imported late."""

    @property
    def name(self) -> str:
        """Return the full service name, ``containerd.services.content.v1.Content``."""

    @property
    def handler(self) -> object:
        """Return the ``grpc.GenericRpcHandler`` that answers its methods."""


class GrpcInterceptor(Protocol):
    """One interceptor of the gRPC front; all of them wrap every service in order of plugin start."""

    @property
    def interceptor(self) -> object:
        """Return the ``grpc.aio.ServerInterceptor``."""


class GrpcWrapper(Protocol):
    """Something around every gRPC method (counts, traces), made once a method, which an interceptor would be asked for every call."""

    def wrap(self, path: str, method: Any) -> Any:
        """Return the ``grpc.RpcMethodHandler`` to use for ``path`` (``/service/method``) in place of ``method``."""


class Supervisor(Protocol):
    """Keeps a background loop alive: logs its failure with the traceback and starts it again after a growing pause."""

    async def keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run ``loop()`` until it returns; a failure restarts it, cancellation ends it."""


class Spawn(Protocol):
    """Starts one background coroutine in the scope that ``background`` opened."""

    def __call__(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start ``work``; it is cancelled when the scope closes, and its unexpected failure fails the scope."""


def plugin(
    type: str,
    id: str,
    *,
    platforms: tuple[str, ...] = (),
    capabilities: tuple[str, ...] = (),
    exports: tuple[tuple[str, str], ...] = (),
) -> Callable[[Factory], Registration]:
    """Make the decorated async generator a plugin: the module attribute becomes its ``Registration``."""

    def register(factory: Factory) -> Registration:
        return Registration(type, id, factory, platforms, capabilities, exports)

    return register


@contextlib.asynccontextmanager
async def background() -> AsyncIterator[Spawn]:
    """Open a scope for loops around a ``yield``: a TaskGroup whose remaining tasks are cancelled when the body is done.

    What fails, the body or a loop, is raised as itself; only where several fail at once is it an ExceptionGroup.
    """
    running: set[asyncio.Task[Any]] = set()
    try:
        async with asyncio.TaskGroup() as group:

            def spawn(work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
                task = group.create_task(work, name=name)
                running.add(task)
                task.add_done_callback(running.discard)
                return task

            yield spawn
            for task in tuple(running):
                task.cancel()
    except BaseExceptionGroup as failed:
        if len(failed.exceptions) > 1:
            raise
        [only] = failed.exceptions
        raise only from only.__cause__
