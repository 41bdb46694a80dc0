"""Image archives in and out, right ones and hostile ones, by the real ``ctr``."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pydock.testing import flaky_registry as flaky_registries
from pydock.testing import images, layers

pytestmark = pytest.mark.root

Ctr = Any
NAME = "io.containerd.image.name"
REF = "org.opencontainers.image.ref.name"


def entry(image: images.Image, **annotations: str) -> dict[str, Any]:
    """Return an image's row of an index, named by ``name`` and ``ref``."""
    known = {"name": NAME, "ref": REF}
    return {**image.descriptor, "annotations": {known[key]: value for key, value in annotations.items()}}


def layout(rows: list[dict[str, Any]], blobs: Mapping[str, bytes]) -> bytes:
    """Return an OCI layout."""
    index = {"schemaVersion": 2, "mediaType": images.INDEX, "manifests": rows}
    files: dict[str, bytes | str] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    files.update({f"blobs/{key.replace(':', '/')}": data for key, data in blobs.items()})
    return images.layer(files, modes=dict.fromkeys(files, 0o644))


def docker_save(image: images.Image, tar: bytes, tags: Any, **more: bytes | str) -> bytes:
    """Return what ``docker save`` of old wrote: uncompressed layers in folders of their own."""
    config = next(data for data in image.blobs.values() if b"diff_ids" in data)
    rows = [{"Config": "c.json", "RepoTags": tags, "Layers": ["abc/layer.tar"]}]
    files: dict[str, bytes | str] = {"abc/VERSION": b"1.0", "abc/json": b"{}", "abc/layer.tar": tar, "c.json": config}
    return images.layer({**files, **more, "manifest.json": json.dumps(rows).encode()})


@pytest.fixture
def small(request: pytest.FixtureRequest) -> images.Image:
    """An image of one layer that nobody else has."""
    return images.image([images.layer({"seed": request.node.nodeid.encode()})])


def load(ctr: Ctr, path: Path, data: bytes, *flags: str) -> list[str]:
    """Import an archive and return the names it made."""
    path.write_bytes(data)
    ctr.good("images", "import", *flags, str(path))
    left = ctr.left()
    assert (left.ingests, left.active, left.leases) == ({}, (), ())
    return sorted(left.images)


# --- names, as containerd gives them

TAGGED, FULL = {"ref": "v2"}, {"name": "docker.io/library/x:1", "ref": "1"}
DAY = "import-DAY"
RULES: dict[str, tuple[list[dict[str, str]], list[str], list[str]]] = {
    "the archive's own name": ([FULL], [], ["docker.io/library/x:1"]),
    "a name for the ref": ([{"ref": "docker.io/library/y:1"}], [], ["docker.io/library/y:1"]),
    "a tag alone": ([TAGGED], [], [f"{DAY}:v2"]),
    "a tag and a base": ([TAGGED], ["--base-name", "foo.com/bar"], ["foo.com/bar:v2"]),
    "a base that is another": ([FULL], ["--base-name", "foo.com/bar"], []),
    "a base that is its own": ([FULL], ["--base-name", "docker.io/library/x"], ["docker.io/library/x:1"]),
    "no name at all": ([{}], [], []),
    "no name, but digests": ([{}], ["--digests"], [f"{DAY}@DIGEST"]),
    "digests of the unnamed": ([FULL], ["--digests", "--skip-digest-for-named"], ["docker.io/library/x:1", f"{DAY}@DIGEST"]),
    "both": ([FULL, TAGGED], [], ["docker.io/library/x:1", f"{DAY}:v2"]),
    "the index": ([FULL], ["--index-name", "foo.com/idx:9"], ["docker.io/library/x:1", "foo.com/idx:9"]),
}


@pytest.mark.parametrize("rule", RULES)
def test_imported_images_are_named_as_containerd_names_them(ctr: Ctr, small: images.Image, tmp_path: Path, rule: str) -> None:
    rows, flags, expected = RULES[rule]
    data = layout([entry(small, **row) for row in rows], small.blobs)
    names = load(ctr, tmp_path / "a.tar", data, *flags)
    wanted = [name.replace("DAY", time.strftime("%Y-%m-%d")).replace("DIGEST", small.digest) for name in expected]
    assert names == sorted(wanted)


def test_names_of_docker_archives_are_completed(ctr: Ctr, small: images.Image, tmp_path: Path) -> None:
    tar = gzip.decompress(next(data for data in small.blobs.values() if data[:2] == b"\x1f\x8b"))
    assert load(ctr, tmp_path / "a.tar", docker_save(small, tar, ["busybox:1", "a/b:2"])) == [
        "docker.io/a/b:2",
        "docker.io/library/busybox:1",
    ]
    assert len(ctr.left().committed) == 1


