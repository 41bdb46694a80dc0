"""Transfers: the verbs behind containerd's transfer service, each a pair of source and destination (see `core.transfer`)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from pydock.base import errors, groups, platform
from pydock.core import content, images, leases, plugin, remotes, transfer
from pydock.domain import archives, fetch, manifests, pull, push, unpack, walking
from pydock.oci import image

Request = transfer.Request
_LEASE_LIFE = 24 * 3600  # seconds; as containerd's clients give theirs


class Transfers:
    """`transfer.Transferrer`: every transfer works under a lease, its own when the client has none."""

    def __init__(self, pulls: pull.Puller, pushes: push.Pusher, holds: leases.Manager, local: _Local) -> None:
        self._pulls, self._pushes, self._holds, self._local = pulls, pushes, holds, local

    async def transfer(self, request: Request) -> None:
        """Move an image; Unimplemented for a pair that is not one of the table's."""
        async with self._leased(request) as held:
            match held.source, held.destination:
                case transfer.Registry() as registry, transfer.Store() as store:
                    await self._pulls.pull(held, registry, store)
                case transfer.Store() as store, transfer.Registry() as registry:
                    await self._pushes.push(held, store, registry)
                case transfer.Store() as source, transfer.Store() as target:
                    await self._local.tag(held, source, target)
                case transfer.Archive() as archive, transfer.Store() as store:
                    await self._local.load(held, archive, store)
                case transfer.Store() as store, transfer.ArchiveSink() as sink:
                    await self._local.save(held, store, sink)
                case source, target:
                    kinds = f"{type(source).__name__} to {type(target).__name__}"
                    raise errors.Unimplemented(f"transfer from {kinds}")

    @asynccontextmanager
    async def _leased(self, request: Request) -> AsyncIterator[Request]:
        if request.lease:
            yield request
            return
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _LEASE_LIFE))
        lease = await self._holds.create(request.ns, leases.Lease("", {leases.EXPIRE_LABEL: ends}))
        try:
            yield replace(request, lease=lease.id)
        finally:
            await groups.finish(self._holds.delete(request.ns, lease.id))


class _Local:
    """The transfers that need no registry."""

    def __init__(self, store: content.Store, names: images.Store, unpacker: unpack.Unpacker) -> None:
        self._store, self._names, self._unpacker = store, names, unpacker

    async def tag(self, request: transfer.Request, source: transfer.Store, target: transfer.Store) -> None:
        item = await self._names.get(request.ns, source.name)
        labels = target.labels or item.labels
        await pull.save(self._names, request, images.Image(target.name, item.target, labels))

    # --- import

    async def load(self, request: transfer.Request, source: transfer.Archive, target: transfer.Store) -> None:
        request.report(transfer.Progress("Importing"))
        matcher = platform.any_of(target.platforms) if target.platforms else None
        importer = archives.Importer(self._store, request.ns, request.lease)
        archived = await importer.load(source.data)
        found = [item for item in archived.images if matcher is None or item.platform is None or matcher(item.platform) is not None]
        if archived.images and not found:
            raise errors.NotFound("image might be filtered out: the archive has no image of the platform asked for")
        named = [(item, name) for item in found for name in names_for(item, target)]
        if target.name:
            named.append((await importer.put(image.INDEX, archived.index), target.name))
        walker = walking.Walker(self._store, request.ns, matcher, label=True)
        for root in {item.digest: item for item, _ in named}.values():
            await self._settle(request, target, await walker.walk(_bare(root)), root)
        for item, name in named:
            await pull.save(self._names, request, images.Image(name, _bare(item), target.labels))
        request.report(transfer.Progress("Completed import"))

    async def _settle(self, request: transfer.Request, target: transfer.Store, below: walking.Found, root: image.Descriptor) -> None:
        """See that all of an imported image is there, and unpack it where it is of the platform."""
        for blob in below.descriptors:
            if not _foreign(blob):
                await self._store.info(request.ns, blob.digest)
        for wish in target.unpacks:
            await pull.unpack_one(self._store, self._unpacker, pull.Order(request, root.digest, below.manifests, wish))

    # --- export

    async def save(self, request: transfer.Request, source: transfer.Store, target: transfer.ArchiveSink) -> None:
        wanted = [name for name in (source.name, *(rule.name for rule in source.extra_references)) if name]
        items = [await self._names.get(request.ns, name) for name in wanted]
        preferred = _export_matcher(source, target)
        matcher = None if target.all_platforms else preferred
        walker, exporter = walking.Walker(self._store, request.ns, matcher), archives.Exporter(self._store, request.ns, target.sink)
        written: set[str] = set()
        docker: list[dict[str, object]] = []
        await exporter.begin()
        for item in items:
            found = await walker.walk(item.target)
            for blob in found.descriptors:
                if blob.digest not in written and not (target.skip_non_distributable and _foreign(blob)):
                    written.add(blob.digest)
                    await exporter.blob(blob)
            if not target.skip_compatibility_manifest and (best := await self._best(request.ns, found, preferred)):
                docker.append(_docker_row(item.name, best))
        await exporter.document("index.json", {"schemaVersion": 2, "mediaType": image.INDEX, "manifests": [_named(item) for item in items]})
        if docker:
            await exporter.document("manifest.json", docker)
        await exporter.document("oci-layout", {"imageLayoutVersion": "1.0.0"})
        await exporter.end()

    async def _best(self, ns: str, found: walking.Found, matcher: platform.Matcher) -> manifests.Manifest | None:
        """Return the manifest Docker, which knows one platform in an archive, is to find."""
        ranked: list[tuple[image.Platform | None, manifests.Manifest]] = []
        for manifest in found.manifests:
            if manifest.config.media_type in image.CONFIGS:
                config = manifests.parse_config(manifest.config, await fetch.read_document(self._store, ns, manifest.config))
                ranked.append((manifests.platform_of(config), manifest))
        return next(iter(platform.best(ranked, matcher)), None)


