"""Namespaces and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import empty_pb2, field_mask_pb2

from pydock._proto.containerd.services.namespaces.v1 import namespace_pb2 as api
from pydock.client.connection import Connection

_SERVICE = "/containerd.services.namespaces.v1.Namespaces"

Namespace = api.Namespace


def get(conn: Connection, name: str) -> Namespace:
    """Return one namespace. Raises NotFound."""
    return conn.unary(f"{_SERVICE}/Get", api.GetNamespaceRequest(name=name), api.GetNamespaceResponse).namespace


def listing(conn: Connection) -> Sequence[Namespace]:
    """Return all namespaces."""
    return conn.unary(f"{_SERVICE}/List", api.ListNamespacesRequest(), api.ListNamespacesResponse).namespaces


def create(conn: Connection, name: str, labels: Mapping[str, str]) -> None:
    """Make a namespace. Raises AlreadyExists, InvalidArgument."""
    request = api.CreateNamespaceRequest(namespace=Namespace(name=name, labels=labels))
    conn.unary(f"{_SERVICE}/Create", request, api.CreateNamespaceResponse)


def label(conn: Connection, name: str, labels: Mapping[str, str]) -> None:
    """Set the given labels and leave the others; an empty value removes its label. Raises NotFound."""
    mask = field_mask_pb2.FieldMask(paths=[f"labels.{key}" for key in labels])
    request = api.UpdateNamespaceRequest(namespace=Namespace(name=name, labels=labels), update_mask=mask)
    conn.unary(f"{_SERVICE}/Update", request, api.UpdateNamespaceResponse)


def delete(conn: Connection, name: str) -> None:
    """Remove a namespace. Raises NotFound, FailedPrecondition while it holds anything."""
    conn.unary(f"{_SERVICE}/Delete", api.DeleteNamespaceRequest(name=name), empty_pb2.Empty)
