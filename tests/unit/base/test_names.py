"""Names: what may name a thing, in containerd's words."""

from __future__ import annotations

import pytest

from pydock.base import errors, names


@pytest.mark.parametrize("text", ["a", "A9", "a-b", "a_b.c", "default", "x" * 76, "0.1-2_3"])
def test_what_containerd_takes_is_an_identifier(text: str) -> None:
    assert names.identifier(text) == text


@pytest.mark.parametrize(
    "text", [".", "..", "a/b", "../a", "-a", "a-", "a..b", "a\n", "a b", "a\0", "é", "a\u200b", "_a", "a:b", "ａ", "a\ud800"]
)
def test_what_could_become_a_path_or_a_flag_is_no_identifier(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="must match"):
        names.identifier(text)


def test_the_messages_are_the_ones_clients_know() -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        names.identifier("a..b")
    assert str(caught.value) == 'identifier "a..b" must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$: invalid argument'
    with pytest.raises(errors.InvalidArgument, match=r"^identifier must not be empty: invalid argument$"):
        names.identifier("")
    with pytest.raises(errors.InvalidArgument, match=r'^identifier "a{77}" greater than maximum length \(76 characters\)'):
        names.identifier("a" * 77)


def test_a_request_is_bound_to_a_namespace_or_fails() -> None:
    assert names.namespace("moby") == "moby"
    with pytest.raises(errors.FailedPrecondition, match=r"^namespace is required: failed precondition$"):
        names.namespace("")
    with pytest.raises(errors.InvalidArgument, match=r'^namespace validation: identifier "bad/ns" must match'):
        names.namespace("bad/ns")


@pytest.mark.parametrize("text", ["docker.io/library/a:1", "extract-1 sha256:ab", "../x", "ключ", "a\u00a0b", "x" * 1024])
def test_an_opaque_name_has_no_grammar(text: str) -> None:
    assert names.opaque("ref", text) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "must not be empty"), ("x" * 1025, "maximum length"), ("é" * 600, "maximum length"), ("a\0b", "control"), ("\x85", "control")],
)
def test_an_opaque_name_has_bounds(text: str, problem: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=problem):
        names.opaque("ref", text)


def test_a_name_that_is_not_unicode_is_refused_not_a_crash() -> None:
    with pytest.raises(errors.InvalidArgument, match="is not UTF-8"):
        names.opaque("ref", "a\ud800")


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a", '"a"'),
        ('"', '"\\""'),
        ("\\", '"\\\\"'),
        ("\n\0", '"\\n\\x00"'),
        ("é", '"é"'),
        ("\u200b", '"\\u200b"'),
        ("\U000e0001", '"\\U000e0001"'),
    ],
)
def test_quoting_is_that_of_go(text: str, quoted: str) -> None:
    assert names.quote(text) == quoted
