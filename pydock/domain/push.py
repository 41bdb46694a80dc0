"""Pushing: an image goes to a registry, what it refers to before what refers to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from pydock.base import groups, platform
from pydock.core import content, images, remotes, transfer
from pydock.domain import fetch, manifests, walking
from pydock.oci import image

_BLOCK = 1 << 20


class Pusher:
    """Pushes; ``parallel`` blobs of one push go at the same time."""

    def __init__(self, store: content.Store, names: images.Store, registries: remotes.Remotes, parallel: int) -> None:
        self._store, self._names, self._registries, self._parallel = store, names, registries, parallel

    async def push(self, request: transfer.Request, source: transfer.Store, target: transfer.Registry) -> None:
        """Push the image ``source.name`` (of ``source.platforms``, all when none are named) to ``target.reference``."""
        item = await self._names.get(request.ns, source.name)
        matcher = platform.any_of(source.platforms) if source.platforms else None
        found = (await walking.Walker(self._store, request.ns, matcher).walk(item.target)).descriptors
        documents = [node for node in found if manifests.is_node(node)]
        blobs = [blob for blob in found if not manifests.is_node(blob)]
        async with self._registries.connect(target.access) as registry:
            pusher = registry.pusher(target.reference)
            limit = asyncio.Semaphore(self._parallel)
            async with groups.group() as group:
                for wanted in blobs:
                    group.create_task(self._one(request, pusher, wanted, False, limit))
            for wanted in reversed(documents):  # a parent was met before its children
                await self._one(request, pusher, wanted, wanted is item.target, limit)
        request.report(transfer.Progress(f"Completed push to OCI Registry ({target.reference})", source.name, descriptor=item.target))

    async def _one(
        self, request: transfer.Request, pusher: remotes.Pusher, wanted: image.Descriptor, root: bool, limit: asyncio.Semaphore
    ) -> None:
        key = fetch.ref_key(wanted)
        async with limit:
            if not root and await pusher.exists(wanted):
                request.report(transfer.Progress("already exists", key, progress=wanted.size, total=wanted.size, descriptor=wanted))
                return
            request.report(transfer.Progress("uploading", key, total=wanted.size, descriptor=wanted))
            await pusher.push(wanted, self._bytes(request.ns, wanted), root)
        request.report(transfer.Progress("complete", key, progress=wanted.size, total=wanted.size, descriptor=wanted))

    def _bytes(self, ns: str, wanted: image.Descriptor) -> Callable[[], AsyncIterator[bytes]]:
        async def read() -> AsyncIterator[bytes]:
            reader = await self._store.open(ns, wanted.digest)
            try:
                for offset in range(0, reader.size, _BLOCK):
                    yield await reader.read_at(offset, _BLOCK)
            finally:
                await reader.close()

        return read
