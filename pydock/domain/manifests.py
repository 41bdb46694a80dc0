"""Manifests, indexes and configs read from untrusted bytes.

Invariants: a document is one thing: its own mediaType, its descriptor's and its fields agree (CVE-2021-41190); duplicate keys, depth, size
and counts out of bounds are InvalidArgument naming the digest.  Source: OCI image-spec v1.1, Docker image manifest v2 schema 2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydock.base import digest as digests
from pydock.base import errors
from pydock.oci import image

LIMIT = 8 << 20  # bytes of a manifest, an index or a config
LAYERS = 1024
MANIFESTS = 2048
DEPTH = 8  # of indexes in indexes
_NESTING = 64
_LARGEST = 1 << 50

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image: a config and its layers, lowest first."""

    config: image.Descriptor
    layers: Sequence[image.Descriptor]


@dataclass(frozen=True, slots=True)
class Index:
    """A choice of manifests."""

    manifests: Sequence[image.Descriptor]


@dataclass(frozen=True, slots=True)
class Config:
    """What unpacking needs of an image config: its platform and the digests of its uncompressed layers, lowest first."""

    platform: image.Platform
    diff_ids: Sequence[str]


def parse(descriptor: image.Descriptor, data: bytes) -> Manifest | Index:
    """Read a manifest or an index; the descriptor's media type decides which it must be."""
    document = _document(descriptor, data)
    said = document.get("mediaType") or descriptor.media_type
    if said != descriptor.media_type:
        raise _bad(descriptor, f"calls itself {str(said)[:100]!r}, its descriptor says {descriptor.media_type!r}")
    is_index = descriptor.media_type in image.INDEXES
    if document.get("schemaVersion", 2) != 2 or isinstance(document.get("schemaVersion"), float):
        raise _bad(descriptor, "schema version is not 2")
    foreign = {"layers", "config", "fsLayers"} if is_index else {"manifests", "fsLayers"}
    if found := sorted(foreign & document.keys()):
        raise _bad(descriptor, f"has {found} besides what a {descriptor.media_type} holds")
    if is_index:
        return Index(_descriptors(descriptor, document.get("manifests"), MANIFESTS))
    return Manifest(
        _descriptor(descriptor, document.get("config")),
        _descriptors(descriptor, document.get("layers"), LAYERS),
    )


def parse_config(descriptor: image.Descriptor, data: bytes) -> Config:
    """Read an image config."""
    document = _document(descriptor, data)
    rootfs = document.get("rootfs")
    diff_ids: Any = rootfs.get("diff_ids") if isinstance(rootfs, dict) else []
    listed = isinstance(diff_ids, list) and len(diff_ids) <= LAYERS
    if not listed or not all(isinstance(item, str) and digests.is_valid(item) for item in diff_ids):
        raise _bad(descriptor, "rootfs.diff_ids is not a list of digests")
    return Config(_platform(document) or image.Platform("", ""), tuple(diff_ids))


def platform_of(config: Config) -> image.Platform:
    """Return the platform a config names, the host's kind of OS where it names none."""
    return config.platform if config.platform.os else image.Platform("linux", config.platform.architecture)


def children(node: Manifest | Index) -> Iterator[tuple[str, image.Descriptor]]:
    """Yield what a document refers to, each with the label that keeps it (containerd's garbage collection labels)."""
    if isinstance(node, Index):
        for at, item in enumerate(node.manifests):
            yield f"containerd.io/gc.ref.content.m.{at}", item
        return
    yield "containerd.io/gc.ref.content.config", node.config
    for at, item in enumerate(node.layers):
        yield f"containerd.io/gc.ref.content.l.{at}", item


def is_node(descriptor: image.Descriptor) -> bool:
    """Tell whether it is a document with children."""
    return descriptor.media_type in image.INDEXES or descriptor.media_type in image.MANIFESTS


