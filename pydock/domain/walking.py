"""Walking an image that is in the store: its documents, and labels that keep what they refer to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydock.base import errors, platform
from pydock.core import content
from pydock.domain import fetch, manifests
from pydock.oci import image

ALL = 20_000  # descriptors below one root


@dataclass
class Found:
    """Every descriptor below a root in the order met (no digest twice), and the manifests among them."""

    descriptors: list[image.Descriptor] = field(default_factory=list)
    manifests: list[manifests.Manifest] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def chosen(
    node: image.Descriptor, parsed: manifests.Manifest | manifests.Index, matcher: platform.Matcher | None
) -> Sequence[image.Descriptor]:
    """Return the children of a document that are wanted; NotFound when an index has none of the platform."""
    if isinstance(parsed, manifests.Manifest):
        return [parsed.config, *parsed.layers]
    if matcher is None:
        return parsed.manifests
    found = platform.best([(item.platform, item) for item in parsed.manifests], matcher)
    if not found:
        raise errors.NotFound(f"no match for platform in manifest {node.digest}")
    return found


async def keep(
    store: content.Store,
    ns: str,
    node: image.Descriptor,
    parsed: manifests.Manifest | manifests.Index,
    wanted: Sequence[image.Descriptor],
) -> None:
    """Label a document with those of its children that it keeps from collection."""
    have = {item.digest for item in wanted}
    labels = {key: item.digest for key, item in manifests.children(parsed) if item.digest in have}
    if labels:
        await store.update(ns, content.Info(node.digest, node.size, labels=labels), [f"labels.{key}" for key in labels])


class Walker:
    """Walks images of one namespace."""

    def __init__(self, store: content.Store, ns: str, matcher: platform.Matcher | None = None, label: bool = False) -> None:
        self._store, self._ns, self._matcher, self._label = store, ns, matcher, label

    async def walk(self, root: image.Descriptor) -> Found:
        """Return all below ``root``; a labelling walker labels the documents to keep it."""
        found = Found()
        await self._visit(root, found, 0)
        return found

    async def _visit(self, node: image.Descriptor, found: Found, depth: int) -> None:
        if depth > manifests.DEPTH:
            raise errors.InvalidArgument(f"{node.digest}: indexes nested deeper than {manifests.DEPTH}")
        if node.digest in found.seen:
            return
        if len(found.seen) == ALL:
            raise errors.InvalidArgument(f"{node.digest}: more than {ALL} descriptors in one image")
        found.seen.add(node.digest)
        found.descriptors.append(node)
        if not manifests.is_node(node):
            return
        parsed = manifests.parse(node, await fetch.read_document(self._store, self._ns, node))
        if isinstance(parsed, manifests.Manifest):
            found.manifests.append(parsed)
        wanted = chosen(node, parsed, self._matcher)
        if self._label:
            await keep(self._store, self._ns, node, parsed, wanted)
        for child in wanted:
            await self._visit(child, found, depth + 1)