def names_for(item: image.Descriptor, target: transfer.Store) -> Sequence[str]:
    """Return the names an imported image gets, by the destination's rules (`transfer.NameRule`); what gets none is not kept."""
    said = item.annotations.get(archives.NAME_ANNOTATION) or item.annotations.get(archives.REF_ANNOTATION, "")
    out: list[str] = []
    for rule in target.extra_references:
        named = _by_rule(said, rule)
        out += [named] if named else []
        if rule.add_digest and not (named and rule.skip_named_digest):
            out.append(f"{rule.name}@{item.digest}")
    if not target.extra_references and said and any(mark in said for mark in "/:@"):
        out.append(said)
    return list(dict.fromkeys(out))


def _by_rule(said: str, rule: transfer.NameRule) -> str:
    if not said:
        return ""
    if not rule.is_prefix:
        return rule.name if said == rule.name else ""
    if not any(mark in said for mark in "/:@"):
        return f"{rule.name}:{said}"
    fits = said.startswith(rule.name) and said[len(rule.name) :][:1] in ("", ":", "@", "/")
    return said if fits or rule.allow_overwrite else ""


def _bare(item: image.Descriptor) -> image.Descriptor:
    """Return a root as an image record holds it: what an archive says in annotations is not kept."""
    return image.Descriptor(item.media_type, item.digest, item.size)


def _export_matcher(source: transfer.Store, target: transfer.ArchiveSink) -> platform.Matcher:
    wanted = target.platforms or source.platforms
    return platform.any_of(wanted) if wanted else platform.only(platform.default())


def _foreign(blob: image.Descriptor) -> bool:
    return blob.media_type.startswith((image.FOREIGN_LAYER, image.DOCKER_FOREIGN_LAYER))


def _named(item: images.Image) -> Mapping[str, object]:
    tag = item.name.rpartition(":")[2]
    named = {archives.NAME_ANNOTATION: item.name, archives.REF_ANNOTATION: tag if "/" not in tag else item.name}
    return manifests.to_json(replace(item.target, annotations={**item.target.annotations, **named}))


def _docker_row(name: str, manifest: manifests.Manifest) -> dict[str, object]:
    def path(blob: image.Descriptor) -> str:
        return "blobs/" + blob.digest.replace(":", "/")

    return {"Config": path(manifest.config), "RepoTags": [name], "Layers": [path(layer) for layer in manifest.layers]}


@dataclass(frozen=True)
class TransferConfig(plugin.Config):
    """How much is done at once."""

    max_concurrent_downloads: int = plugin.option(3, "blobs of one pull fetched at the same time")
    max_concurrent_uploads: int = plugin.option(3, "blobs of one push sent at the same time")
    max_download_tries: int = plugin.option(6, "tries of a blob without progress before it is given up")


@plugin.plugin("io.containerd.transfer.v1", "local")
async def local(
    cfg: TransferConfig,
    store: content.Store,
    names: images.Store,
    holds: leases.Manager,
    registries: remotes.Remotes,
    unpacker: unpack.Unpacker,
) -> AsyncIterator[transfer.Transferrer]:
    """Offer all transfers."""
    pulls = pull.Puller(store, names, registries, unpacker, cfg.max_concurrent_downloads, cfg.max_download_tries)
    pushes = push.Pusher(store, names, registries, cfg.max_concurrent_uploads)
    yield Transfers(pulls, pushes, holds, _Local(store, names, unpacker))
