"""Unpacking: the layers of an image become committed snapshots, each named by its chain id.

Vocabulary: a *diff id* is the digest of a layer's uncompressed tar; a *chain id* names the stack up to a layer (OCI image-spec config.md,
"Layer ChainID").  A *rebasing* snapshotter lets layers be unpacked side by side while they still arrive and be put on their parents
afterwards; with others one layer follows the other.
Invariant: a snapshot is committed under a chain id only when its layer is in content and had the diff id the config names.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydock.base import errors, groups, locks, tracing
from pydock.base.failpoint import failpoint
from pydock.core import content, diff, leases, mounts, plugin, snapshots, transfer
from pydock.domain import fetch
from pydock.oci import image

UNCOMPRESSED_LABEL = "containerd.io/uncompressed"
GC_SNAPSHOT_LABEL = "containerd.io/gc.ref.snapshot."

Ready = Callable[[image.Descriptor], Awaitable[None]]  # returns when the blob is in the store
Incoming = Callable[[image.Descriptor], Awaitable[diff.Source]]  # returns when the blob begins to arrive


@dataclass(frozen=True)
class Blobs:
    """How the layers of an image that is still being pulled are waited for."""

    ready: Ready
    incoming: Incoming


@dataclass(frozen=True)
class Job:
    """One image for one snapshotter ("" is the default); without ``blobs`` all layers are in the store."""

    ns: str
    snapshotter: str
    config: image.Descriptor
    diff_ids: Sequence[str]
    layers: Sequence[image.Descriptor]
    lease: str = ""
    blobs: Blobs | None = None
    report: transfer.Report = transfer.silent


@dataclass
class _Stack:
    """A job in work: the layers from ``first`` on are made, above ``base`` directories; events say how far each is."""

    job: Job
    chains: Sequence[str]
    first: int
    rebase: bool
    base: Sequence[str] = ()
    uppers: dict[int, str] = field(default_factory=dict)
    started: dict[int, asyncio.Event] = field(default_factory=dict)
    applied: dict[int, asyncio.Event] = field(default_factory=dict)
    committed: dict[int, asyncio.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for at in range(self.first, len(self.chains)):
            self.started[at], self.applied[at], self.committed[at] = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def parent(self, at: int) -> str:
        return self.chains[at - 1] if at else ""

    async def below(self, at: int) -> Sequence[str]:
        """Return the directories below layer ``at`` when all of them are complete."""
        for other in range(self.first, at):
            await self.applied[other].wait()
        return [self.uppers[other] for other in reversed(range(self.first, at))] + list(self.base)


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return the chain id of every layer, lowest first."""
    out: list[str] = []
    for diff_id in diff_ids:
        out.append("sha256:" + hashlib.sha256(f"{out[-1]} {diff_id}".encode()).hexdigest() if out else diff_id)
    return out


