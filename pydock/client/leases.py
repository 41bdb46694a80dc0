"""Leases: what protects resources from collection while somebody still works with them."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.leases.v1 import leases_pb2 as api
from pydock.base import clock
from pydock.client.connection import Connection

_SERVICE = "/containerd.services.leases.v1.Leases"
EXPIRE_LABEL = "containerd.io/gc.expire"
DAY = 24 * 3600

Lease = api.Lease


def create(conn: Connection, identifier: str, labels: Mapping[str, str], *, expires: float = DAY) -> Lease:
    """Make a lease that ends ``expires`` s from now (0: never); an empty id is chosen here."""
    every = dict(labels)
    if expires > 0:
        every[EXPIRE_LABEL] = clock.format_rfc3339((int(time.time() + expires)) * clock.SECOND)
    request = api.CreateRequest(id=identifier or f"{time.time_ns() % 1_000_000_000}-{secrets.token_urlsafe(3)}", labels=every)
    return conn.unary(f"{_SERVICE}/Create", request, api.CreateResponse).lease


def delete(conn: Connection, identifier: str, *, sync: bool = False) -> None:
    """End a lease; ``sync`` waits for the collection. Raises NotFound."""
    conn.unary(f"{_SERVICE}/Delete", api.DeleteRequest(id=identifier, sync=sync), empty_pb2.Empty)


def listing(conn: Connection, filters: Sequence[str] = ()) -> Sequence[Lease]:
    """Return the leases that match any filter."""
    return conn.unary(f"{_SERVICE}/List", api.ListRequest(filters=filters), api.ListResponse).leases


def resources(conn: Connection, identifier: str) -> Sequence[api.Resource]:
    """Return what a lease holds."""
    return conn.unary(f"{_SERVICE}/ListResources", api.ListResourcesRequest(id=identifier), api.ListResourcesResponse).resources


@contextlib.contextmanager
def held(conn: Connection) -> Iterator[Connection]:
    """Give a connection whose creations stay for the block, whatever refers to them."""
    lease = create(conn, "", {})
    try:
        yield conn.leased(lease.id)
    finally:
        delete(conn, lease.id)
