"""Events: what happens in the daemon, as it happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydock._proto.containerd.services.events.v1 import events_pb2 as api
from pydock._proto.containerd.types import event_pb2
from pydock.client.connection import Connection

Envelope = event_pb2.Envelope


def subscribe(conn: Connection, filters: Iterable[str] = ()) -> Iterator[Envelope]:
    """Yield the events that match any filter, of all namespaces, until the daemon or the caller ends it."""
    return conn.read("/containerd.services.events.v1.Events/Subscribe", api.SubscribeRequest(filters=filters), Envelope)
