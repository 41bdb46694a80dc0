"""Whatever a registry sends as challenge or realm, there is an answer or a typed refusal."""

from __future__ import annotations

import contextlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pydock.base import errors
from pydock_plugins.remotes import auth, hosts

PIECES = [
    "Bearer",
    "Basic",
    "realm",
    "scope",
    "=",
    ",",
    " ",
    "\t",
    '"',
    "\\",
    '"a"',
    "x",
    "\u0416",
    "\x00",
    "\r\n",
    "'",
    ";",
    "https://a",
    "==",
]
TEXT = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=14).map("".join))


@given(TEXT)
@example('Bearer realm="a\\')
@settings(max_examples=400, deadline=None)
def test_a_challenge_is_read_or_refused(header: str) -> None:
    with contextlib.suppress(errors.InvalidArgument):
        for challenge in auth.parse_challenges(header):
            assert challenge.scheme == challenge.scheme.lower()
            assert all(name == name.lower() for name in challenge.parameters)


TOKEN = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(st.lists(st.tuples(TOKEN, st.dictionaries(TOKEN, VALUE, min_size=1, max_size=3)), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read(written: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in pairs.items()) for scheme, pairs in written)
    assert [(one.scheme, one.parameters) for one in auth.parse_challenges(header)] == written


URLS = st.one_of(
    st.text(max_size=40),
    st.tuples(st.sampled_from(["http", "https", "file", ""]), st.sampled_from(["://", ":", "//"]), st.text(max_size=30)).map("".join),
    st.sampled_from(["https://[::1", "https://a:0", "https://a:\u0663", "http://\u2100.com", "https://[v1.x]/", "http://a\\@b/"]),
)


@given(URLS)
@settings(max_examples=400, deadline=None)
def test_a_realm_or_redirect_is_judged_or_refused(url: str) -> None:
    base = "https://registry.example.com/v2"
    with contextlib.suppress(errors.InvalidArgument):
        trusted = auth.check_realm(base, url)
        assert hosts.split(url).scheme == "https"
        assert not trusted or (hosts.split(url).hostname or "").endswith("example.com")
    with contextlib.suppress(errors.PermissionDenied):
        auth.check_redirect(base, url)
        assert hosts.split(url).scheme == "https"
