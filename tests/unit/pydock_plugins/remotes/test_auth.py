"""Challenges, tokens, and where credentials and requests may go."""

from __future__ import annotations

import json
import time

import pytest

from pydock.base import errors
from pydock.core import remotes
from pydock_plugins.remotes import auth
from pydock_plugins.remotes.auth import Challenge

BASE = "https://registry.example.com/v2"

CHALLENGES: list[tuple[str, list[Challenge]]] = [
    ("", []),
    ("  ", []),
    (",,, ,", []),
    ("Basic", [Challenge("basic")]),
    ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
    ('BEARER Realm="https://a/t",SERVICE=s', [Challenge("bearer", {"realm": "https://a/t", "service": "s"})]),
    ('Bearer realm="a", scope="repository:a:pull,push"', [Challenge("bearer", {"realm": "a", "scope": "repository:a:pull,push"})]),
    (r'Bearer realm="a\"b\\c"', [Challenge("bearer", {"realm": 'a"b\\c'})]),
    ("Negotiate, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
    ('Bearer realm = "a" ,  scope= b', [Challenge("bearer", {"realm": "a", "scope": "b"})]),
    ('Bearer realm="a", realm="b"', [Challenge("bearer", {"realm": "b"})]),
    ('Basic realm="", Bearer realm="x"', [Challenge("basic", {"realm": ""}), Challenge("bearer", {"realm": "x"})]),
]


@pytest.mark.parametrize(("header", "expected"), CHALLENGES)
def test_challenges_are_read(header: str, expected: list[Challenge]) -> None:
    assert list(auth.parse_challenges(header)) == expected


@pytest.mark.parametrize(
    "header", ['Bearer realm="', 'Bearer realm="a\\', "Bearer realm=", "=", "Bearer x=\x00", "\u0411earer", '"x"', "a b=(", "x" * 9000]
)
def test_what_is_no_challenge_is_said_so(header: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="WWW-Authenticate"):
        auth.parse_challenges(header)


def test_a_token_is_preferred_to_the_password() -> None:
    both = auth.parse_challenges('Digest x=y, Basic realm=a, Bearer realm="b"')
    chosen = auth.choose(both)
    assert chosen is not None and chosen.scheme == "bearer"
    assert auth.choose(auth.parse_challenges("Negotiate")) is None


# --- token realms: (registry, realm, whether credentials go there; None: nobody is asked at all)
REALMS: list[tuple[str, str, bool | None]] = [
    (BASE, "https://registry.example.com/token", True),
    (BASE, "https://REGISTRY.example.com:8443/token", True),
    (BASE, "https://auth.example.com/token", True),
    ("https://registry-1.docker.io/v2", "https://auth.docker.io/token", True),
    ("https://a.registry.co.uk/v2", "https://b.registry.co.uk/t", True),
    ("https://registry.co.uk/v2", "https://evil.co.uk/t", False),
    (BASE, "https://auth.example.net/token", False),
    (BASE, "https://example.com.evil.org/token", False),
    ("http://127.0.0.1:5000/v2", "http://127.0.0.1:6000/t", True),
    ("http://registry.lan:5000/v2", "https://registry.lan/t", True),
    (BASE, "http://registry.example.com/token", None),
    (BASE, "https://127.0.0.1/t", None),
    (BASE, "https://localhost/t", None),
    (BASE, "https://x.localhost/t", None),
    (BASE, "https://[::1]/t", None),
    (BASE, "https://[::ffff:127.0.0.1]/t", None),
    (BASE, "https://169.254.169.254/t", None),
    (BASE, "https://2130706433/t", None),
    (BASE, "https://0x7f.0.0.1/t", None),
    (BASE, "https://10.0.0.1/t", None),
    ("http://10.0.0.1/v2", "http://10.0.0.2/t", None),
    (BASE, "file:///etc/passwd", None),
    (BASE, "gopher://registry.example.com/", None),
    (BASE, "//registry.example.com/t", None),
    (BASE, "", None),
    (BASE, "https:///t", None),
    (BASE, "https://user:pass@registry.example.com/t", None),
    (BASE, "https://@registry.example.com/t", None),
    (BASE, "https://registry.example.com/t\r\nX: y", None),
    (BASE, "https://registry.example.com/t u", None),
    (BASE, "https://registry.example.com:0/", None),
    (BASE, "https://registry.example.com:99999/", None),
    (BASE, "https://registry.example.com:x/", None),
    (BASE, "https://[::1/", None),
]


@pytest.mark.parametrize(("registry", "realm", "trusted"), REALMS)
def test_credentials_go_to_the_registrys_own_site_and_requests_to_no_strange_address(
    registry: str, realm: str, trusted: bool | None
) -> None:
    if trusted is None:
        with pytest.raises(errors.InvalidArgument, match=r"realm|URL"):
            auth.check_realm(registry, realm)
    else:
        assert auth.check_realm(registry, realm) is trusted


REDIRECTS: list[tuple[str, str, bool]] = [
    (BASE, "https://cdn.example.net/blob?sig=%2F", True),
    (BASE, "https://10.0.0.1/blob", True),
    ("http://127.0.0.1:5000/v2", "http://127.0.0.2:9000/blob", True),
    ("http://127.0.0.1:5000/v2", "http://localhost:9000/blob", True),
    ("http://registry.lan/v2", "https://store.lan/b", True),
    (BASE, "http://cdn.example.net/blob", False),
    (BASE, "https://127.0.0.1/blob", False),
    (BASE, "https://[::1]:80/blob", False),
    (BASE, "https://localhost./blob", False),
    (BASE, "https://0.0.0.0/blob", False),
    (BASE, "https://169.254.169.254/", False),
    (BASE, "https://[fe80::1%25eth0]/", False),
    (BASE, "https://2130706433/", False),
    (BASE, "https://0x7f000001/", False),
    ("http://127.0.0.1:5000/v2", "http://169.254.169.254/", False),
    (BASE, "ftp://cdn.example.net/", False),
    (BASE, "https://a:b:c/", False),
    (BASE, "", False),
]


@pytest.mark.parametrize(("origin", "target", "good"), REDIRECTS)
def test_redirects_stay_in_tls_and_off_this_machine(origin: str, target: str, good: bool) -> None:
    if good:
        auth.check_redirect(origin, target)
        return
    with pytest.raises(errors.PermissionDenied, match="redirect"):
        auth.check_redirect(origin, target)


@pytest.mark.parametrize(
    "text", ['{"token": "a"}', '{"access_token": "a"}', '{"token": "a", "access_token": "b"}', '{"token": null, "access_token": "a"}']
)
def test_a_token_is_read_by_either_name(text: str) -> None:
    token = auth.parse_token(json.loads(text))
    assert token.value == "a"
    assert token.fresh


LIVES: list[tuple[str, float, float]] = [
    ("300", 280, 300), ("5", 2, 5), ("0", 40, 60), ("-1", 40, 60), ("null", 40, 60), ('"300"', 40, 60), ("true", 0, 1),
    ("NaN", 40, 60), ("1e400", 86_000, 86_400), ("9" * 400, 86_000, 86_400),
]  # fmt: skip


@pytest.mark.parametrize(("life", "least", "most"), LIVES)
def test_a_token_is_used_for_a_bounded_time(life: str, least: float, most: float) -> None:
    token = auth.parse_token(json.loads(f'{{"token": "a", "expires_in": {life}}}'))
    assert least <= token.expires - time.monotonic() <= most


@pytest.mark.parametrize(
    "document", [None, [], "x", {}, {"token": ""}, {"token": 5}, {"token": "a b"}, {"token": "a\r\nb"}, {"token": "\u0416"}]
)
def test_what_is_no_token_is_said_so(document: object) -> None:
    with pytest.raises(errors.Unauthenticated):
        auth.parse_token(document)


def test_basic_credentials_are_those_of_the_rfc() -> None:
    assert auth.basic(remotes.Credentials("Aladdin", "open sesame")) == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