def test_a_docker_archive_may_link_layers(ctr: Ctr, small: images.Image, tmp_path: Path) -> None:
    tar = gzip.decompress(next(data for data in small.blobs.values() if data[:2] == b"\x1f\x8b"))
    data = docker_save(small, tar, ["x:1"], **{"abc/layer.tar": "../def/layer.tar", "def/layer.tar": tar})
    assert load(ctr, tmp_path / "a.tar", data) == ["docker.io/library/x:1"]
    assert len(ctr.left().committed) == 1


@pytest.mark.parametrize(
    "pack", [gzip.compress, zstandard.compress, lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]) + bytes(90)]
)
def test_a_compressed_archive_is_taken(ctr: Ctr, small: images.Image, tmp_path: Path, pack: Any) -> None:
    data = pack(layout([entry(small, **FULL)], small.blobs))
    assert load(ctr, tmp_path / "a.tar", data) == ["docker.io/library/x:1"]


def test_an_image_for_others_is_stored_and_not_unpacked(ctr: Ctr, tmp_path: Path) -> None:
    other = images.image([images.layer({"f": b"foreign"})], architecture="s390x")
    data = layout([entry(other, **FULL)], other.blobs)
    (tmp_path / "b.tar").write_bytes(data)
    assert "image might be filtered out" in ctr.bad("images", "import", str(tmp_path / "b.tar"))
    assert ctr.left().nothing
    assert load(ctr, tmp_path / "a.tar", data, "--all-platforms") == ["docker.io/library/x:1"]
    assert ctr.left().committed == ()


