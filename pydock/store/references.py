"""What keeps what alive: the reference graph over all records, and its reachable part. Pure functions.

Vocabulary: a *node* is (namespace, kind, key) with kind "content", "ingests", "images" or "snapshots/<snapshotter>"; a *root* is alive by
itself; a *flat* root is alive but keeps nothing else; an *edge* leads from what is alive to what it keeps.

Roots: images; leases that have not expired (through what they hold); containers (through their snapshot and labels); blobs and
snapshots with the label `ROOT`.  An active snapshot is no root of its own: dockerd, for one, gives up a container's by its lease alone.
Edges: an image to its target; a snapshot to its parent; the labels ``containerd.io/gc.ref.{content,snapshot.<name>,image}`` of any
object, and backwards ``gc.bref``.
Invariant: a label nobody understands keeps nothing and removes nothing; an expiry nobody understands is none, so damage keeps too much.
Source: containerd docs/garbage-collection.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pydock.base import clock
from pydock.core import containers, content, images, leases
from pydock.store import schema

Node = tuple[str, str, str]

ROOT = "containerd.io/gc.root"
FLAT = "containerd.io/gc.flat"
REF = "containerd.io/gc.ref."
BACK = "containerd.io/gc.bref."


@dataclass
class Graph:
    """``edges`` by their beginning."""

    roots: set[Node] = field(default_factory=set)
    flat: set[Node] = field(default_factory=set)
    edges: dict[Node, set[Node]] = field(default_factory=dict)

    def link(self, source: Node, target: Node) -> None:
        """Let ``source`` keep ``target``."""
        self.edges.setdefault(source, set()).add(target)


@dataclass(frozen=True)
class Records:
    """All records, as functions from a namespace to its rows by key."""

    namespaces: Iterable[str]
    images: Callable[[str], Mapping[str, images.Image]]
    containers: Callable[[str], Mapping[str, containers.Container]]
    leases: Callable[[str], Mapping[str, schema.Lease]]
    blobs: Callable[[str], Mapping[str, content.Info]]
    snapshots: Callable[[str], Mapping[str, schema.Snapshot]]


def build(records: Records, now: int) -> Graph:
    """Return the graph of all namespaces at the time ``now`` (ns)."""
    graph = Graph()
    for ns in records.namespaces:
        _add_leases(graph, ns, records.leases(ns), now)
        for name, image in records.images(ns).items():
            node = (ns, "images", name)
            graph.roots.add(node)
            graph.link(node, (ns, "content", image.target.digest))
            _add_labels(graph, node, image.labels)
        for id, container in records.containers(ns).items():
            node = (ns, "containers", id)
            graph.roots.add(node)
            if container.snapshot_key:
                graph.link(node, (ns, f"snapshots/{container.snapshotter}", container.snapshot_key))
            _add_labels(graph, node, container.labels)
        for digest, info in records.blobs(ns).items():
            node = (ns, "content", digest)
            if ROOT in info.labels:
                graph.roots.add(node)
            _add_labels(graph, node, info.labels)
        for key, row in records.snapshots(ns).items():
            _add_snapshot(graph, ns, key, row)
    return graph


def reachable(graph: Graph) -> set[Node]:
    """Return what is alive."""
    alive = set(graph.flat)
    todo = list(graph.roots)
    walked = set(todo)
    while todo:
        node = todo.pop()
        alive.add(node)
        for target in graph.edges.get(node, ()):
            if target not in walked:
                walked.add(target)
                todo.append(target)
    return alive


def touched_since(records: Records, moment: int) -> set[Node]:
    """Return the blobs and snapshots that were made or updated after ``moment`` (ns)."""
    found: set[Node] = set()
    for ns in records.namespaces:
        found.update((ns, "content", digest) for digest, info in records.blobs(ns).items() if info.updated_at > moment)
        for key, row in records.snapshots(ns).items():
            if row.updated_at > moment:
                snapshotter, _, name = key.partition("/")
                found.add((ns, f"snapshots/{snapshotter}", name))
    return found


def expired(lease: leases.Lease, now: int) -> bool:
    """Tell whether a lease holds nothing any more."""
    text = lease.labels.get(leases.EXPIRE_LABEL)
    if text is None:
        return False
    try:
        return clock.parse_rfc3339(text) < now
    except ValueError:
        return False


def _add_leases(graph: Graph, ns: str, rows: Mapping[str, schema.Lease], now: int) -> None:
    for id, row in rows.items():
        if expired(row.lease, now):
            continue
        node = (ns, "leases", id)
        graph.roots.add(node)
        _add_labels(graph, node, row.lease.labels)
        for resource in row.resources.values():
            target = (ns, resource.type, resource.id)
            if FLAT in row.lease.labels:
                graph.flat.add(target)
            else:
                graph.link(node, target)


def _add_snapshot(graph: Graph, ns: str, key: str, row: schema.Snapshot) -> None:
    snapshotter, _, name = key.partition("/")
    node = (ns, f"snapshots/{snapshotter}", name)
    if ROOT in row.labels:
        graph.roots.add(node)
    if row.parent:
        graph.link(node, (ns, f"snapshots/{snapshotter}", row.parent))
    _add_labels(graph, node, row.labels)


def _add_labels(graph: Graph, node: Node, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        if key.startswith(REF):
            for kind in _kinds(key.removeprefix(REF)):
                graph.link(node, (node[0], kind, value))
        elif key.startswith(BACK):
            for kind in _kinds(key.removeprefix(BACK)):
                graph.link((node[0], kind, value), node)


def _kinds(text: str) -> Iterator[str]:
    """Yield the kind of node that "content", "content.3", "image/x", "snapshot.overlayfs" or "snapshot.overlayfs/x" speaks of."""
    for word, kind in (("content", "content"), ("image", "images")):
        if text == word or text.startswith((f"{word}.", f"{word}/")):
            yield kind
    if text.startswith("snapshot."):
        yield f"snapshots/{text.removeprefix('snapshot.').partition('/')[0]}"
