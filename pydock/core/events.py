"""Events: what happened, in order, to whoever listens.

Vocabulary: an *envelope* is one event with its topic ("/images/create"), namespace and time; its *sequence* is its number in the order of
all events of a root, one more than that of the envelope before.  Invariants: every subscriber sees the envelopes it asked for in one
order, none twice; a slow subscriber never blocks a publisher and never grows the daemon without bound (it gets ResourceExhausted).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from pydock.core import containers


class Event:
    """Base of the events pydock itself makes: packed as ``containerd.events.<class name>`` with the fields of the same names."""

    __slots__ = ()
    topic: ClassVar[str]


@dataclass(frozen=True, slots=True)
class ImageCreate(Event):
    topic: ClassVar[str] = "/images/create"
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageUpdate(Event):
    topic: ClassVar[str] = "/images/update"
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageDelete(Event):
    topic: ClassVar[str] = "/images/delete"
    name: str


@dataclass(frozen=True, slots=True)
class ContainerRuntime:
    """The nested message ``containerd.events.ContainerCreate.Runtime``."""

    name: str
    options: containers.Any | None = None


@dataclass(frozen=True, slots=True)
class ContainerCreate(Event):
    topic: ClassVar[str] = "/containers/create"
    id: str
    image: str
    runtime: ContainerRuntime


@dataclass(frozen=True, slots=True)
class ContainerUpdate(Event):
    topic: ClassVar[str] = "/containers/update"
    id: str
    image: str
    labels: Mapping[str, str]
    snapshot_key: str


@dataclass(frozen=True, slots=True)
class ContainerDelete(Event):
    topic: ClassVar[str] = "/containers/delete"
    id: str


@dataclass(frozen=True, slots=True)
class ContentCreate(Event):
    topic: ClassVar[str] = "/content/create"
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ContentDelete(Event):
    topic: ClassVar[str] = "/content/delete"
    digest: str


@dataclass(frozen=True, slots=True)
class NamespaceCreate(Event):
    topic: ClassVar[str] = "/namespaces/create"
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamespaceUpdate(Event):
    topic: ClassVar[str] = "/namespaces/update"
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamespaceDelete(Event):
    topic: ClassVar[str] = "/namespaces/delete"
    name: str


@dataclass(frozen=True, slots=True)
class SnapshotPrepare(Event):
    topic: ClassVar[str] = "/snapshot/prepare"
    key: str
    parent: str
    snapshotter: str


@dataclass(frozen=True, slots=True)
class SnapshotCommit(Event):
    topic: ClassVar[str] = "/snapshot/commit"
    key: str
    name: str
    snapshotter: str


@dataclass(frozen=True, slots=True)
class SnapshotRemove(Event):
    topic: ClassVar[str] = "/snapshot/remove"
    key: str
    snapshotter: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """``timestamp`` in ns since the epoch; ``event`` a packed containerd.events.* message; ``sequence`` is given by the log."""

    timestamp: int
    namespace: str
    topic: str
    event: containers.Any
    sequence: int = field(default=0, compare=False)


class Packer(Protocol):
    """Knows the wire form of events (the gRPC front does; the exchange is given one)."""

    def pack(self, event: Event) -> containers.Any: ...
    def field(self, event: containers.Any, path: tuple[str, ...]) -> str | None:
        """The text of a field of a packed event, for filters (``event.container_id``); None when it has none."""


class Exchange(Protocol):
    """Takes events in and fans them out to subscribers, in order."""

    def publish(self, ns: str, event: Event) -> None:
        """Pack, stamp and fan out one of our own events."""

    def publish_packed(self, ns: str, topic: str, event: containers.Any) -> None:
        """A client's event: InvalidArgument for a topic that is not /a/b... of identifiers."""

    def forward(self, envelope: Envelope) -> None:
        """Fan out an envelope someone else stamped (a shim)."""

    def subscribe(self, filters: Iterable[str] = ()) -> AbstractAsyncContextManager[AsyncIterator[Envelope]]:
        """Envelopes from the moment the block is entered; any of the filters matches (fields: topic, namespace, event.*)."""


@dataclass(frozen=True, slots=True)
class Span:
    """The envelopes a log holds now, by sequence: ``oldest`` to ``newest``; empty when oldest is newest + 1."""

    oldest: int
    newest: int


class Log(Exchange, Protocol):
    """An exchange that keeps its last envelopes, so that who was cut off goes on where it stopped."""

    def span(self) -> Span:
        """Return what is kept."""

    def resume(self, filters: Iterable[str], after: int) -> AbstractAsyncContextManager[AsyncIterator[Envelope]]:
        """As `subscribe`, beginning with what followed the envelope ``after``.

        Raises OutOfRange where that is kept no more (there is a gap: look at the state anew) or was never published.
        """
