"""The reference graph: what keeps what, by every rule there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from pydock.base import clock
from pydock.core import containers, content, images, leases, snapshots
from pydock.oci import image
from pydock.store import references, schema

Kind = snapshots.Kind
COMMITTED = Kind.COMMITTED
NOW = clock.parse_rfc3339("2026-01-01T00:00:00Z")
PAST, FUTURE = "2025-12-31T23:59:59Z", "2026-01-01T00:00:01Z"


@dataclasses.dataclass
class World:
    """Records of one namespace, written short."""

    images: dict[str, images.Image] = dataclasses.field(default_factory=dict)
    containers: dict[str, containers.Container] = dataclasses.field(default_factory=dict)
    leases: dict[str, schema.Lease] = dataclasses.field(default_factory=dict)
    blobs: dict[str, content.Info] = dataclasses.field(default_factory=dict)
    snapshots: dict[str, schema.Snapshot] = dataclasses.field(default_factory=dict)

    def blob(self, name: str, **labels: str) -> None:
        self.blobs[name] = content.Info(name, 1, labels={key.replace("__", "/"): value for key, value in labels.items()})

    def image(self, name: str, target: str, **labels: str) -> None:
        self.images[name] = images.Image(name, image.Descriptor("m", target, 1), labels)

    def snapshot(self, name: str, parent: str = "", kind: Kind = COMMITTED, **labels: str) -> None:
        self.snapshots[f"overlayfs/{name}"] = schema.Snapshot(name, kind, parent, labels)

    def lease(self, name: str, *resources: tuple[str, str], **labels: str) -> None:
        held = {f"{kind} {id}": leases.Resource(id, kind) for kind, id in resources}
        self.leases[name] = schema.Lease(leases.Lease(name, labels), held)

    def records(self) -> references.Records:
        def of(table: dict[str, Any]) -> Callable[[str], Any]:
            return lambda ns: table if ns == "n" else {}

        return references.Records(("n", "other"), of(self.images), of(self.containers), of(self.leases), of(self.blobs), of(self.snapshots))

    def alive(self) -> set[str]:
        found = references.reachable(references.build(self.records(), NOW))
        return {
            f"{kind.partition('/')[0]}:{key}" for _, kind, key in found if kind.partition("/")[0] in ("content", "snapshots", "ingests")
        }


@pytest.fixture
def world() -> World:
    return World()


def test_an_image_keeps_its_tree_of_content(world: World) -> None:
    world.image("i", "index")
    world.blob("index", **{"containerd.io/gc.ref.content.m.0": "manifest"})
    world.blob("manifest", **{"containerd.io/gc.ref.content.config": "config", "containerd.io/gc.ref.content.l.0": "layer"})
    for name in ("config", "layer", "stray"):
        world.blob(name)
    assert world.alive() == {"content:index", "content:manifest", "content:config", "content:layer"}


@pytest.mark.parametrize("key", ["containerd.io/gc.ref.content", "containerd.io/gc.ref.content.x", "containerd.io/gc.ref.content/x"])
def test_a_content_label_refers_with_and_without_a_suffix(world: World, key: str) -> None:
    world.image("i", "a")
    world.blob("a", **{key: "b"})
    assert "content:b" in world.alive()


@pytest.mark.parametrize(
    "key", ["containerd.io/gc.ref.contents", "containerd.io/gc.ref.", "containerd.io/gc.ref.snapshot", "gc.ref.content"]
)
def test_a_label_nobody_understands_keeps_nothing(world: World, key: str) -> None:
    world.image("i", "a")
    world.blob("a", **{key: "b"})
    assert world.alive() == {"content:a"}


def test_a_config_keeps_its_snapshots_and_they_their_parents(world: World) -> None:
    world.image("i", "config")
    world.blob("config", **{"containerd.io/gc.ref.snapshot.overlayfs": "two"})
    world.snapshot("one")
    world.snapshot("two", "one")
    world.snapshot("three", "two")
    assert world.alive() == {"content:config", "snapshots:one", "snapshots:two"}


def test_a_container_keeps_its_snapshot_and_what_its_labels_say(world: World) -> None:
    label = {"containerd.io/gc.ref.content.spec": "blob"}
    world.containers["c"] = containers.Container("c", label, snapshotter="overlayfs", snapshot_key="key", runtime="r")
    world.snapshot("base")
    world.snapshot("key", "base", snapshots.Kind.ACTIVE)
    assert world.alive() == {"content:blob", "snapshots:key", "snapshots:base"}


def test_an_active_snapshot_lives_only_by_who_refers_to_it(world: World) -> None:
    world.snapshot("base")
    world.snapshot("key", "base", snapshots.Kind.ACTIVE)
    world.snapshot("view", "base", snapshots.Kind.VIEW, **{references.ROOT: "2026"})
    world.snapshot("extract", "", snapshots.Kind.ACTIVE, **{snapshots.REF_LABEL: "chain"})
    assert world.alive() == {"snapshots:base", "snapshots:view"}


def test_a_root_label_keeps_content_and_snapshots(world: World) -> None:
    world.blob("a", **{references.ROOT: "", "containerd.io/gc.ref.content": "b"})
    world.snapshot("s", **{references.ROOT: "2026"})
    assert world.alive() == {"content:a", "content:b", "snapshots:s"}


def test_a_lease_keeps_what_it_holds_and_what_that_keeps(world: World) -> None:
    world.blob("a", **{"containerd.io/gc.ref.content": "b"})
    world.snapshot("p")
    world.snapshot("s", "p")
    world.lease("l", ("content", "a"), ("snapshots/overlayfs", "s"), ("ingests", "r"))
    assert world.alive() == {"content:a", "content:b", "snapshots:s", "snapshots:p", "ingests:r"}


def test_a_flat_lease_keeps_only_what_it_holds(world: World) -> None:
    world.blob("a", **{"containerd.io/gc.ref.content": "b"})
    world.lease("l", ("content", "a"), **{references.FLAT: "true"})
    assert world.alive() == {"content:a"}
    world.image("i", "a")
    assert world.alive() == {"content:a", "content:b"}


@pytest.mark.parametrize(("expiry", "kept"), [(PAST, False), (FUTURE, True), ("some day", True), ("", True)])
def test_a_lease_keeps_until_it_expires_and_a_bad_expiry_is_none(world: World, expiry: str, kept: bool) -> None:
    world.lease("l", ("content", "a"), **{leases.EXPIRE_LABEL: expiry})
    assert (world.alive() == {"content:a"}) is kept


def test_a_lease_that_holds_an_image_keeps_what_the_image_keeps(world: World) -> None:
    world.lease("l", ("images", "i"))
    world.image("i", "a")
    assert world.alive() == {"content:a"}


def test_a_back_reference_lives_with_what_it_names(world: World) -> None:
    world.blob("config")
    world.blob("extra", **{"containerd.io/gc.bref.content": "config"})
    world.blob("other", **{"containerd.io/gc.bref.image": "i"})
    assert world.alive() == set()
    world.image("i", "config")
    assert world.alive() == {"content:config", "content:extra", "content:other"}


def test_circles_end_and_do_not_live_by_themselves(world: World) -> None:
    world.blob("a", **{"containerd.io/gc.ref.content": "b"})
    world.blob("b", **{"containerd.io/gc.ref.content": "a"})
    assert world.alive() == set()
    world.image("i", "b")
    assert world.alive() == {"content:a", "content:b"}


def test_another_namespace_keeps_nothing_here(world: World) -> None:
    graph = references.build(world.records(), NOW)
    graph.roots.add(("other", "content", "a"))
    world.blob("a")
    assert ("n", "content", "a") not in references.reachable(graph)


def test_what_was_touched_lately_is_told(world: World) -> None:
    world.blobs = {"old": content.Info("old", 1, 1, 5), "new": content.Info("new", 1, 1, 20)}
    world.snapshot("s")
    assert references.touched_since(world.records(), 10) == {("n", "content", "new")}