class Unpacker:
    """Applies layers; of images with the same lowest layer one is unpacked after the other, so that what they share is made once."""

    def __init__(self, store: content.Store, trees: snapshots.Service, applier: diff.Applier, holds: leases.Manager) -> None:
        self._store, self._trees, self._applier, self._holds = store, trees, applier, holds
        self._locks = locks.Keyed()

    @tracing.traced("unpack")
    async def unpack(self, job: Job) -> str:
        """Unpack; returns the topmost chain id ("" for an image without layers)."""
        if len(job.layers) != len(job.diff_ids):
            raise errors.InvalidArgument(f"{job.config.digest}: {len(job.layers)} layers, but {len(job.diff_ids)} diff ids")
        chains = chain_ids(job.diff_ids)
        if not chains:
            return ""
        async with self._locks.hold((job.ns, job.snapshotter, chains[0])):
            await self._stack(_Stack(job, chains, await self._missing(job, chains), self._trees.rebases(job.snapshotter)))
        await self._label(job.ns, job.config.digest, GC_SNAPSHOT_LABEL + self._name(job), chains[-1])
        return chains[-1]

    async def _missing(self, job: Job, chains: Sequence[str]) -> int:
        """Return the lowest layer above all that are there."""
        for at in reversed(range(len(chains))):
            if await self._exists(job, chains[at]):
                if not job.lease:
                    return at + 1
                await self._holds.add_resource(job.ns, job.lease, leases.Resource(chains[at], f"snapshots/{self._name(job)}"))
                if await self._exists(job, chains[at]):  # held before a collection could take it
                    return at + 1
        return 0

    def _name(self, job: Job) -> str:
        return job.snapshotter or self._trees.names()[0]

    async def _exists(self, job: Job, chain: str) -> bool:
        try:
            info = await self._trees.stat(job.ns, job.snapshotter, chain)
        except errors.NotFound:
            return False
        return info.kind == snapshots.Kind.COMMITTED

    async def _stack(self, stack: _Stack) -> None:
        todo = range(stack.first, len(stack.chains))
        if not stack.rebase:
            for at in todo:
                await self._layer(stack, at)
            return
        async with groups.group() as group:
            for at in todo:
                group.create_task(self._layer(stack, at))
        if todo:
            await self._trees.settle(stack.job.ns, stack.job.snapshotter)

    @tracing.traced("unpack.layer")
    async def _layer(self, stack: _Stack, at: int) -> None:
        job, layer, key = stack.job, stack.job.layers[at], f"extract-{secrets.token_hex(8)} {stack.chains[at]}"
        labels, parent = {snapshots.REF_LABEL: stack.chains[at]}, stack.parent(at)
        if stack.rebase and at > stack.first:
            labels[snapshots.REBASE_LABEL], parent = "true", ""
        done = False
        try:
            request = snapshots.Preparation(key, parent, labels, job.lease)
            target = await groups.finish(self._trees.prepare(job.ns, job.snapshotter, request))
            failpoint("unpack.prepared")
            diff_id = await self._apply(stack, at, target)
            failpoint("unpack.applied")
            done = await self._commit(stack, at, key)
            failpoint("unpack.committed")
        finally:
            if not done:
                await self._drop(job, key)
        stack.committed[at].set()
        await self._label(job.ns, layer.digest, UNCOMPRESSED_LABEL, diff_id)
        job.report(transfer.Progress("extracted", fetch.ref_key(layer), progress=layer.size, total=layer.size, descriptor=layer))

    async def _apply(self, stack: _Stack, at: int, target: Sequence[mounts.Mount]) -> str:
        job, layer = stack.job, stack.job.layers[at]
        if stack.rebase and (found := mounts.directories(target)):
            stack.uppers[at] = found[0]
            if at == stack.first:
                stack.base = found[1]
        lowers = (lambda: stack.below(at)) if stack.rebase and at > stack.first else None
        async with self._source(job, layer) as source:
            if at > stack.first:  # helpers are few: one that waits for a lower layer must not have the place of that layer
                await stack.started[at - 1].wait()
            job.report(transfer.Progress("extracting", fetch.ref_key(layer), total=layer.size, descriptor=layer))
            stack.started[at].set()
            applied = await self._applier.apply_source(source, target, lowers)
        if job.blobs:
            await job.blobs.ready(layer)
        if applied.digest != job.diff_ids[at]:
            expected = f"calculated on extraction of {layer.digest}, expected {job.diff_ids[at]}"
            raise errors.FailedPrecondition(f"wrong diff id {applied.digest} {expected}")
        stack.applied[at].set()
        return applied.digest

    @asynccontextmanager
    async def _source(self, job: Job, layer: image.Descriptor) -> AsyncIterator[diff.Source]:
        if job.blobs:
            yield await job.blobs.incoming(layer)
            return
        reader = await self._store.open(job.ns, layer.digest)
        try:
            yield _Stored(reader)
        finally:
            await reader.close()

    async def _commit(self, stack: _Stack, at: int, key: str) -> bool:
        """Commit in the order of layers; tells whether this one was it (another client may have been faster)."""
        job, parent = stack.job, stack.parent(at)
        request = snapshots.Commitment(stack.chains[at], key, lease=job.lease)
        if at > stack.first:
            await stack.committed[at - 1].wait()
        try:
            if stack.rebase:
                await self._trees.rebase(job.ns, job.snapshotter, request, parent)
            else:
                await self._trees.commit(job.ns, job.snapshotter, request)
        except errors.AlreadyExists:
            return False
        return True

    async def _drop(self, job: Job, key: str) -> None:
        try:
            await groups.finish(self._trees.remove(job.ns, job.snapshotter, key))
        except errors.NotFound:
            return

    async def _label(self, ns: str, digest: str, key: str, value: str) -> None:
        info = content.Info(digest, 0, labels={key: value})
        await self._store.update(ns, info, [f"labels.{key}"])


class _Stored:
    """A blob that is all there, as `diff.Source`."""

    def __init__(self, reader: content.Reader) -> None:
        self.fd, self.size, self.available = reader.fd, reader.size, reader.size

    async def grown(self, beyond: int) -> int:
        return self.size


@plugin.plugin("io.pydock.unpack.v1", "layers")
async def unpacker(
    store: content.Store, trees: snapshots.Service, applier: diff.Applier, holds: leases.Manager
) -> AsyncIterator[Unpacker]:
    """Offer unpacking to the verbs that need it."""
    yield Unpacker(store, trees, applier, holds)
