"""What is said of names, what of an index is fetched, and pushes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pydock.testing import flaky_registry as flaky_registries
from pydock.testing import images

pytestmark = pytest.mark.root

Ctr = Any
Flaky = flaky_registries.FlakyRegistry
USER = flaky_registries.Basic("ada", "s3cret:with-colon")
LOGIN = ("--user", f"{USER.user}:{USER.secret}")


# --- what is said of names and addresses


def test_the_words_are_those_clients_know(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "e/words:1")
    missing = name.replace(":1", ":none")
    assert ctr.refused(missing).endswith(f"failed to resolve image: {missing}: not found")
    away = "127.0.0.1:1/e/words:1"
    assert 'failed to resolve image: failed to do request: Head "http://127.0.0.1:1/v2/e/words/manifests/1"' in ctr.refused(away)
    assert "dial tcp 127.0.0.1:1: connect: connection refused" in ctr.refused(away)
    assert "no match for platform in manifest" in ctr.refused(_foreign(flaky), "--platform", "linux/s390x")
    assert "invalid" in ctr.refused(f"{flaky.host}/UPPER:1")
    assert ctr.left().nothing


def _foreign(flaky: Flaky) -> str:
    return flaky.add(images.index([images.image([images.layer({"a": b"b"})], architecture="riscv64")]), "e/foreign:1")


# --- platforms


def test_of_an_index_only_what_is_asked_for_is_fetched(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    ours = dataclasses.replace(picture)
    theirs = images.image([images.layer({"theirs": ctr.namespace.encode()})], architecture="s390x")
    name = flaky.add(images.index([theirs, ours]), "e/index:1")
    ctr.pull(name)
    assert ctr.has(name)
    assert set(theirs.blobs) & ctr.left().blobs <= {theirs.digest}
    ctr.pull(name, "--all-platforms")
    assert set(theirs.blobs) | set(ours.blobs) <= ctr.left().blobs
    assert "no match for platform in manifest" in ctr.refused(name, "--platform", "windows/amd64")
    ctr.pull(name, "--platform", "linux/s390x")
    ctr.pull(name, "--local", "--platform", "linux/s390x")


def test_an_index_that_holds_itself_a_hundred_times_over_is_pulled_in_no_time(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    node = picture
    for _ in range(7):
        node = images.index([node] * 100)
    name = flaky.add(node, "e/bomb:1")
    ctr.pull(name, "--all-platforms")
    assert ctr.has(name)
    assert len(flaky.requests) == 1 + len(node.blobs)
    deeper = flaky.add(images.index([images.index([node])]), "e/deeper:1")
    assert "nested deeper" in ctr.refused(deeper, "--all-platforms")


# --- push


def test_an_image_is_pushed_and_what_is_there_is_not_sent_again(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "f/from:1")
    ctr.pull(name)
    flaky.blobs.clear()
    flaky.manifests.clear()
    flaky.authority = flaky_registries.Bearer(USER)
    target = f"{flaky.host}/f/to:2"
    assert "401" in ctr.bad("images", "push", "--plain-http", target, name)
    ctr.good("images", "push", "--plain-http", *LOGIN, target, name)
    assert set(flaky.blobs) == set(picture.blobs) - {picture.digest}
    assert flaky.manifests["f/to", "2"][0] == picture.manifest
    flaky.requests.clear()
    ctr.good("images", "push", "--plain-http", *LOGIN, target, name)
    assert [one.path for one in flaky.seen("/uploads/", "PUT")] == []
    assert ctr.has(name)


def test_an_upload_elsewhere_carries_no_credentials(ctr: Ctr, flaky: Flaky, other: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "f/store:1")
    ctr.pull(name)
    flaky.blobs.clear()
    flaky.authority = USER
    flaky.elsewhere = other.url
    flaky.on("HEAD", "/manifests/", flaky_registries.instead(flaky_registries.refusal(404, "X", "x")))
    ctr.good("images", "push", "--plain-http", *LOGIN, f"{flaky.host}/f/to:3", name)
    assert set(other.blobs) == set(picture.blobs) - {picture.digest}
    assert {one.authorization for one in other.requests} == {""}
    assert {one.query["state"] for one in other.requests} == {"a/b"}


UPLOADS: dict[str, tuple[str, flaky_registries.Action, str]] = {
    "no place": ("POST", flaky_registries.change(headers={}), "not an http(s) URL"),
    "a file": ("POST", flaky_registries.header("Location", "file:///tmp/x"), "not an http(s) URL"),
    "the metadata service": ("POST", flaky_registries.header("Location", "http://169.254.169.254/x"), "an address of this machine"),
    "another digest": ("PUT", flaky_registries.header("Docker-Content-Digest", "sha256:" + "2" * 64), "the registry stored"),
    "too large": ("PUT", flaky_registries.instead(flaky_registries.Answer(413)), "413"),
    "broken": ("PUT", flaky_registries.instead(flaky_registries.Answer(500)), "500 Internal Server Error"),
}


@pytest.mark.parametrize("trouble", UPLOADS)
def test_an_upload_that_goes_wrong_is_told(ctr: Ctr, flaky: Flaky, picture: images.Image, trouble: str) -> None:
    method, action, words = UPLOADS[trouble]
    name = flaky.add(picture, "f/wrong:1")
    ctr.pull(name)
    flaky.blobs.clear()
    flaky.on("HEAD", "/manifests/", flaky_registries.instead(flaky_registries.refusal(404, "X", "x")))
    flaky.on(method, "/uploads/", action)
    assert words in ctr.bad("images", "push", "--plain-http", f"{flaky.host}/f/to:4", name)
    assert ctr.has(name)


def test_what_is_not_there_cannot_be_pushed(ctr: Ctr, flaky: Flaky) -> None:
    assert "not found" in ctr.bad("images", "push", "--plain-http", f"{flaky.host}/f/to:5", f"{flaky.host}/f/none:1")
    assert flaky.requests == []
