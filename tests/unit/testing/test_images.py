"""Images made on the spot, and what they are pushed to."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

from pydock.testing import images
from pydock.testing import registry as registries


def test_the_same_input_gives_the_same_digest() -> None:
    made = [images.image([images.layer({"a/": "", "a/f": b"x", "l": "a/f"})], {"Cmd": ["f"]}) for _ in range(2)]
    assert made[0].digest == made[1].digest


def test_every_descriptor_leads_to_bytes_of_its_size_and_digest() -> None:
    plain = images.layer({"f": b"x"})
    image = images.image([plain])
    manifest = json.loads(image.manifest)
    for found in (image.descriptor, manifest["config"], *manifest["layers"]):
        data = image.blobs[found["digest"]]
        assert (images.digest(data), len(data)) == (found["digest"], found["size"])
    config = json.loads(image.blobs[manifest["config"]["digest"]])
    assert config["rootfs"]["diff_ids"] == [images.digest(plain)]
    assert gzip.decompress(image.blobs[manifest["layers"][0]["digest"]]) == plain


def test_an_archive_holds_the_layout_and_names_the_image() -> None:
    image = images.index([images.image([images.layer({"f": b"x"})], architecture=name) for name in ("amd64", "arm64")])
    with tarfile.open(fileobj=io.BytesIO(images.archive(image, "docker.io/library/x:1"))) as tar:
        names = tar.getnames()
        [entry] = json.loads(tar.extractfile("index.json").read())["manifests"]  # type: ignore[union-attr]
    assert "oci-layout" in names
    assert entry["annotations"]["io.containerd.image.name"] == "docker.io/library/x:1"
    assert [f"blobs/{key.replace(':', '/')}" for key in image.blobs if f"blobs/{key.replace(':', '/')}" not in names] == []


def test_a_registry_keeps_what_is_pushed(registry: registries.Registry) -> None:
    image = images.image([images.layer({"f": b"pushed"})])
    assert registry.push(image, "unit/pushed:1") == f"{registry.host}/unit/pushed:1"
    answer = registry._ask("GET", "/v2/unit/pushed/manifests/1", (200,))
    assert answer.getheader("Docker-Content-Digest") == image.digest
