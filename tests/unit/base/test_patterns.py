"""Patterns: RE2's syntax in linear time."""

from __future__ import annotations

import pytest

from pydock.base import patterns


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("", "", True),
        ("abc", "xabcx", True),
        ("a.c", "a\nc", False),
        ("(?s)a.c", "a\nc", True),
        ("^a", "ba", False),
        ("^a$", "a", True),
        ("a$", "a\n", False),
        ("(?m)^b$", "a\nb\nc", True),
        ("(?i)FOO", "a foo", True),
        ("a(?i)B", "ab", True),
        ("(?i:a)b", "AB", False),
        ("a|b|cd", "xcd", True),
        ("(a|bc)+d", "abcad", True),
        ("a{2,3}b", "ab", False),
        ("a{2,3}b", "aab", True),
        ("a{2,}b", "aaaab", True),
        ("a{0}b", "b", True),
        ("a{,2}", "a{,2}", True),
        ("x*?y", "y", True),
        ("[a-c]+", "zzb", True),
        ("[^a-c]", "abc", False),
        ("[]a]", "]", True),
        ("[a-]", "-", True),
        (r"[\d\-x]", "-", True),
        (r"[^\W\d]", "1", False),
        ("[[:alpha:]]+[[:^digit:]]", "ab", True),
        ("(?i)[a-z]", "Q", True),
        (r"\bfoo\b", "a foo b", True),
        (r"\Bo", "foo", True),
        (r"\Aa\z", "a", True),
        (r"\d\D\w\W\s\S", "1ab- x", True),
        (r"\x41\x{42}\103\n\t", "ABC\n\t", True),
        (r"\Qa.b\E.", "a.bx", True),
        (r"\Qa.b", "a.b", True),
        (r"\pL\p{Lu}\P{N}", "aBc", True),
        (r"\p{^L}", "a", False),
        ("(?P<name>a)(?<other>b)", "ab", True),
        ("(?:ab)*c", "ababc", True),
        ("é+", "éé", True),
        ("()", "x", True),
        (r"docker\.io/.+:v[0-9]+\.[0-9]+", "docker.io/library/x:v1.20", True),
    ],
)
def test_a_pattern_means_what_it_means_in_re2(pattern: str, text: str, found: bool) -> None:
    assert patterns.compile(pattern)(text) is found


@pytest.mark.parametrize(
    "pattern",
    [
        *("(", ")", "(a", "a)", "[", "[a", "*", "a**", "+", "?", "a{1001}", "a{3,2}", "\\", r"\8", r"\y", "(?=a)", "(?<=a)b", r"(a)\1"),
        *("[b-a]", "[[:foo:]]", "(?P<>a)", "(?z)", "(?i", r"\x{110000}", r"\xg0", "a" * 1025, "(" * 200 + ")" * 200, r"\pQ"),
        "((a{100}){100}){10}",
    ],
)
def test_what_is_no_pattern_is_a_value_error(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        patterns.compile(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a*)*(a*)*b", "(.*)(.*)(.*)x"])
def test_a_pattern_that_would_backtrack_for_ever_ends(pattern: str) -> None:
    assert not patterns.compile(pattern)("a" * 2000 + "c")
