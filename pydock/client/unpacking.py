"""Making the snapshots of an image from its layers, for one that was fetched without.

Invariants: a layer's snapshot is named by its chain id and committed only when what was applied has the digest the config promises; whoever
comes second finds the first one's and goes on.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence

from pydock._proto.containerd.services.diff.v1 import diff_pb2
from pydock._proto.containerd.types import descriptor_pb2
from pydock.base import errors
from pydock.client import content, manifests, snapshots
from pydock.client.connection import Connection
from pydock.oci import image as oci

GC_REF = "containerd.io/gc.ref.snapshot."
UNCOMPRESSED = "containerd.io/uncompressed"


def is_unpacked(conn: Connection, snapshotter: str, chain: str) -> bool:
    """Tell whether the snapshot of a chain id is there."""
    try:
        snapshots.stat(conn, snapshotter, chain)
    except errors.NotFound:
        return False
    return True


def unpack(conn: Connection, snapshotter: str, manifest: manifests.Manifest, ids: Sequence[str], told: Callable[[str], None]) -> str:
    """Make what is missing of an image's snapshots; return the chain id of the last. ``conn`` must hold a lease.

    ``told`` hears of each layer's digest as it is begun. Raises FailedPrecondition when a layer is not what the config says.
    """
    if len(ids) != len(manifest.layers):
        raise errors.InvalidArgument(f"{len(manifest.layers)} layers, but {len(ids)} layer digests in the image config")
    chain = manifests.chain_ids(ids)
    for number, layer in enumerate(manifest.layers):
        if not is_unpacked(conn, snapshotter, chain[number]):
            told(layer.digest)
            _apply(conn, snapshotter, layer, (chain[number - 1] if number else "", chain[number], ids[number]))
    if chain:
        content.label(conn, manifest.config.digest, {GC_REF + snapshotter: chain[-1]})
    return chain[-1] if chain else ""


def _apply(conn: Connection, snapshotter: str, layer: oci.Descriptor, names: tuple[str, str, str]) -> None:
    parent, chain, diff_id = names
    key = f"extract-{secrets.token_hex(4)} {chain}"
    mounts = snapshots.prepare(conn, snapshotter, key, parent)
    try:
        target = descriptor_pb2.Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)
        request = diff_pb2.ApplyRequest(diff=target, mounts=mounts)
        applied = conn.unary("/containerd.services.diff.v1.Diff/Apply", request, diff_pb2.ApplyResponse).applied
        if applied.digest != diff_id:
            raise errors.FailedPrecondition(f"layer {layer.digest} unpacks to {applied.digest}, not to {diff_id}")
        snapshots.commit(conn, snapshotter, chain, key)
    except errors.AlreadyExists:
        _drop(conn, snapshotter, key)
    except errors.PydockError:
        _drop(conn, snapshotter, key)
        raise
    content.label(conn, layer.digest, {UNCOMPRESSED: diff_id})


def _drop(conn: Connection, snapshotter: str, key: str) -> None:
    with contextlib.suppress(errors.NotFound):
        snapshots.remove(conn, snapshotter, key)
