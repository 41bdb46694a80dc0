"""Pulling: a registry's image comes into content, gets its name, and is unpacked while its layers still arrive.

Order, so that a crash at any point leaves no name without what it names: blobs, labels that keep them, the name, and (beside the blobs)
snapshots.  Everything made before the name is held by a lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydock.base import errors, groups, platform, reference, tracing
from pydock.base.failpoint import failpoint
from pydock.core import content, diff, images, remotes, transfer
from pydock.domain import fetch, manifests, unpack, walking
from pydock.oci import image

SOURCE_LABEL = "containerd.io/distribution.source."


@dataclass
class _Pull:
    """What one pull knows on its way."""

    request: transfer.Request
    source: transfer.Registry
    target: transfer.Store
    fetcher: remotes.Fetcher
    matcher: platform.Matcher | None
    root: str
    limit: asyncio.Semaphore
    seen: set[str] = field(default_factory=set)
    done: dict[str, asyncio.Event] = field(default_factory=dict)
    arrivals: dict[str, fetch.Arrival] = field(default_factory=dict)

    def labels(self) -> Mapping[str, str]:
        """Return where its blobs come from, as containerd labels them: the host without its port, the repository."""
        try:
            spec = reference.parse(self.source.reference)
        except errors.InvalidArgument:
            return {}
        host = spec.hostname.rpartition(":")[0] or spec.hostname
        return {SOURCE_LABEL + host: spec.repository} if len(host) + len(spec.repository) < 3000 else {}

    async def ready(self, descriptor: image.Descriptor) -> None:
        await self.done[descriptor.digest].wait()

    async def incoming(self, descriptor: image.Descriptor) -> diff.Source:
        arrival = self.arrivals[descriptor.digest]
        await arrival.begun()
        return arrival

    def close(self) -> None:
        for arrival in self.arrivals.values():
            arrival.close()


class Puller:
    """Pulls; ``parallel`` is how many blobs of one pull are fetched at the same time, ``tries`` how often without progress."""

    def __init__(
        self,
        store: content.Store,
        names: images.Store,
        registries: remotes.Remotes,
        unpacker: unpack.Unpacker,
        parallel: int,
        tries: int = fetch.TRIES,
    ) -> None:
        self._store, self._names, self._registries, self._unpacker = store, names, registries, unpacker
        self._fetches = fetch.Fetches(store, tries)
        self._parallel = parallel

    @tracing.traced("pull")
    async def pull(self, request: transfer.Request, source: transfer.Registry, target: transfer.Store) -> None:
        """Pull ``source`` to the name ``target.name`` and unpack it as asked."""
        report = request.report
        report(transfer.Progress(f"Pulling from OCI Registry ({source.reference})"))
        async with self._registries.connect(source.access) as registry:
            name, root = await registry.resolve(source.reference)
            failpoint("pull.resolved")
            report(transfer.Progress("fetching image content", name, descriptor=root))
            pull = _Pull(
                request, source, target, registry.fetcher(name), _matcher(target), name, asyncio.Semaphore(self._parallel)
            )  # fmt: skip
            if not manifests.is_node(root):
                raise errors.InvalidArgument(f"{name}: {root.media_type!r} is not an image")
            try:
                async with groups.group() as group:
                    found = await self._node(pull, root, group, (pull.root,))
                    self._unpack(pull, found, group)
            finally:
                pull.close()
        failpoint("pull.before_name")
        await save(self._names, request, replace(images.Image(target.name or name, root), labels=target.labels))
        failpoint("pull.named")
        report(transfer.Progress(f"Completed pull from OCI Registry ({source.reference})"))

    async def _node(
        self, pull: _Pull, node: image.Descriptor, group: asyncio.TaskGroup, above: tuple[str, ...]
    ) -> list[manifests.Manifest]:
        """Fetch a document, start what it refers to; returns the manifests below it.  ``above`` names those it is under, for progress."""
        if len(above) > manifests.DEPTH + 1:
            raise errors.InvalidArgument(f"{node.digest}: indexes nested deeper than {manifests.DEPTH}")
        if node.digest in pull.seen:
            return []
        if len(pull.seen) + len(pull.done) >= walking.ALL:
            raise errors.InvalidArgument(f"{pull.root}: more than {walking.ALL} descriptors in one image")
        pull.seen.add(node.digest)
        await self._blob(pull, node, above[-1])
        parsed = manifests.parse(node, await fetch.read_document(self._store, pull.request.ns, node))
        wanted = walking.chosen(node, parsed, pull.matcher)
        if isinstance(parsed, manifests.Index) and pull.target.manifest_limit:
            wanted = wanted[: pull.target.manifest_limit]
        await walking.keep(self._store, pull.request.ns, node, parsed, wanted)
        failpoint("pull.manifest")
        found: list[manifests.Manifest] = []
        for child in wanted:
            if manifests.is_node(child):
                found += await self._node(pull, child, group, (*above, fetch.ref_key(node)))
            elif child.digest not in pull.done:
                pull.done[child.digest] = asyncio.Event()
                if pull.target.unpacks and manifests.is_layer(child):
                    pull.arrivals[child.digest] = fetch.Arrival(child.size)
                group.create_task(self._blob(pull, child, fetch.ref_key(node)))
        return [*found, parsed] if isinstance(parsed, manifests.Manifest) else found

    @tracing.traced("pull.blob")
    async def _blob(self, pull: _Pull, wanted: image.Descriptor, above: str) -> None:
        report, key = pull.request.report, fetch.ref_key(wanted)

        def line(event: str, offset: int) -> None:
            report(transfer.Progress(event, key, [above], offset, wanted.size, wanted))

        line("waiting", 0)
        async with pull.limit:
            arrival = pull.arrivals.get(wanted.digest)
            wish = fetch.Wish(
                pull.request.ns, wanted, pull.request.lease, pull.labels(), lambda offset: line("downloading", offset), arrival
            )
            made = await self._fetches.fetch(pull.fetcher, wish)
        line("complete" if made else "already exists", wanted.size)
        if event := pull.done.get(wanted.digest):
            event.set()

    # --- unpacking

    def _unpack(self, pull: _Pull, found: Sequence[manifests.Manifest], group: asyncio.TaskGroup) -> None:
        for wish in pull.target.unpacks:
            order = Order(pull.request, pull.root, found, wish, unpack.Blobs(pull.ready, pull.incoming))
            group.create_task(unpack_one(self._store, self._unpacker, order))


@dataclass(frozen=True)
class Order:
    """One of the ``found`` manifests of image ``name`` is to be unpacked as ``wish`` says, its ``blobs`` being there or on their way."""

    request: transfer.Request
    name: str
    found: Sequence[manifests.Manifest]
    wish: transfer.Unpack
    blobs: unpack.Blobs | None = None


async def unpack_one(store: content.Store, unpacker: unpack.Unpacker, order: Order) -> bool:
    """Unpack the first manifest of the platform asked for; tells whether there is one (an artifact, or a foreign image, is only stored)."""
    matcher, request = platform.only(order.wish.platform or platform.default()), order.request
    for manifest in order.found:
        layers = [layer for layer in manifest.layers if manifests.is_layer(layer)]
        if manifest.config.media_type not in image.CONFIGS or len(layers) != len(manifest.layers):
            continue  # an artifact that is no image
        if order.blobs:
            await order.blobs.ready(manifest.config)
        config = manifests.parse_config(manifest.config, await fetch.read_document(store, request.ns, manifest.config))
        if matcher(manifests.platform_of(config)) is None:
            continue
        job = unpack.Job(request.ns, order.wish.snapshotter, manifest.config, config.diff_ids, layers)
        await unpacker.unpack(replace(job, lease=request.lease, blobs=order.blobs, report=request.report))
        return True
    return False


def _matcher(target: transfer.Store) -> platform.Matcher | None:
    return platform.any_of(target.platforms) if target.platforms else None


async def save(names: images.Store, request: transfer.Request, item: images.Image) -> None:
    """Create the name, or make it point there."""
    try:
        await names.create(request.ns, item)
    except errors.AlreadyExists:
        await names.update(request.ns, item)
    request.report(transfer.Progress("saved", item.name, descriptor=item.target))
