"""Registries that cut, stall, crawl, lie and change their mind: what has arrived is kept and the rest is fetched, or it is said why not."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest

from pydock.testing import flaky_registry as flaky_registries
from pydock.testing import images, leakcheck

pytestmark = pytest.mark.root

Ctr = Any
Flaky = flaky_registries.FlakyRegistry
Answer, Seen = flaky_registries.Answer, flaky_registries.Seen
Arrange = Callable[[Flaky, images.Image], None]
MANIFEST_V1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def largest(image: images.Image) -> tuple[str, int]:
    """Return digest and size of the largest blob."""
    return max(((key, len(data)) for key, data in image.blobs.items()), key=lambda pair: pair[1])


def whole(ctr: Ctr, name: str, picture: images.Image) -> None:
    """The image is there, and nothing that was only needed on the way."""
    left = ctr.left()
    assert name in left.images
    assert left.blobs == frozenset(picture.blobs)
    assert (left.ingests, left.active, left.leases, len(left.committed)) == ({}, (), (), 2)


def test_an_image_is_pulled(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "a/right:1")
    ctr.pull(name)
    whole(ctr, name, picture)
    assert len(flaky.seen("/blobs/")) == 3


# --- breaks: what came is kept


def test_a_cut_is_resumed_and_no_byte_is_fetched_twice(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    digest, size = largest(picture)
    name = flaky.add(picture, "a/cut:1")
    flaky.on("GET", digest, flaky_registries.change(cut=100_000), times=2)
    ctr.pull(name)
    whole(ctr, name, picture)
    assert flaky.served(digest) == size
    assert [one.headers.get("range", "") for one in flaky.seen(digest)] == ["", "bytes=100000-", "bytes=200000-"]


def test_a_broken_pull_is_resumed_by_the_next_one(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    digest, size = largest(picture)
    name = flaky.add(picture, "a/again:1")
    flaky.on("GET", digest, flaky_registries.change(cut=200_000), times=1)
    flaky.on("GET", digest, lambda answer, seen: dataclasses.replace(answer, cut=0) if "range" in seen.headers else answer)
    complaint = ctr.refused(name)
    assert f"{flaky.host}/a/again/blobs/{digest}: broken off after 0 of {size - 200_000} bytes (unexpected EOF): unavailable" in complaint
    left = ctr.left()
    assert left.ingests == {f"layer-{digest}": 200_000}
    assert (left.active, left.leases, left.images) == ((), (), ())
    flaky.heal()
    ctr.pull(name)
    whole(ctr, name, picture)
    assert flaky.served(digest) == size - 200_000
    assert flaky.served("/blobs/") == size - 200_000, "what was complete is not fetched again"


def test_a_stall_is_a_break(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    digest, size = largest(picture)
    name = flaky.add(picture, "a/stall:1")
    flaky.on("GET", digest, flaky_registries.change(stall=100_000), times=1)
    ctr.pull(name)
    whole(ctr, name, picture)
    assert flaky.served(digest) == size


def test_a_registry_that_crawls_is_given_up(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    digest, _ = largest(picture)
    name = flaky.add(picture, "a/crawl:1")
    flaky.on("GET", digest, flaky_registries.change(drip=(1, 0.02)))
    assert "bytes in 0.3 s" in ctr.refused(name)
    assert list(ctr.left().ingests) == [f"layer-{digest}"]
    flaky.heal()
    ctr.pull(name)
    whole(ctr, name, picture)


def test_a_registry_that_does_not_know_ranges_sends_it_whole(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    digest, _ = largest(picture)
    name = flaky.add(picture, "a/whole:1")
    flaky.on("GET", digest, lambda *_: Answer(200, {}, picture.blobs[digest]))
    flaky.on("GET", digest, flaky_registries.change(cut=100_000), times=1)
    ctr.pull(name)
    whole(ctr, name, picture)


def test_a_body_of_unknown_length_is_taken(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "a/unsaid:1")
    flaky.on("GET", "/blobs/", lambda answer, _: dataclasses.replace(answer, declared=-1, cut=len(answer.body)))
    ctr.pull(name)
    whole(ctr, name, picture)


def test_bytes_of_an_earlier_try_that_are_wrong_are_fetched_anew(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    digest, size = largest(picture)
    name = flaky.add(picture, "a/poisoned:1")
    flaky.on("GET", digest, lambda answer, seen: dataclasses.replace(answer, body=bytes(len(answer.body)), cut=100_000), times=1)
    flaky.on("GET", digest, lambda answer, seen: dataclasses.replace(answer, cut=0) if "range" in seen.headers else answer)
    ctr.refused(name)
    assert ctr.left().ingests == {f"layer-{digest}": 100_000}
    flaky.heal()
    ctr.pull(name)
    whole(ctr, name, picture)
    assert flaky.served(digest) == 2 * size - 100_000


def test_a_try_for_another_size_does_not_spoil_the_right_one(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    digest, size = largest(picture)
    right = flaky.add(picture, "a/sized:1")
    flaky.put_manifest("a/sized", "2", picture.manifest.replace(b'"size":%d' % size, b'"size":1%d' % size))

    def breaks(answer: Answer, seen: Seen) -> Answer:
        nothing = Answer(206, {"Content-Range": "bytes 100000-200000/*"}, b"", declared=5, cut=0)
        return nothing if "range" in seen.headers else dataclasses.replace(answer, declared=-1, cut=100_000)

    flaky.on("GET", digest, breaks)
    ctr.refused(f"{flaky.host}/a/sized:2")
    assert ctr.left().ingests == {f"layer-{digest}": 100_000}
    flaky.heal()
    ctr.pull(right)
    left = ctr.left()
    assert (left.images, left.ingests, len(left.committed)) == ((right,), {}, 2)


# --- a client that goes


def ours(daemon: Any) -> leakcheck.Snapshot:
    """Return what the host holds of a daemon, without control groups, which other daemons make too."""
    return dataclasses.replace(leakcheck.take(daemon), cgroups=())


def test_a_pull_that_is_interrupted_keeps_what_came_and_nothing_else(ctr: Ctr, flaky: Flaky, picture: images.Image, impatient: Any) -> None:
    digest, size = largest(picture)
    name = flaky.add(picture, "a/interrupted:1")
    flaky.on("GET", digest, flaky_registries.change(drip=(20_000, 0.1)))
    before = ours(impatient)
    client = subprocess.Popen(ctr.argv("images", "pull", "--plain-http", name), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    leakcheck.settle(lambda: "" if ctr.left().ingests.get(f"layer-{digest}", 0) else "nothing arrives")
    client.send_signal(signal.SIGINT)
    assert client.wait(20) != 0
    leakcheck.settle(lambda: str(ctr.left().active or ""))
    flaky.heal()
    leakcheck.settle(lambda: before.difference(ours(impatient)))
    assert ctr.left().images == ()
    kept = ctr.left().ingests[f"layer-{digest}"]
    assert 0 < kept < size
    for lease in ctr.left().leases:  # the client's own, which it leaves behind with any daemon
        ctr.good("leases", "rm", lease)
    ctr.pull(name)
    whole(ctr, name, picture)
    assert flaky.served(digest) == size - kept


def test_one_image_pulled_ten_times_at_once_is_fetched_once(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "a/once:1")
    with futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: ctr.pull(name), range(10)))
    whole(ctr, name, picture)
    for digest in picture.blobs:
        assert len(flaky.seen(digest)) == 1, digest


def test_a_pull_waits_for_a_client_that_fetches_the_same_blob(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    digest, size = largest(picture)
    name = flaky.add(picture, "a/both:1")
    flaky.on("GET", digest, flaky_registries.change(drip=(60_000, 0.1)))
    with futures.ThreadPoolExecutor(2) as pool:
        other = pool.submit(ctr.pull, name, "--local")
        leakcheck.settle(lambda: "" if ctr.left().ingests.get(f"layer-{digest}", -1) >= 0 else "nothing arrives")
        ctr.pull(name)
        other.result()
    whole(ctr, name, picture)
    assert flaky.served(digest) == size


# --- definite failures: nothing is kept


def zeros(answer: Answer, seen: Seen) -> Answer:
    """The right length of wrong bytes."""
    return dataclasses.replace(answer, body=bytes(len(answer.body)))


def longer(answer: Answer, seen: Seen) -> Answer:
    """A byte too many."""
    return dataclasses.replace(answer, body=answer.body + b"x")


def shorter(answer: Answer, seen: Seen) -> Answer:
    """A byte too few."""
    return dataclasses.replace(answer, body=answer.body[:-1])


def surplus(answer: Answer, seen: Seen) -> Answer:
    """A byte too many, which no header announces."""
    return dataclasses.replace(answer, body=answer.body + b"x", declared=-1, cut=len(answer.body) + 1)


def misplaced(answer: Answer, seen: Seen) -> Answer:
    """Another part than was asked for."""
    return (
        Answer(206, {"Content-Range": "bytes 0-9/10"}, bytes(10)) if "range" in seen.headers else dataclasses.replace(answer, cut=100_000)
    )


def refusing(status: int, **headers: str) -> flaky_registries.Action:
    """Turn it down."""
    return flaky_registries.instead(flaky_registries.refusal(status, "DENIED", "no", headers))


kind, instead, redirect = flaky_registries.header, flaky_registries.instead, flaky_registries.redirect
ENDLESS = Answer(400, {}, bytes(90_000), declared=1 << 40, stall=90_000)
LIES: dict[str, tuple[str, str, flaky_registries.Action, str]] = {
    "wrong bytes": ("GET", "{blob}", zeros, "unexpected commit digest"),
    "a byte more": ("GET", "{blob}", longer, "its descriptor says"),
    "a byte less": ("GET", "{blob}", shorter, "its descriptor says"),
    "a byte more, unannounced": ("GET", "{blob}", surplus, "sends more than"),
    "another range": ("GET", "{blob}", misplaced, "asked from byte 100000, got 'bytes 0-9/10'"),
    "an encoding": ("GET", "/blobs/", kind("Content-Encoding", "gzip"), "in an encoding nobody asked for"),
    "an encoded manifest": ("GET", "/manifests/", kind("Content-Encoding", "gzip"), "in an encoding nobody asked for"),
    "another manifest": ("GET", "/manifests/", zeros, "unexpected commit digest"),
    "the digest of nothing": ("HEAD", ".", kind("Docker-Content-Digest", "sha256:" + "0" * 64), "not found"),
    "a path for a digest": ("HEAD", ".", kind("Docker-Content-Digest", "sha256:../../x"), "invalid checksum digest"),
    "a digest of megabytes": ("HEAD", ".", kind("Docker-Content-Digest", "sha256:" + "0" * 7000), "invalid checksum digest length"),
    "a size in the tag's answer": ("HEAD", ".", kind("Content-Length", "12345"), "its descriptor says 12345"),
    "a manifest of gigabytes": ("HEAD", ".", kind("Content-Length", "99999999999"), "the limit is"),
    "a page": ("GET|HEAD", "/manifests/", kind("Content-Type", "text/html"), "'text/html' is not an image"),
    "an index that is none": ("GET|HEAD", "/manifests/", kind("Content-Type", images.INDEX), "calls itself"),
    "schema 1": ("GET|HEAD", "/manifests/", kind("Content-Type", MANIFEST_V1), "is not an image"),
    "a blob that is gone": ("GET", "/blobs/", refusing(404), "404 Not Found: denied: no: not found"),
    "forbidden": ("GET|HEAD", ".", refusing(403), "403 Forbidden: permission denied"),
    "unauthorized, for ever": ("GET|HEAD", ".", refusing(401), "401 Unauthorized: unauthenticated"),
    "too many, for ever": ("GET", "/blobs/", refusing(429, **{"Retry-After": "0"}), "429 Too Many Requests: denied: no"),
    "a bad request": ("GET", "/blobs/", instead(Answer(400, {}, b'{"errors":[' + b" " * 300_000)), "400 Bad Request"),
    "an error of no end": ("GET", "/blobs/", instead(ENDLESS), "400 Bad Request"),
    "a redirect to itself": ("GET", "/blobs/", redirect("{path}"), "stopped after 10 redirects"),
    "a redirect to a file": ("GET", "/blobs/", redirect("file:///etc/passwd"), "not an http(s) URL"),
    "a redirect to nowhere": ("GET", "/blobs/", redirect("http://a:b:c/"), "not an http(s) URL"),
    "a redirect to a socket": ("GET", "/blobs/", redirect("unix:///run/x.sock"), "not an http(s) URL"),
    "a redirect to the metadata service": ("GET", "/blobs/", redirect("http://169.254.169.254/latest"), "address of this"),
    "a header of a megabyte": ("GET", "/blobs/", kind("X-Big", "x" * 1_000_000), "malformed HTTP response"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_told_and_leaves_nothing(ctr: Ctr, flaky: Flaky, picture: images.Image, lie: str) -> None:
    method, pattern, action, words = LIES[lie]
    name = flaky.add(picture, "a/lie:1")
    flaky.on(method, pattern.replace("{blob}", largest(picture)[0]), action)
    assert words in ctr.refused(name)
    assert ctr.left().nothing, ctr.left()
    flaky.heal()
    ctr.pull(name)
    whole(ctr, name, picture)


PASSING: dict[str, tuple[str, str, flaky_registries.Action, int | None]] = {
    "busy, again at once": ("GET", "/blobs/", refusing(429, **{"Retry-After": "0"}), 2),
    "busy, until a date": ("GET", "/blobs/", refusing(429, **{"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}), 1),
    "busy, for less than no time": ("GET", "/blobs/", refusing(429, **{"Retry-After": "-1"}), 1),
    "busy, in other digits": ("GET", "/blobs/", refusing(429, **{"Retry-After": "\xb2"}), 1),
    "broken inside": ("GET|HEAD", ".", refusing(503), 2),
    "no HEAD": ("HEAD", ".", refusing(405), None),
    "no digest": ("HEAD", ".", flaky_registries.change(headers={}), None),
    "a redirect": ("GET", "/blobs/", redirect("{path}"), 3),
    "a manifest only among the blobs": ("GET", "/manifests/", refusing(404), None),
}


@pytest.mark.parametrize("trouble", PASSING)
def test_a_passing_trouble_is_gone_through(ctr: Ctr, flaky: Flaky, picture: images.Image, trouble: str) -> None:
    method, pattern, action, times = PASSING[trouble]
    name = flaky.add(picture, "a/passing:1")
    flaky.blobs.update(picture.blobs)
    flaky.on(method, pattern, action, times)
    ctr.pull(name)
    whole(ctr, name, picture)


def test_a_layer_of_other_contents_than_the_config_says_is_not_unpacked(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    other = images.image([images.layer({"seed": b"x"}), images.layer({"other": b"y"})])
    config = next(data for data in picture.blobs.values() if b"diff_ids" in data)
    forged = picture.manifest
    layers = [key for key in picture.blobs if key != picture.digest and picture.blobs[key] != config]
    for ours, theirs in zip(layers, [key for key, data in other.blobs.items() if data[:2] == b"\x1f\x8b"], strict=True):
        forged = forged.replace(ours.encode(), theirs.encode()).replace(
            b'"size":%d' % len(picture.blobs[ours]), b'"size":%d' % len(other.blobs[theirs])
        )
    flaky.add(other, "a/forged:1")
    flaky.add(picture, "a/forged:2")
    flaky.put_manifest("a/forged", "3", forged)
    assert "wrong diff id" in ctr.refused(f"{flaky.host}/a/forged:3")
    left = ctr.left()
    assert left.nothing
    assert left.committed == ()


def test_time_passes_only_where_a_registry_lets_it(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "a/forever:1")
    flaky.on("GET", "/blobs/", instead(Answer(503)))
    begun = time.monotonic()
    assert "503 Service Unavailable" in ctr.refused(name)
    assert time.monotonic() - begun < 20
    assert ctr.left().nothing
