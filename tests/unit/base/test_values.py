"""Digests, labels, field masks, times and made up names."""

from __future__ import annotations

import hashlib

import pytest

from pydock.base import clock, digest, errors, fieldmask, ids, labels, names

SHA256 = "sha256:" + hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_digest_is_algorithm_and_hex(algorithm: str) -> None:
    made = digest.compute(b"data", algorithm)
    assert digest.parse(made) == (algorithm, hashlib.new(algorithm, b"data").hexdigest())
    assert digest.validate(made) == made
    assert digest.is_valid(made)


def test_the_digest_of_nothing_is_well_known() -> None:
    assert digest.compute(b"") == digest.EMPTY == SHA256


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "invalid checksum digest format"),
        ("abc", "invalid checksum digest format"),
        ("sha256:", "invalid checksum digest format"),
        ("sha256:../../etc/passwd", "invalid checksum digest format"),
        ("sha256:zz", "invalid checksum digest length"),
        ("md5:" + "a" * 32, "unsupported digest algorithm"),
        ("SHA256:" + "a" * 64, "invalid checksum digest format"),
        ("sha256:" + "A" * 64, "invalid checksum digest format"),
        ("sha256:" + "a" * 63 + "\n", "invalid checksum digest format"),
        ("sha256:" + "a" * 64 + "\n", "invalid checksum digest format"),
        ("sha512:" + "a" * 64, "invalid checksum digest length"),
    ],
)
def test_what_is_no_digest_is_refused_in_the_words_clients_know(text: str, problem: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"^{problem}"):
        digest.parse(text)
    assert not digest.is_valid(text)


def test_an_unknown_hash_is_refused() -> None:
    with pytest.raises(errors.InvalidArgument, match="unsupported digest algorithm"):
        digest.hasher("crc32")


def test_labels_are_bounded_by_key_and_value_together() -> None:
    assert labels.validate({"k": "v" * 4095}) == {"k": "v" * 4095}
    with pytest.raises(errors.InvalidArgument) as caught:
        labels.validate({"k": "v" * 4096})
    message = "label key and value length (4097 bytes) greater than maximum size (4096 bytes), key: k: invalid argument"
    assert str(caught.value) == message


def test_labels_are_counted_in_bytes_and_need_a_key() -> None:
    with pytest.raises(errors.InvalidArgument, match=r"\(4098 bytes\)"):
        labels.validate({"é": "é" * 2048})
    with pytest.raises(errors.InvalidArgument, match="label key required"):
        labels.validate({"": "x"})
    with pytest.raises(errors.InvalidArgument, match="are more than"):
        labels.validate({str(n): "" for n in range(labels.MOST + 1)})


def refuse(path: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f'cannot update "{path}" field')


@pytest.mark.parametrize(
    ("paths", "merged"),
    [
        ([], {"b": "2"}),
        (["labels"], {"b": "2"}),
        (["labels.b"], {"a": "1", "b": "2"}),
        (["labels.a"], {}),
        (["labels.a", "labels.b"], {"b": "2"}),
        (["labels.c"], {"a": "1"}),
    ],
)
def test_a_mask_sets_removes_or_replaces_labels(paths: list[str], merged: dict[str, str]) -> None:
    assert fieldmask.labels({"a": "1"}, {"b": "2"}, paths, refuse) == merged


def test_a_label_key_may_hold_dots() -> None:
    key = "containerd.io/gc.ref.content.0"
    assert fieldmask.labels({}, {key: "x", "other": "y"}, [f"labels.{key}"], refuse) == {key: "x"}


@pytest.mark.parametrize("path", ["size", "label", "labels.", "labelsx", ""])
def test_a_mask_of_another_field_is_refused(path: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="cannot update"):
        fieldmask.labels({}, {}, [path], refuse)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-23T14:19:06.5Z", 1795443546_500_000_000),
        ("2026-11-23T15:19:06.000000001+01:00", 1795443546_000_000_001),
        ("2026-11-23t13:49:06-00:30", 1795443546_000_000_000),
    ],
)
def test_a_time_is_read_to_the_nanosecond(text: str, moment: int) -> None:
    assert clock.parse_rfc3339(text) == moment
    assert clock.parse_rfc3339(clock.format_rfc3339(moment)) == moment


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2026-11-23", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T25:00:00Z", "2026-01-01T00:00:00"]
)
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        clock.parse_rfc3339(text)


def test_made_up_names_are_new_each_time() -> None:
    made = {ids.lease() for _ in range(100)}
    assert len(made) == 100
    assert all(names.identifier(each) for each in made)
    assert len(ids.hex(4)) == 8