def test_an_image_is_imported_twice_at_once(ctr: Ctr, small: images.Image, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(layout([entry(small, **FULL)], small.blobs))
    clients = [subprocess.Popen(ctr.argv("images", "import", str(tmp_path / "a.tar")), stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [client.wait(30) for client in clients] == [0, 0, 0, 0]
    assert ctr.left().images == ("docker.io/library/x:1",)
    assert ctr.left().ingests == {}


# --- hostile archives


def wrong_blob(image: images.Image) -> bytes:
    """Return an archive whose blobs but the manifest are other than their names say."""
    return layout([entry(image, **FULL)], {key: data if b"schema" in data[:20] else data + b"x" for key, data in image.blobs.items()})


def without(image: images.Image, what: str) -> bytes:
    """Leave out the blobs with ``what`` in them."""
    return layout([entry(image, **FULL)], {key: data for key, data in image.blobs.items() if what.encode() not in data})


def listing(text: bytes) -> bytes:
    """Return a layout of nothing but its index."""
    return images.layer({"oci-layout": b"{}", "index.json": text})


def missing(config: Any) -> bytes:
    """Return a docker archive of a list without what it lists."""
    return docker([{"Config": config, "Layers": []}])


def before(image: images.Image, *entries: bytes) -> bytes:
    """Put entries in front of a right archive."""
    return b"".join(entries) + layout([entry(image, **FULL)], image.blobs)


def docker(rows: Any) -> bytes:
    """Return a docker archive of nothing but its list."""
    return images.layer({"manifest.json": rows if isinstance(rows, bytes) else json.dumps(rows).encode()})


Meta = layers.Meta
LOOP = [layers.symlink(b"b", b"a"), layers.symlink(b"a", b"b")]
HOSTILE: dict[str, tuple[Any, str]] = {
    "nothing": (lambda image: b"", "unrecognized image format"),
    "only its end": (lambda image: bytes(1024), "unrecognized image format"),
    "no tar": (lambda image: b"x" * 2000, "not a tar archive"),
    "no image": (lambda image: images.layer({"a": b"b"}), "unrecognized image format"),
    "cut in a header": (lambda image: before(image)[:700], "in the middle of an entry"),
    "cut in a blob": (lambda image: before(image).rstrip(b"\0")[:-100], "in the middle of an entry"),
    "a wrong blob": (wrong_blob, "unexpected commit digest"),
    "no manifest": (lambda image: without(image, "schemaVersion"), "not found"),
    "no config": (lambda image: without(image, "diff_ids"), "not found"),
    "no layer": (lambda image: without(image, "\x1f"), "not found"),
    "an index.json of gigabytes": (lambda image: layers.entry(b"index.json", b"0", meta=Meta(size=2 << 30)), "the limit is"),
    "a manifest.json of gigabytes": (lambda image: layers.entry(b"manifest.json", b"0", meta=Meta(size=2 << 30)), "the limit is"),
    "an oci-layout of gigabytes": (lambda image: layers.entry(b"oci-layout", b"0", meta=Meta(size=2 << 30)), "the limit is"),
    "a sparse index.json": (lambda image: layers.entry(b"index.json", b"S", meta=Meta(size=0)), "sparse"),
    "a sparse file of PAX": (lambda image: layers.tar(layers.pax({b"GNU.sparse.major": b"1"}), layers.file(b"x", b"x")), "sparse"),
    "a negative size": (lambda image: layers.entry(b"x", b"0", meta=Meta(size=-1)), "no valid size"),
    "a size beyond all": (lambda image: layers.entry(b"x", b"0", meta=Meta(size=1 << 62)), "no valid size"),
    "a size of PAX that is none": (lambda image: layers.pax({b"size": b"-5"}) + layers.file(b"x", b"x"), "no valid size"),
    "a size of PAX in other digits": (lambda image: layers.pax({b"size": "\u0663".encode()}) + layers.file(b"x", b"x"), "no valid size"),
    "PAX garbage": (lambda image: layers.raw_pax(b"garbage") + layers.file(b"x", b"x"), "malformed PAX"),
    "PAX lengths that lie": (lambda image: layers.raw_pax(b"99 a=b\n") + layers.file(b"x", b"x"), "malformed PAX"),
    "PAX of nothing but length": (lambda image: layers.raw_pax(b"00000000 a=b\n") + layers.file(b"x", b"x"), "malformed PAX"),
    "PAX of gigabytes": (lambda image: layers.entry(b"x", b"x", meta=Meta(size=2 << 30)), "the limit is"),
    "a long name of gigabytes": (lambda image: layers.entry(b"x", b"L", meta=Meta(size=2 << 30)), "the limit is"),
    "a digest that climbs": (lambda image: before(image, layers.file(b"blobs/sha256/..%2f..", b"x")), "invalid checksum digest"),
    "a digest in upper case": (lambda image: before(image, layers.file(b"blobs/sha256/" + b"A" * 64, b"x")), "invalid checksum digest"),
    "an index of something else": (lambda image: listing(b"[]"), "not a JSON object"),
    "an index of two kinds": (lambda image: listing(b'{"manifests":[],"layers":[]}'), "besides what"),
    "an index without end": (lambda image: listing(b"[" * 100_000), "nested deeper"),
    "an index with two lists": (lambda image: listing(b'{"manifests":[],"manifests":[]}'), "duplicate key"),
    "a docker archive of something else": (lambda image: docker({}), "not a list of images"),
    "a docker archive without its config": (lambda image: missing("x"), "does not hold"),
    "a docker archive of odd types": (lambda image: missing(5), "does not hold"),
    "a docker archive of links in a circle": (lambda image: b"".join(LOOP) + missing("a"), "does not hold"),
    "a docker archive of bad names": (lambda image: docker_save(image, b"", ["UPPER"]), "must be lowercase"),
    "a name with escapes": (lambda image: layout([entry(image, name="x\x1b[31m:1")], image.blobs), "control character"),
    "a name of half a character": (lambda image: layout([entry(image, name="x\ud800:1")], image.blobs), "not valid JSON"),
    "gzip that is cut": (lambda image: gzip.compress(before(image))[:-9], "cut short"),
    "gzip that is damaged": (lambda image: gzip.compress(before(image))[:-8] + b"12345678", "damaged"),
    "zstd that is cut": (lambda image: zstandard.compress(before(image))[:-3], "cut short"),
    "zstd that is damaged": (lambda image: zstandard.compress(before(image))[:9] + b"\xff" * 200, "damaged"),
    "a bomb": (lambda image: zstandard.compress(layers.entry(b"a", b"0", bytes(200 << 20))), "grows more than"),
}  # fmt: skip


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_archive_is_told_and_leaves_nothing(ctr: Ctr, small: images.Image, tmp_path: Path, trick: str) -> None:
    make, words = HOSTILE[trick]
    (tmp_path / "a.tar").write_bytes(make(small))
    assert words in ctr.bad("images", "import", str(tmp_path / "a.tar"))
    assert ctr.left().nothing, ctr.left()
    assert load(ctr, tmp_path / "b.tar", layout([entry(small, **FULL)], small.blobs)) == ["docker.io/library/x:1"]


def test_what_an_archive_holds_besides_an_image_does_no_harm(ctr: Ctr, small: images.Image, tmp_path: Path) -> None:
    odd = [
        layers.directory(b"../../../etc"), layers.entry(b"/dev/null", b"3", meta=Meta(major=1, minor=3)), layers.entry(b"f", b"6"),
        layers.symlink(b"/etc/passwd", b"index.json.link"), layers.hardlink(b"nowhere", b"h"), layers.entry(b"v", b"V", b"volume" * 200),
        layers.pax({b"path": b"../../" + b"n" * 300, b"mtime": b"-1e400"}), layers.file(b"x", b"x"), layers.pax({b"path": b"global"}, b"g"),
        layers.entry(b"l", b"L", b"\xff\xfe" * 90 + b"\0"), layers.file(b"y", b"x"),
    ]  # fmt: skip
    assert load(ctr, tmp_path / "a.tar", before(small, *odd)) == ["docker.io/library/x:1"]


# --- out


def test_an_exported_image_comes_back_the_same(ctr: Ctr, small: images.Image, tmp_path: Path) -> None:
    load(ctr, tmp_path / "a.tar", layout([entry(small, **FULL)], small.blobs))
    for out in ("1.tar", "2.tar"):
        ctr.good("images", "export", str(tmp_path / out), FULL["name"])
    first = (tmp_path / "1.tar").read_bytes()
    assert first == (tmp_path / "2.tar").read_bytes(), "the same image gives the same bytes"
    other = beside(ctr, "again")
    assert load(other, tmp_path / "b.tar", first) == [FULL["name"]]
    assert other.left().blobs == frozenset(small.blobs)
    assert small.digest in other.good("images", "ls")


def beside(ctr: Ctr, name: str) -> Ctr:
    """Return the same client in another namespace."""
    import dataclasses

    return dataclasses.replace(ctr, namespace=f"{ctr.namespace}-{name}")


def test_an_archive_is_one_for_docker_too(ctr: Ctr, small: images.Image, tmp_path: Path) -> None:
    other = images.image([images.layer({"f": b"elsewhere"})], architecture="s390x")
    both = images.index([other, small])
    load(ctr, tmp_path / "a.tar", layout([entry(both, **FULL)], both.blobs), "--all-platforms")
    ctr.good("images", "export", "--all-platforms", str(tmp_path / "out.tar"), FULL["name"])
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "out.tar").read_bytes())) as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    [row] = json.loads(held["manifest.json"])
    ours = next(key for key, data in small.blobs.items() if b"diff_ids" in data)
    assert row["Config"] == f"blobs/{ours.replace(':', '/')}"
    assert row["RepoTags"] == [FULL["name"]]
    assert {f"blobs/{key.replace(':', '/')}" for key in both.blobs} <= set(held)
    assert all(hashlib.sha256(data).hexdigest() == name.rpartition("/")[2] for name, data in held.items() if name.startswith("blobs/"))


