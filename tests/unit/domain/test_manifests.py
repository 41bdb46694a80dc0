"""Manifests, indexes and configs of the wild: what is taken, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pydock.base import errors
from pydock.domain import manifests
from pydock.oci import image

DIGEST = "sha256:" + "a" * 64
LAYER: dict[str, Any] = {"mediaType": image.LAYER_GZIP, "digest": "sha256:" + "b" * 64, "size": 10}
CONFIG: dict[str, Any] = {"mediaType": image.CONFIG, "digest": "sha256:" + "c" * 64, "size": 20}
GOOD: dict[str, Any] = {"schemaVersion": 2, "mediaType": image.MANIFEST, "config": CONFIG, "layers": [LAYER]}
INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": image.INDEX, "manifests": [{**CONFIG, "mediaType": image.MANIFEST}]}


def parse(document: Any, kind: str = image.MANIFEST) -> manifests.Manifest | manifests.Index:
    """Read a document, given as bytes or as what is to be written as JSON."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return manifests.parse(image.Descriptor(kind, DIGEST, len(data)), data)


def layer(**changed: Any) -> dict[str, Any]:
    """Return a manifest whose layer is changed; None leaves a field out."""
    row = {key: value for key, value in {**LAYER, **changed}.items() if value is not None}
    return {**GOOD, "layers": [row]}


def test_a_manifest_is_a_config_and_layers() -> None:
    found = parse(GOOD)
    assert isinstance(found, manifests.Manifest)
    assert found.config == image.Descriptor(image.CONFIG, CONFIG["digest"], 20)
    assert list(found.layers) == [image.Descriptor(image.LAYER_GZIP, LAYER["digest"], 10)]


def test_an_index_is_a_choice() -> None:
    platform = {"os": "linux", "architecture": "arm", "variant": "v7", "os.version": "1"}
    found = parse({**INDEX, "manifests": [{**INDEX["manifests"][0], "platform": platform}, *INDEX["manifests"]]}, image.INDEX)
    assert isinstance(found, manifests.Index)
    assert [one.platform for one in found.manifests] == [image.Platform("linux", "arm", "v7", "1"), None]


TAKEN: dict[str, tuple[Any, str]] = {
    "Docker's names": ({**GOOD, "mediaType": image.DOCKER_MANIFEST}, image.DOCKER_MANIFEST),
    "Docker's list": ({**INDEX, "mediaType": image.DOCKER_LIST}, image.DOCKER_LIST),
    "no media type of its own": ({key: value for key, value in GOOD.items() if key != "mediaType"}, image.MANIFEST),
    "an empty media type": ({**GOOD, "mediaType": ""}, image.MANIFEST),
    "no layers": ({**GOOD, "layers": []}, image.MANIFEST),
    "no list of layers": ({key: value for key, value in GOOD.items() if key != "layers"}, image.MANIFEST),
    "200 layers": ({**GOOD, "layers": [LAYER] * 200}, image.MANIFEST),
    "the same layer twice": ({**GOOD, "layers": [LAYER, LAYER]}, image.MANIFEST),
    "a layer as config": ({**GOOD, "config": LAYER}, image.MANIFEST),
    "an empty layer": (layer(size=0), image.MANIFEST),
    "a layer of another kind": (layer(mediaType="application/x-tool"), image.MANIFEST),
    "sha512": (layer(digest="sha512:" + "d" * 128), image.MANIFEST),
    "data, which nobody reads": (layer(data="%%%"), image.MANIFEST),
    "fields of later versions": ({**GOOD, "subject": CONFIG, "artifactType": "x/y", "new": [1.5]}, image.MANIFEST),
    "an odd platform": ({**INDEX, "manifests": [{**CONFIG, "platform": {"os": 5}}]}, image.INDEX),
    "annotations of null": (layer(annotations=None) | {"annotations": None}, image.MANIFEST),
    "letters by number": (json.dumps({**GOOD, "x": "\u00e9\U0001f600"}).encode(), image.MANIFEST),
    "depth that is harmless": ({**GOOD, "x": [[[[[[]]]]]]}, image.MANIFEST),
}


@pytest.mark.parametrize("what", TAKEN)
def test_is_taken(what: str) -> None:
    document, kind = TAKEN[what]
    assert parse(document, kind)