def is_layer(descriptor: image.Descriptor) -> bool:
    """Tell whether it is a layer that can be unpacked."""
    return descriptor.media_type.startswith((image.LAYER, image.FOREIGN_LAYER, image.DOCKER_LAYER, image.DOCKER_FOREIGN_LAYER))


def to_json(descriptor: image.Descriptor) -> dict[str, Any]:
    """Return a descriptor as it stands in a manifest."""
    out: dict[str, Any] = {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
    if descriptor.annotations:
        out["annotations"] = dict(descriptor.annotations)
    if descriptor.urls:
        out["urls"] = list(descriptor.urls)
    if platform := descriptor.platform:
        variant = {"variant": platform.variant} if platform.variant else {}
        out["platform"] = {"architecture": platform.architecture, "os": platform.os} | variant
    return out


def load(what: str, data: bytes) -> Any:
    """Read JSON of the wild: bounded, UTF-8, no duplicate keys, no NaN.  InvalidArgument names ``what``."""
    if len(data) > LIMIT:
        raise errors.InvalidArgument(f"{what}: larger than {LIMIT} bytes")
    if _nesting(data) > _NESTING:
        raise errors.InvalidArgument(f"{what}: nested deeper than {_NESTING}")
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
        if b"\\u" in data:  # half of a surrogate pair is no text, and no store or wire takes it
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except (ValueError, RecursionError) as error:
        raise errors.InvalidArgument(f"{what}: not valid JSON: {error}") from error


def _document(descriptor: image.Descriptor, data: bytes) -> dict[str, Any]:
    document = load(descriptor.digest, data)
    if not isinstance(document, dict):
        raise _bad(descriptor, "not a JSON object")
    return document


def _nesting(data: bytes) -> int:
    """Return an upper bound of the depth, cheaply: brackets inside strings count too, which only errs to the safe side."""
    if data.count(b"[") + data.count(b"{") <= _NESTING:
        return 0
    depth = deepest = 0
    for at in data.translate(None, bytes(set(range(256)) - set(b"[]{}"))):
        depth += 1 if at in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise ValueError("duplicate key")
    return out


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _bad(descriptor: image.Descriptor, why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"{descriptor.digest}: {why}")


def _descriptors(owner: image.Descriptor, rows: object, most: int) -> tuple[image.Descriptor, ...]:
    if rows is None:
        return ()
    if not isinstance(rows, list) or len(rows) > most:
        raise _bad(owner, f"not a list of at most {most} descriptors")
    return tuple(_descriptor(owner, row) for row in rows)


def _descriptor(owner: image.Descriptor, row: object) -> image.Descriptor:
    if not isinstance(row, dict):
        raise _bad(owner, "a descriptor is not an object")
    kind, name, size = row.get("mediaType", ""), row.get("digest"), row.get("size")
    if not isinstance(kind, str) or len(kind) > 255 or not isinstance(name, str) or not digests.is_valid(name):
        raise _bad(owner, f"a descriptor has no valid media type or digest: {str(name)[:100]!r}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST:
        raise _bad(owner, f"{name} has no valid size: {str(size)[:30]}")
    annotations, urls = row.get("annotations") or {}, row.get("urls") or []
    if not _all_text(annotations, dict) or not _all_text(urls, list):
        raise _bad(owner, f"{name} has annotations or urls that are not text")
    return image.Descriptor(kind, name, size, annotations, _platform(row.get("platform")), tuple(urls))


def _all_text(value: object, kind: Callable[[], Any]) -> bool:
    if isinstance(value, dict):
        return kind is dict and all(isinstance(item, str) for item in value.values())
    return isinstance(value, list) and kind is list and all(isinstance(item, str) for item in value)


def _platform(row: object) -> image.Platform | None:
    if not isinstance(row, dict):
        return None
    texts = [row.get(key) or "" for key in ("os", "architecture", "variant", "os.version")]
    if not all(isinstance(text, str) and len(text) < 256 for text in texts):
        return None
    return image.Platform(*texts)
