"""Containers: records of what could run, with the runtime spec in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import empty_pb2, field_mask_pb2

from pydock._proto.containerd.runc.v1 import options_pb2
from pydock._proto.containerd.services.containers.v1 import containers_pb2 as api
from pydock.client import anys
from pydock.client.connection import Connection

_SERVICE = "/containerd.services.containers.v1.Containers"
STOP_SIGNAL_LABEL = "io.containerd.image.config.stop-signal"

Container = api.Container
RuncOptions = options_pb2.Options


def get(conn: Connection, identifier: str) -> Container:
    """Return one container. Raises NotFound."""
    return conn.unary(f"{_SERVICE}/Get", api.GetContainerRequest(id=identifier), api.GetContainerResponse).container


def listing(conn: Connection, filters: Sequence[str] = ()) -> Sequence[Container]:
    """Return the containers that match any filter."""
    return conn.unary(f"{_SERVICE}/List", api.ListContainersRequest(filters=filters), api.ListContainersResponse).containers


def create(conn: Connection, container: Container) -> Container:
    """Store a container. Raises AlreadyExists, InvalidArgument."""
    return conn.unary(f"{_SERVICE}/Create", api.CreateContainerRequest(container=container), api.CreateContainerResponse).container


def label(conn: Connection, identifier: str, labels: Mapping[str, str]) -> Container:
    """Set the given labels and leave the others; an empty value removes its label. Raises NotFound."""
    mask = field_mask_pb2.FieldMask(paths=[f"labels.{key}" for key in labels])
    request = api.UpdateContainerRequest(container=Container(id=identifier, labels=labels), update_mask=mask)
    return conn.unary(f"{_SERVICE}/Update", request, api.UpdateContainerResponse).container


def delete(conn: Connection, identifier: str) -> None:
    """Remove a container without a task. Raises NotFound, FailedPrecondition."""
    conn.unary(f"{_SERVICE}/Delete", api.DeleteContainerRequest(id=identifier), empty_pb2.Empty)


def runtime(name: str, options: RuncOptions | None = None) -> Container.Runtime:
    """Return the runtime part of a container."""
    return Container.Runtime(name=name, options=anys.pack(options) if options is not None else None)


def spec(container: Container) -> dict[str, Any]:
    """Return the runtime spec of a container as JSON-like data."""
    document = anys.plain(container.spec)
    return document if isinstance(document, dict) else {}