def deep(depth: int, opening: bytes, closing: bytes) -> bytes:
    """Return nesting as the value of a member."""
    return b'{"schemaVersion":2,"x":' + opening * depth + b"0" + closing * depth + b"}"


REFUSED: dict[str, tuple[Any, str, str]] = {
    "layers in an index": ({**INDEX, "layers": []}, image.INDEX, "besides what"),
    "a config in an index": ({**INDEX, "config": CONFIG}, image.INDEX, "besides what"),
    "manifests in a manifest": ({**GOOD, "manifests": []}, image.MANIFEST, "besides what"),
    "layers of schema 1": ({**GOOD, "fsLayers": []}, image.MANIFEST, "besides what"),
    "an index said to be a manifest": (INDEX, image.MANIFEST, "calls itself"),
    "a manifest said to be an index": (GOOD, image.INDEX, "calls itself"),
    "OCI said to be Docker": (GOOD, image.DOCKER_MANIFEST, "calls itself"),
    "a media type that is no text": ({**GOOD, "mediaType": 5}, image.MANIFEST, "calls itself"),
    "schema 1": ({**GOOD, "schemaVersion": 1}, image.MANIFEST, "schema version"),
    "schema of text": ({**GOOD, "schemaVersion": "2"}, image.MANIFEST, "schema version"),
    "schema 2.0": (json.dumps(GOOD).replace(": 2,", ": 2.0,", 1).encode(), image.MANIFEST, "schema version"),
    "no config": ({**GOOD, "config": None}, image.MANIFEST, "not an object"),
    "a list as config": ({**GOOD, "config": []}, image.MANIFEST, "not an object"),
    "layers of an object": ({**GOOD, "layers": {}}, image.MANIFEST, "not a list"),
    "layers of text": ({**GOOD, "layers": ["x"]}, image.MANIFEST, "not an object"),
    "10 000 layers": ({**GOOD, "layers": [LAYER] * 10_000}, image.MANIFEST, "not a list of at most"),
    "an index of 10 000": ({**INDEX, "manifests": INDEX["manifests"] * 10_000}, image.INDEX, "not a list of at most"),
    "no digest": (layer(digest=None), image.MANIFEST, "no valid media type or digest"),
    "a short digest": (layer(digest="sha256:abc"), image.MANIFEST, "no valid media type or digest"),
    "a digest in upper case": (layer(digest="sha256:" + "B" * 64), image.MANIFEST, "no valid media type or digest"),
    "a digest that climbs": (layer(digest="sha256:../../" + "b" * 58), image.MANIFEST, "no valid media type or digest"),
    "a digest of megabytes": (layer(digest="sha256:" + "b" * 1_000_000), image.MANIFEST, "no valid media type or digest"),
    "an algorithm nobody knows": (layer(digest="md5:" + "b" * 32), image.MANIFEST, "no valid media type or digest"),
    "a digest of number": (layer(digest=5), image.MANIFEST, "no valid media type or digest"),
    "a media type of number": (layer(mediaType=5), image.MANIFEST, "no valid media type or digest"),
    "a media type without end": (layer(mediaType="x" * 300), image.MANIFEST, "no valid media type or digest"),
    "no size": (layer(size=None), image.MANIFEST, "no valid size"),
    "a negative size": (layer(size=-1), image.MANIFEST, "no valid size"),
    "a size beyond all": (layer(size=2**63), image.MANIFEST, "no valid size"),
    "a size of a fraction": (layer(size=10.5), image.MANIFEST, "no valid size"),
    "a size of text": (layer(size="10"), image.MANIFEST, "no valid size"),
    "a size of truth": (layer(size=True), image.MANIFEST, "no valid size"),
    "annotations of numbers": (layer(annotations={"a": 5}), image.MANIFEST, "not text"),
    "annotations of a list": (layer(annotations=["a"]), image.MANIFEST, "not text"),
    "urls of an object": (layer(urls={"a": "b"}), image.MANIFEST, "not text"),
    "urls of numbers": (layer(urls=[5]), image.MANIFEST, "not text"),
    "a number": (b"5", image.MANIFEST, "not a JSON object"),
    "null": (b"null", image.MANIFEST, "not a JSON object"),
    "nothing": (b"", image.MANIFEST, "not valid JSON"),
    "half of it": (json.dumps(GOOD).encode()[:-5], image.MANIFEST, "not valid JSON"),
    "more than it": (json.dumps(GOOD).encode() + b"{}", image.MANIFEST, "not valid JSON"),
    "a byte order mark": (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), image.MANIFEST, "not valid JSON"),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), image.MANIFEST, "not valid JSON"),
    "bytes that are no text": (b'{"x": "\xff"}', image.MANIFEST, "not valid JSON"),
    "half of a character": (b'{"x": "\\ud800"}', image.MANIFEST, "not valid JSON"),
    "no number": (b'{"schemaVersion": NaN}', image.MANIFEST, "NaN is not JSON"),
    "no end of number": (b'{"schemaVersion": -Infinity}', image.MANIFEST, "-Infinity is not JSON"),
    "digits without end": (b'{"schemaVersion": ' + b"9" * 10_000 + b"}", image.MANIFEST, "not valid JSON"),
    "a key twice": (b'{"layers": [], "layers": []}', image.MANIFEST, "duplicate key"),
    "a key twice, further down": (b'{"config": {"digest": "a", "digest": "b"}}', image.MANIFEST, "duplicate key"),
    "lists without end": (b"[" * 4_000_000, image.MANIFEST, "nested deeper"),
    "lists of lists": (deep(100_000, b"[", b"]"), image.MANIFEST, "nested deeper"),
    "objects of objects": (deep(1000, b'{"a":', b"}"), image.MANIFEST, "nested deeper"),
    "megabytes": (b'{"x": "' + b"x" * (9 << 20) + b'"}', image.MANIFEST, "larger than"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_is_refused_by_name(what: str) -> None:
    document, kind, words = REFUSED[what]
    with pytest.raises(errors.InvalidArgument, match=words) as caught:
        parse(document, kind)
    assert caught.value.detail.startswith(DIGEST)
    assert len(caught.value.detail) < 1000


def config(document: Any) -> manifests.Config:
    """Read a config."""
    data = json.dumps(document).encode()
    return manifests.parse_config(image.Descriptor(image.CONFIG, DIGEST, len(data)), data)


def test_a_config_tells_its_platform_and_its_layers() -> None:
    found = config({"os": "linux", "architecture": "arm64", "variant": "v8", "rootfs": {"diff_ids": [DIGEST]}})
    assert (found.platform, list(found.diff_ids)) == (image.Platform("linux", "arm64", "v8"), [DIGEST])


def test_a_config_of_nothing_has_no_layers_and_is_for_linux() -> None:
    assert list(config({}).diff_ids) == []
    assert manifests.platform_of(config({})).os == "linux"


@pytest.mark.parametrize("diff_ids", [None, 5, {}, [5], ["x"], [None], [DIGEST.upper()], [DIGEST] * 2000, ["sha256:../" + "a" * 61]])
def test_diff_ids_that_are_none_are_refused(diff_ids: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="diff_ids"):
        config({"rootfs": {"diff_ids": diff_ids}})


def test_the_rest_of_a_config_is_not_judged_here() -> None:
    odd = {"created": "9999-99-99", "config": {"Env": ["x", "\0"], "Entrypoint": 5}, "history": [], "rootfs": {"diff_ids": [DIGEST]}}
    assert list(config(odd).diff_ids) == [DIGEST]


def test_children_carry_the_labels_of_containerd() -> None:
    assert dict(manifests.children(parse(GOOD))).keys() == {"containerd.io/gc.ref.content.config", "containerd.io/gc.ref.content.l.0"}
    assert dict(manifests.children(parse(INDEX, image.INDEX))).keys() == {"containerd.io/gc.ref.content.m.0"}


def test_a_descriptor_is_written_as_it_was_read() -> None:
    row = {**LAYER, "annotations": {"a": "b"}, "urls": ["https://x"], "platform": {"architecture": "arm", "os": "linux", "variant": "v7"}}
    found = parse({**GOOD, "layers": [row]})
    assert isinstance(found, manifests.Manifest)
    assert manifests.to_json(found.layers[0]) == row
