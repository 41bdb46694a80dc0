"""containerd.services.images.v1: names of content.  The store publishes the events."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.images.v1 import images_pb2 as pb
from pydock.core import garbage, images, plugin
from pydock.services import calls, codec, routing


class Images:
    """Answers the Images service."""

    wire = pb.DESCRIPTOR.services_by_name["Images"]
    raw = frozenset[str]()

    def __init__(self, store: images.Store, collector: garbage.Collector) -> None:
        self._store, self._collector = store, collector

    async def get(self, request: pb.GetImageRequest, call: calls.Call) -> pb.GetImageResponse:
        """Return one image."""
        return pb.GetImageResponse(image=_wire(await self._store.get(call.ns, request.name)))

    async def list(self, request: pb.ListImagesRequest, call: calls.Call) -> pb.ListImagesResponse:
        """Return the images that any of the filters matches."""
        found = await self._store.list(call.ns, tuple(request.filters))
        return pb.ListImagesResponse(images=[_wire(item) for item in found])

    async def create(self, request: pb.CreateImageRequest, call: calls.Call) -> pb.CreateImageResponse:
        """Make an image; ``source_date_epoch`` is its time of creation in place of now."""
        item = _dated(_core(request.image), codec.time_of(request.source_date_epoch))
        return pb.CreateImageResponse(image=_wire(await self._store.create(call.ns, item)))

    async def update(self, request: pb.UpdateImageRequest, call: calls.Call) -> pb.UpdateImageResponse:
        """Change labels and target, those that the mask names or all."""
        item = _dated(_core(request.image), codec.time_of(request.source_date_epoch))
        return pb.UpdateImageResponse(image=_wire(await self._store.update(call.ns, item, tuple(request.update_mask.paths))))

    async def delete(self, request: pb.DeleteImageRequest, call: calls.Call) -> empty_pb2.Empty:
        """Remove a name, with ``target`` only while it points there; ``sync`` answers when what it alone held is collected."""
        await self._store.delete(call.ns, request.name, request.target.digest)
        if request.sync:
            await self._collector.collect()
        return empty_pb2.Empty()


def _core(item: pb.Image) -> images.Image:
    return codec.decode(images.Image, item, created_at=0, updated_at=0)


def _dated(item: images.Image, epoch: int) -> images.Image:
    return dataclasses.replace(item, created_at=epoch, updated_at=epoch) if epoch else item


def _wire(item: images.Image) -> pb.Image:
    return codec.encode(pb.Image, item)


@plugin.plugin("io.containerd.grpc.v1", "images")
async def service(store: images.Store, collector: garbage.Collector) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Images service."""
    yield routing.Service(Images(store, collector))
