"""Images: names that point to content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import empty_pb2, field_mask_pb2

from pydock._proto.containerd.services.images.v1 import images_pb2 as api
from pydock._proto.containerd.types import descriptor_pb2
from pydock.client.connection import Connection

_SERVICE = "/containerd.services.images.v1.Images"

Image = api.Image
Descriptor = descriptor_pb2.Descriptor


def get(conn: Connection, name: str) -> Image:
    """Return one image. Raises NotFound."""
    return conn.unary(f"{_SERVICE}/Get", api.GetImageRequest(name=name), api.GetImageResponse).image


def listing(conn: Connection, filters: Sequence[str] = ()) -> Sequence[Image]:
    """Return the images that match any filter."""
    return conn.unary(f"{_SERVICE}/List", api.ListImagesRequest(filters=filters), api.ListImagesResponse).images


def create(conn: Connection, name: str, target: Descriptor, labels: Mapping[str, str]) -> Image:
    """Name a target. Raises AlreadyExists."""
    request = api.CreateImageRequest(image=Image(name=name, target=target, labels=labels))
    return conn.unary(f"{_SERVICE}/Create", request, api.CreateImageResponse).image


def retarget(conn: Connection, name: str, target: Descriptor) -> Image:
    """Point a name elsewhere. Raises NotFound."""
    mask = field_mask_pb2.FieldMask(paths=["target"])
    request = api.UpdateImageRequest(image=Image(name=name, target=target), update_mask=mask)
    return conn.unary(f"{_SERVICE}/Update", request, api.UpdateImageResponse).image


def label(conn: Connection, name: str, labels: Mapping[str, str], *, replace: bool = False) -> Image:
    """Set the given labels and leave the others (or drop them: ``replace``); an empty value removes its label."""
    paths = ["labels"] if replace else [f"labels.{key}" for key in labels]
    request = api.UpdateImageRequest(image=Image(name=name, labels=labels), update_mask=field_mask_pb2.FieldMask(paths=paths))
    return conn.unary(f"{_SERVICE}/Update", request, api.UpdateImageResponse).image


def delete(conn: Connection, name: str, *, sync: bool = False) -> None:
    """Remove a name; ``sync`` waits until what it alone held is gone. Raises NotFound."""
    conn.unary(f"{_SERVICE}/Delete", api.DeleteImageRequest(name=name, sync=sync), empty_pb2.Empty)
