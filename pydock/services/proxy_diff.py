"""A differ in another process, as `core.diff.Applier` and `core.diff.Comparer`.

The other side reads and writes layers in the content of the namespace it is called for, by itself: it is a client of ours, or shares our
content store.  So a layer that is still arriving is waited for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import uuid
import zlib
from collections.abc import Callable, Sequence

import zstandard
from google.protobuf import timestamp_pb2

from pydock._proto.containerd.services.diff.v1 import diff_pb2 as pb
from pydock._proto.containerd.types import descriptor_pb2, mount_pb2
from pydock.base import errors, offload, request
from pydock.core import content, diff, events, mounts
from pydock.oci import image
from pydock.services import codec, remote

SERVICE = "/containerd.services.diff.v1.Diff/"
COMMIT_SECONDS = 300.0  # from the last byte of a layer to its commit
LAYER = "application/vnd.oci.image.layer.v1.tar"
_MAGIC = ((b"\x1f\x8b", "+gzip"), (b"\x28\xb5\x2f\xfd", "+zstd"))
CHUNK = 1 << 20


class ProxyDiffer:
    """Asks the diff service at the other end."""

    def __init__(self, far: remote.Remote, store: content.Store, blobs: content.Blobs, exchange: events.Exchange) -> None:
        self._far, self._store, self._blobs, self._exchange = far, store, blobs, exchange

    async def apply(self, layer: image.Descriptor, blob: content.Reader, target: Sequence[mounts.Mount]) -> diff.Applied:
        """Let the other side unpack ``layer``, which it reads itself."""
        return await self._apply_layer(layer, target)

    async def apply_source(self, blob: diff.Source, target: Sequence[mounts.Mount], lowers: diff.Lowers | None = None) -> diff.Applied:
        """As `apply`, once the layer is in the content store; its kind is told by its first bytes."""
        while blob.available < blob.size:
            await blob.grown(blob.available)
        digest, start = await offload.dedicated(_hash, blob.fd, blob.size)
        layer = image.Descriptor(LAYER + next((suffix for magic, suffix in _MAGIC if start.startswith(magic)), ""), digest, blob.size)
        await self._committed(request.namespace.get(), digest)
        if lowers is not None:
            target = _above(target, await lowers())
        return await self._apply_layer(layer, target)

    async def compare(self, trees: diff.Trees, options: diff.LayerOptions, writer: content.Writer) -> diff.Compared:
        """Let the other side make the layer in the content store, and copy it to ``writer``."""
        ns, ref = request.namespace.get(), f"proxy-diff-{uuid.uuid4()}"
        epoch = options.source_date_epoch
        wanted = pb.DiffRequest(left=_mounts(trees.lower), right=_mounts(trees.upper), media_type=options.media_type, ref=ref)
        if epoch is not None:
            wanted.source_date_epoch.CopyFrom(codec.stamp(epoch) or timestamp_pb2.Timestamp())
        made = codec.descriptor_of((await self._far.unary(f"{SERVICE}Diff", wanted, pb.DiffResponse, ns)).diff)
        reader = await self._blobs.open(made.digest)
        try:
            await writer.truncate(0)
            for offset in range(0, reader.size, CHUNK):
                await writer.write(await reader.read_at(offset, CHUNK))
            diff_id = await offload.dedicated(_diff_id, reader.fd, made)
        finally:
            await reader.close()
        return diff.Compared(made.media_type, diff_id, made.size, diff_id != made.digest)

    async def _apply_layer(self, layer: image.Descriptor, target: Sequence[mounts.Mount]) -> diff.Applied:
        wanted = pb.ApplyRequest(diff=codec.encode(descriptor_pb2.Descriptor, layer), mounts=_mounts(target))
        answer = await self._far.unary(f"{SERVICE}Apply", wanted, pb.ApplyResponse, request.namespace.get())
        return codec.decode(diff.Applied, answer.applied)

    async def _committed(self, ns: str, digest: str) -> None:
        """Return when the blob is in the store. Raises DeadlineExceeded where that takes too long."""
        async with asyncio.timeout(COMMIT_SECONDS), self._exchange.subscribe(['topic=="/content/create"']) as created:
            while not await self._there(ns, digest):
                await anext(created)

    async def _there(self, ns: str, digest: str) -> bool:
        try:
            await self._store.info(ns, digest)
        except errors.NotFound:
            return False
        return True


def _hash(fd: int, size: int) -> tuple[str, bytes]:
    """Return digest and first bytes of a file, blocking."""
    state, offset = hashlib.sha256(), 0
    while offset < size and (data := os.pread(fd, CHUNK, offset)):
        state.update(data)
        offset += len(data)
    return f"sha256:{state.hexdigest()}", os.pread(fd, 4, 0)


def _diff_id(fd: int, layer: image.Descriptor) -> str:
    """Return the digest of a layer's bytes uncompressed, blocking. Raises Unimplemented for a compression we do not know."""
    start = os.pread(fd, 4, 0)
    inflate: Callable[[bytes], bytes]
    if start.startswith(_MAGIC[0][0]):
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress
    elif start.startswith(_MAGIC[1][0]):
        inflate = zstandard.ZstdDecompressor().decompressobj().decompress
    elif layer.media_type.endswith((".tar", ".tar.v1")):
        return layer.digest
    else:
        raise errors.Unimplemented(f"a layer of type {layer.media_type}")
    state, offset = hashlib.sha256(), 0
    while data := os.pread(fd, CHUNK, offset):
        state.update(inflate(data))
        offset += len(data)
    return f"sha256:{state.hexdigest()}"


def _above(target: Sequence[mounts.Mount], lowers: Sequence[str]) -> list[mounts.Mount]:
    """Return ``target``, an overlay on an empty directory, on the directories it will stand on: who only mounts it sees what is below."""
    escaped = ":".join(lower.replace("\\", "\\\\").replace(":", "\\:") for lower in lowers)
    return [
        dataclasses.replace(item, options=[f"lowerdir={escaped}" if text.startswith("lowerdir=") else text for text in item.options])
        for item in target
    ]


def _mounts(found: Sequence[mounts.Mount]) -> list[mount_pb2.Mount]:
    return [codec.encode(mount_pb2.Mount, item) for item in found]
