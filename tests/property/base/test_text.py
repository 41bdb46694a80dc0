"""Texts of strangers: every parser gives a value or InvalidArgument, and what it takes means one thing."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pydock.base import digest, errors, filters, names, patterns, platform, reference

FILTER_ALPHABET = 'abn.=!~,"/|\\ x0_-é\n'
PATTERN_ALPHABET = "ab01()|*+?^$.{},-\\dwsb"
# What the two mean differently: possessive and nested repeats, "{,n}", repeated anchors, escaped dollars.
DIFFERS = re.compile(r"[*+?}][*+?{]|\{,|[$^][*+?{]|\\b[*+?{]|\\\$")
REFERENCE_ALPHABET = "aA0.:/@_-[]sh256 "


@given(st.text())
def test_an_identifier_is_what_the_grammar_says(text: str) -> None:
    good = re.fullmatch("[A-Za-z0-9]+([._-][A-Za-z0-9]+)*", text) is not None and len(text) <= 76 and text.isascii()
    try:
        assert names.identifier(text) == text
    except errors.InvalidArgument:
        assert not good
    else:
        assert good


@given(st.text(FILTER_ALPHABET, max_size=40) | st.text(max_size=40))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        found = filters.parse([text])
    except errors.InvalidArgument:
        return
    assert found.match(lambda path: ("abn", True)) in (True, False)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=30), st.text(max_size=30))
def test_a_quoted_value_equals_itself_and_nothing_else(value: str, other: str) -> None:
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    found = filters.parse([f"field=={quoted}"])
    assert found.match(lambda path: (value, True))
    assert found.match(lambda path: (other, True)) is (other == value)
    assert not found.match(lambda path: ("", False))


@given(st.text(PATTERN_ALPHABET, max_size=12), st.text("ab01-", max_size=8))
def test_a_pattern_agrees_with_the_standard_library_where_both_take_it(pattern: str, text: str) -> None:
    try:
        expected = bool(re.search(pattern.replace("$", r"\Z"), text, re.ASCII))
    except (re.error, OverflowError):
        expected = None
    try:
        found = patterns.compile(pattern)(text)
    except ValueError:
        return
    if expected is not None and not DIFFERS.search(pattern):
        assert found is expected


@given(st.text(REFERENCE_ALPHABET, max_size=40) | st.text(max_size=40))
def test_a_name_that_is_taken_is_stable(text: str) -> None:
    try:
        name = reference.normalize(text)
    except errors.InvalidArgument:
        return
    assert reference.normalize(str(name)) == name == reference.normalize(name.familiar)
    assert reference.parse_checked(str(name)).repository == name.path


@given(st.text(REFERENCE_ALPHABET, max_size=40) | st.text(max_size=40))
def test_a_spec_that_is_taken_is_stable(text: str) -> None:
    try:
        spec = reference.parse(text)
    except errors.InvalidArgument:
        return
    assert reference.parse(str(spec)) == spec
    assert not {".", ".."} & set(spec.locator.split("/"))


@given(st.text("linuxamd64/v7()+.*arm8", max_size=30) | st.text(max_size=20))
def test_a_platform_that_is_taken_is_stable(text: str) -> None:
    try:
        found = platform.parse(text)
    except errors.InvalidArgument:
        return
    assert platform.normalize(platform.normalize(found)) == platform.normalize(found)
    assert platform.only(found)(found) == 0


@given(st.text("sha256:abcdef0/.", max_size=80) | st.text(max_size=80))
def test_a_digest_never_leaves_its_directory(text: str) -> None:
    try:
        algorithm, encoded = digest.parse(text)
    except errors.InvalidArgument:
        return
    assert algorithm in digest.SIZES
    assert encoded.isalnum()
