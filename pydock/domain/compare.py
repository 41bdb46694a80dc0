"""The making of layers: what changed between two snapshots becomes a blob of the namespace.

Vocabulary: a *ref* names the ingest the layer is written under; one made up here is thrown away when the work fails, a client's is kept
for it to look at or abort.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from pydock.base import errors, groups
from pydock.core import content, diff
from pydock.oci import image

UNCOMPRESSED_LABEL = "containerd.io/uncompressed"


@dataclass(frozen=True, slots=True)
class Request:
    """A layer to be made under ``ref`` ("" for any) with ``labels``, held by ``lease`` where one is named."""

    trees: diff.Trees
    options: diff.LayerOptions = field(default_factory=diff.LayerOptions)
    ref: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    lease: str = ""


async def layer(store: content.Store, comparer: diff.Comparer, ns: str, request: Request) -> image.Descriptor:
    """Make the layer and return its descriptor; a blob that is there already is as good.

    Raises as `diff.Comparer.compare` and `content.Store.writer`.
    """
    async with _ingest(store, ns, request) as writer:
        made = await comparer.compare(request.trees, request.options, writer)
        digest = await writer.digest()
        labels = {**request.labels, UNCOMPRESSED_LABEL: made.diff_id} if made.compressed else dict(request.labels)
        try:
            await writer.commit(0, digest, labels)
        except errors.AlreadyExists:
            await _complete(store, ns, digest, labels)
    return image.Descriptor(made.media_type, digest, (await store.info(ns, digest)).size)


async def _complete(store: content.Store, ns: str, digest: str, labels: Mapping[str, str]) -> None:
    """Tell the diff id of a blob that another way brought, without it."""
    info = await store.info(ns, digest)
    if UNCOMPRESSED_LABEL in labels and UNCOMPRESSED_LABEL not in info.labels:
        told = content.Info(digest, info.size, labels=labels)
        await store.update(ns, told, [f"labels.{UNCOMPRESSED_LABEL}"])


async def _give_up(store: content.Store, ns: str, writer: content.Writer | None, ref: str) -> None:
    if writer:
        await writer.close()
    if ref:
        with contextlib.suppress(errors.NotFound):
            await store.abort(ns, ref)


@contextlib.asynccontextmanager
async def _ingest(store: content.Store, ns: str, request: Request) -> AsyncIterator[content.Writer]:
    ref = request.ref or f"layer-{uuid.uuid4()}"
    writer = None
    try:
        writer = await store.writer(ns, ref, lease=request.lease)
        yield writer
    except BaseException:
        await groups.finish(_give_up(store, ns, writer, "" if request.ref else ref))
        raise
    await writer.close()