def test_only_the_platforms_asked_for_are_exported(ctr: Ctr, small: images.Image, tmp_path: Path) -> None:
    other = images.image([images.layer({"f": b"beyond"})], architecture="s390x")
    both = images.index([other, small])
    load(ctr, tmp_path / "a.tar", layout([entry(both, **FULL)], both.blobs), "--all-platforms")
    ctr.good("images", "export", "--platform", "linux/s390x", "--skip-manifest-json", str(tmp_path / "out.tar"), FULL["name"])
    with tarfile.open(tmp_path / "out.tar") as tar:
        names = set(tar.getnames())
    assert f"blobs/{other.digest.replace(':', '/')}" in names
    assert f"blobs/{small.digest.replace(':', '/')}" not in names
    assert "manifest.json" not in names


def test_what_is_not_there_cannot_be_exported_or_tagged(ctr: Ctr, tmp_path: Path) -> None:
    assert "not found" in ctr.bad("images", "export", str(tmp_path / "out.tar"), "none:1")
    assert "not found" in ctr.bad("images", "tag", "none:1", "other:1")


def test_a_reader_that_goes_does_not_hurt(ctr: Ctr, flaky: flaky_registries.FlakyRegistry, picture: images.Image) -> None:
    name = flaky.add(picture, "g/gone:1")
    ctr.pull(name)
    client = subprocess.Popen(ctr.argv("images", "export", "-", name), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdout is not None
    client.stdout.read(1000)
    client.stdout.close()
    client.kill()
    client.wait()
    assert ctr.good("images", "ls", "-q").split() == [name]
