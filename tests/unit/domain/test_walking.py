"""Walks over documents in the store: order, choice, labels, and an end for those that have none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from pydock.base import digest, errors, platform
from pydock.core import content
from pydock.domain import manifests, walking
from pydock.oci import image

CONFIG = image.Descriptor(image.CONFIG, "sha256:" + "c" * 64, 2)


class Memory:
    """As much of `content.Store` as a walk uses."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, Mapping[str, str]] = {}
        self.read: list[str] = []

    def put(self, document: Any, kind: str) -> image.Descriptor:
        data = json.dumps(document).encode()
        self.blobs[digest.compute(data)] = data
        return image.Descriptor(kind, digest.compute(data), len(data))

    def manifest(self, *layers: str, architecture: str = "amd64") -> image.Descriptor:
        rows = [{"mediaType": image.LAYER_GZIP, "digest": "sha256:" + name * 64, "size": 1} for name in layers]
        document = {"schemaVersion": 2, "mediaType": image.MANIFEST, "config": manifests.to_json(CONFIG), "layers": rows}
        made = self.put(document, image.MANIFEST)
        return dataclasses.replace(made, platform=image.Platform("linux", architecture))

    def index(self, *items: image.Descriptor) -> image.Descriptor:
        rows = [manifests.to_json(item) for item in items]
        return self.put({"schemaVersion": 2, "mediaType": image.INDEX, "manifests": rows}, image.INDEX)

    async def open(self, ns: str, name: str) -> Any:
        if name not in self.blobs:
            raise errors.NotFound(f"content digest {name}")
        self.read.append(name)
        return _Reader(self.blobs[name])

    async def update(self, ns: str, info: content.Info, paths: Any) -> None:
        self.labels[info.digest] = {**self.labels.get(info.digest, {}), **info.labels}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    async def read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    async def close(self) -> None:
        return


@pytest.fixture
def store() -> Memory:
    return Memory()


def walker(store: Memory, *architectures: str, label: bool = False) -> walking.Walker:
    """Return a walker for some platforms, for all without any."""
    matcher = platform.any_of([image.Platform("linux", name) for name in architectures]) if architectures else None
    return walking.Walker(cast("content.Store", store), "ns", matcher, label=label)


async def test_a_walk_meets_parents_first_and_nothing_twice(store: Memory) -> None:
    one, two = store.manifest("1", "2", "1"), store.manifest("2", "3", architecture="arm64")
    root = store.index(one, two, one)
    found = await walker(store).walk(root)
    names = [item.digest for item in found.descriptors]
    assert names == [root.digest, one.digest, CONFIG.digest, *("sha256:" + name * 64 for name in "12"), two.digest, "sha256:" + "3" * 64]
    assert len(found.manifests) == 2


async def test_a_walk_for_one_platform_reads_nothing_of_the_others(store: Memory) -> None:
    ours, theirs = store.manifest("1"), store.manifest("2", architecture="s390x")
    found = await walker(store, "amd64").walk(store.index(theirs, ours))
    assert theirs.digest not in store.read
    assert [item.digest for item in found.descriptors][1] == ours.digest


async def test_an_index_without_the_platform_is_said_so(store: Memory) -> None:
    root = store.index(store.manifest("1", architecture="s390x"))
    with pytest.raises(errors.NotFound, match="no match for platform in manifest"):
        await walker(store, "amd64").walk(root)


async def test_only_what_is_kept_is_labelled(store: Memory) -> None:
    ours, theirs = store.manifest("1"), store.manifest("2", architecture="s390x")
    root = store.index(theirs, ours)
    await walker(store, "amd64", label=True).walk(root)
    assert store.labels[root.digest] == {"containerd.io/gc.ref.content.m.1": ours.digest}
    kept = {"containerd.io/gc.ref.content.config": CONFIG.digest, "containerd.io/gc.ref.content.l.0": "sha256:" + "1" * 64}
    assert store.labels[ours.digest] == kept
    assert theirs.digest not in store.labels


async def test_a_walk_that_is_not_to_label_does_not(store: Memory) -> None:
    await walker(store).walk(store.index(store.manifest("1")))
    assert store.labels == {}


async def test_indexes_in_indexes_end_somewhere(store: Memory) -> None:
    node = store.manifest("1")
    for _ in range(manifests.DEPTH - 1):
        node = store.index(node)
    assert (await walker(store).walk(node)).manifests
    for _ in range(3):
        node = store.index(node)
    with pytest.raises(errors.InvalidArgument, match="nested deeper"):
        await walker(store).walk(node)


async def test_the_same_index_a_thousand_times_on_every_level_is_walked_once(store: Memory) -> None:
    node = store.manifest("1")
    for _ in range(manifests.DEPTH - 1):
        node = store.index(*[node] * 1000)
    found = await walker(store).walk(node)
    assert len(found.descriptors) == manifests.DEPTH + 2
    assert len(store.read) == manifests.DEPTH


async def test_an_image_of_too_many_parts_is_refused(store: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "ALL", 5)
    with pytest.raises(errors.InvalidArgument, match="more than 5"):
        await walker(store).walk(store.manifest(*"12345"))


async def test_a_document_that_is_not_there_is_not_found(store: Memory) -> None:
    with pytest.raises(errors.NotFound):
        await walker(store).walk(image.Descriptor(image.MANIFEST, "sha256:" + "0" * 64, 3))


async def test_a_document_of_gigabytes_is_not_read(store: Memory) -> None:
    with pytest.raises(errors.ResourceExhausted):
        await walker(store).walk(image.Descriptor(image.MANIFEST, "sha256:" + "0" * 64, 1 << 33))
    assert store.read == []
