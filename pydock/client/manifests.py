"""Walking an image's documents: indexes, manifests and configs, by digest, through the content service.

Vocabulary: a *chain id* names a stack of layers by their uncompressed digests (OCI image-spec config.md); *missing* is content not
in the store.
Invariants: nothing larger than a document may be is read; JSON of the wrong shape is InvalidArgument, never a crash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydock.base import errors, platform
from pydock.client import content
from pydock.client.connection import Connection
from pydock.client.images import Descriptor
from pydock.oci import image as oci

LARGEST = 8 << 20
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image: descriptors of config and layers as the manifest lists them."""

    target: oci.Descriptor
    config: oci.Descriptor
    layers: Sequence[oci.Descriptor]


def descriptor(target: Descriptor) -> oci.Descriptor:
    """Return the descriptor of a message."""
    return oci.Descriptor(target.media_type, target.digest, target.size, dict(target.annotations))


def document(conn: Connection, target: oci.Descriptor) -> dict[str, Any]:
    """Return a JSON document of an image. Raises NotFound, InvalidArgument."""
    try:
        found = json.loads(content.read(conn, target.digest, most=LARGEST))
    except (ValueError, RecursionError):
        raise errors.InvalidArgument(f"{target.digest} is not a JSON document") from None
    if not isinstance(found, dict):
        raise errors.InvalidArgument(f"{target.digest} is not a JSON object")
    return found


def manifests(conn: Connection, target: oci.Descriptor, depth: int = 0) -> Iterator[tuple[platform.Platform | None, oci.Descriptor]]:
    """Yield (platform or None, descriptor) of every manifest below ``target`` that is not an attestation. Raises NotFound."""
    if target.media_type in oci.MANIFESTS:
        yield _platform_of(target.platform), target
        return
    if target.media_type not in oci.INDEXES or depth >= _DEEPEST:
        return
    for entry in _objects(document(conn, target), "manifests"):
        child = parse(entry)
        if child.annotations.get("vnd.docker.reference.type") == "attestation-manifest":
            continue
        if child.media_type in oci.INDEXES:
            yield from manifests(conn, child, depth + 1)
        else:
            yield _platform_of(child.platform), child


def choose(conn: Connection, target: oci.Descriptor, wanted: platform.Like | None = None) -> Manifest:
    """Return the manifest that fits ``wanted`` (this host) best. Raises NotFound when none does or it is not in the store."""
    matcher = platform.only(wanted or platform.default())
    candidates = list(manifests(conn, target))
    for found in platform.best(candidates, matcher):
        return read(conn, found)
    raise errors.NotFound(f"no match for platform {platform.format(wanted or platform.default())} in {target.digest}")


def read(conn: Connection, target: oci.Descriptor) -> Manifest:
    """Return one manifest's config and layers. Raises NotFound, InvalidArgument."""
    found = document(conn, target)
    if "manifests" in found:
        raise errors.InvalidArgument(f"{target.digest} is a manifest and an index at once")
    config = found.get("config")
    if not isinstance(config, dict):
        raise errors.InvalidArgument(f"manifest {target.digest} has no config")
    return Manifest(target, parse(config), [parse(entry) for entry in _objects(found, "layers")])


def config(conn: Connection, manifest: Manifest) -> dict[str, Any]:
    """Return an image's config. Raises NotFound, InvalidArgument when it is not one."""
    if manifest.config.media_type not in oci.CONFIGS:
        raise errors.InvalidArgument(f"unknown image config media type {manifest.config.media_type}")
    return document(conn, manifest.config)


def diff_ids(found: dict[str, Any]) -> list[str]:
    """Return the uncompressed digests of an image config. Raises InvalidArgument."""
    rootfs = found.get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise errors.InvalidArgument("the image config has no list of layer digests")
    return ids


def chain_ids(ids: Sequence[str]) -> list[str]:
    """Return the chain id of each prefix of a stack of layers, the whole stack's last."""
    chain: list[str] = []
    for each in ids:
        chain.append(each if not chain else f"sha256:{hashlib.sha256(f'{chain[-1]} {each}'.encode()).hexdigest()}")
    return chain


def platforms(conn: Connection, target: oci.Descriptor) -> list[str]:
    """Return the platforms of an image whose manifests or configs are in the store, in their order."""
    names: list[str] = []
    for found, child in manifests(conn, target):
        try:
            manifest = read(conn, child)
            if found is None:
                parsed = config(conn, manifest)
                found = platform.Platform(_text(parsed, "os"), _text(parsed, "architecture"), _text(parsed, "variant"))
        except errors.PydockError:
            continue
        name = platform.format(platform.normalize(found))
        if name not in names:
            names.append(name)
    return names


def parse(entry: dict[str, Any]) -> oci.Descriptor:
    """Return the descriptor of a JSON object. Raises InvalidArgument."""
    size, where = entry.get("size"), entry.get("platform")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise errors.InvalidArgument("a descriptor has no size")
    notes = entry.get("annotations")
    return oci.Descriptor(
        _text(entry, "mediaType"), _text(entry, "digest"), size,
        {key: value for key, value in notes.items() if isinstance(value, str)} if isinstance(notes, dict) else {},
        oci.Platform(_text(where, "os"), _text(where, "architecture"), _text(where, "variant")) if isinstance(where, dict) else None,
    )  # fmt: skip


def _platform_of(found: oci.Platform | None) -> platform.Platform | None:
    return None if found is None else platform.Platform(found.os, found.architecture, found.variant)


def _objects(found: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = found.get(key)
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise errors.InvalidArgument(f'the document has no list "{key}"')
    return entries


def _text(found: dict[str, Any], key: str) -> str:
    value = found.get(key, "")
    return value if isinstance(value, str) else ""
