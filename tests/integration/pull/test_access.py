"""Who is let in, and who learns with what: tokens, credentials, redirects."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pydock.testing import flaky_registry as flaky_registries
from pydock.testing import images

pytestmark = pytest.mark.root

Ctr = Any
Flaky = flaky_registries.FlakyRegistry
USER = flaky_registries.Basic("ada", "s3cret:with-colon")
LOGIN = ("--user", f"{USER.user}:{USER.secret}")


# --- tokens and basic credentials


def test_an_anonymous_token_is_fetched_when_one_is_asked_for(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "b/anyone:1")
    flaky.authority = flaky_registries.Bearer()
    ctr.pull(name)
    assert ctr.has(name)
    [asked] = flaky.seen("/token")
    assert (asked.query, asked.authorization) == ({"scope": "repository:b/anyone:pull", "service": "flaky"}, "")


@pytest.mark.parametrize("way", ["service", "local"])
def test_a_token_is_given_to_the_right_user_only(ctr: Ctr, flaky: Flaky, picture: images.Image, way: str) -> None:
    flags = ["--local"] if way == "local" else []
    name = flaky.add(picture, "b/user:1")
    flaky.authority = flaky_registries.Bearer(USER)
    assert "401" in ctr.refused(name, *flags)
    assert "401" in ctr.refused(name, *flags, "--user", "ada:wrong")
    assert ctr.left().nothing or way == "local"
    ctr.pull(name, *flags, *LOGIN)
    assert name in ctr.left().images


def test_a_refused_token_is_said_to_be_refused(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "b/refused:1")
    flaky.authority = flaky_registries.Bearer(USER)
    words = "failed to resolve image: failed to authorize: failed to fetch anonymous token: unexpected status from GET request"
    assert f"{words} to {flaky.url}/token: 401 Unauthorized" in ctr.refused(name)
    assert "failed to fetch oauth token" in ctr.refused(name, "--user", "ada:wrong")
    assert USER.secret not in ctr.refused(name, "--user", f"bob:{USER.secret}")


def test_basic_credentials_are_sent_when_asked_for_and_not_before(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "b/basic:1")
    flaky.authority = USER
    assert "no basic auth credentials" in ctr.refused(name)
    assert "401 Unauthorized: unauthenticated" in ctr.refused(name, "--user", "ada:wrong")
    assert ctr.left().nothing
    flaky.requests.clear()
    ctr.pull(name, *LOGIN)
    assert ctr.has(name)
    assert [one.authorization for one in flaky.requests][:2] == ["", USER.expected()]


def test_a_token_that_expires_in_the_middle_is_renewed(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "b/expiry:1")
    flaky.authority = flaky_registries.Bearer(USER, uses=2)
    ctr.pull(name, *LOGIN)
    assert ctr.has(name)
    assert len(flaky.seen("/token")) >= 3


def test_a_token_server_that_is_busy_is_asked_again(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "b/busy:1")
    flaky.authority = flaky_registries.Bearer()
    flaky.on("GET", "/token", flaky_registries.instead(flaky_registries.Answer(503)), times=2)
    ctr.pull(name)
    assert ctr.has(name)


HEADERS: dict[str, tuple[str, str]] = {
    "no grammar": ("Bearer realm=\"", "WWW-Authenticate"),
    "nothing": ("", "401 Unauthorized"),
    "an unknown scheme": ("Negotiate", "401 Unauthorized"),
    "no realm": ('Bearer service="x"', "is not an http(s) URL"),
    "a file": ('Bearer realm="file:///etc/shadow"', "is not an http(s) URL"),
    "gopher": ('Bearer realm="gopher://127.0.0.1/x"', "is not an http(s) URL"),
    "the metadata service": ('Bearer realm="http://169.254.169.254/latest/"', "is an address that is not the registry's"),
    "another loopback": ('Bearer realm="http://localhost:1/"', "is an address that is not the registry's"),
    "a number": ('Bearer realm="http://2130706433/"', "is an address that is not the registry's"),
    "credentials in it": ('Bearer realm="http://a:b@127.0.0.1/"', "holds credentials"),
    "a port that is none": ('Bearer realm="http://127.0.0.1:99999/"', "is not an http(s) URL"),
    "a broken address": ('Bearer realm="http://[::1/"', "is not an http(s) URL"),
    "a header in it": ('Bearer realm="http://127.0.0.1/ HTTP/1.1\\\tX: y"', "is not an http(s) URL"),
    "too long": ('Bearer realm="' + "x" * 8100 + '"', ""),
}  # fmt: skip


@pytest.mark.parametrize("challenge", HEADERS)
def test_a_challenge_that_is_none_is_told_and_nobody_else_is_asked(ctr: Ctr, flaky: Flaky, picture: images.Image, challenge: str) -> None:
    value, words = HEADERS[challenge]
    name = flaky.add(picture, "b/challenge:1")
    refused = flaky_registries.refusal(401, "UNAUTHORIZED", "no", {"WWW-Authenticate": value})
    flaky.on("HEAD", ".", flaky_registries.instead(refused))
    assert words in ctr.refused(name, *LOGIN)
    assert ctr.left().nothing
    assert all(not one.authorization for one in flaky.requests)


TOKENS: dict[str, bytes] = {
    "no JSON": b"{",
    "no object": b"[]",
    "no token": b"{}",
    "a number": b'{"token": 5}',
    "a header in it": b'{"token": "a\\r\\nX-Evil: 1"}',
    "deep": b"[" * 20_000,
    "megabytes": b'{"token": "' + b"x" * 2_000_000 + b'"}',
}


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_that_is_none_is_told(ctr: Ctr, flaky: Flaky, picture: images.Image, token: str) -> None:
    name = flaky.add(picture, "b/answer:1")
    flaky.authority = flaky_registries.Bearer()
    flaky.on("GET", "/token", flaky_registries.change(body=TOKENS[token]))
    assert "token" in ctr.refused(name)
    assert ctr.left().nothing


@pytest.mark.parametrize("life", ["1e400", "1" + "0" * 400, "-1", '"x"', "0.5"])
def test_a_token_may_live_as_long_as_it_says(ctr: Ctr, flaky: Flaky, picture: images.Image, life: str) -> None:
    name = flaky.add(picture, "b/life:1")
    flaky.authority = flaky_registries.Bearer()

    def lives(answer: flaky_registries.Answer, _: flaky_registries.Seen) -> flaky_registries.Answer:
        return dataclasses.replace(answer, body=answer.body.replace(b"300", life.encode()))

    flaky.on("GET", "/token", lives)
    ctr.pull(name)
    assert ctr.has(name)


# --- nobody else learns the credentials


def test_a_redirect_to_another_host_carries_no_credentials(ctr: Ctr, flaky: Flaky, other: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "b/away:1")
    other.add(picture, "b/away:1")
    flaky.authority = flaky_registries.Bearer(USER)
    flaky.on("GET", "/blobs/", flaky_registries.redirect(f"{other.url}{{path}}?X-Signature=a%2Fb%3D%3d+c"))
    ctr.pull(name, *LOGIN)
    assert ctr.has(name)
    assert len(other.requests) == 3
    assert [one.authorization + one.headers.get("cookie", "") for one in other.requests] == ["", "", ""]
    assert all(one.query["X-Signature"] == "a/b== c" for one in other.requests)


def test_a_challenge_of_a_host_we_were_sent_to_is_not_answered(ctr: Ctr, flaky: Flaky, other: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "b/sly:1")
    other.authority = USER
    flaky.on("GET", "/blobs/", flaky_registries.redirect(f"{other.url}{{path}}"))
    assert "401 Unauthorized" in ctr.refused(name, *LOGIN)
    assert [one.authorization for one in other.requests if one.authorization] == []
    assert ctr.left().nothing


def test_the_urls_of_a_descriptor_are_never_asked(ctr: Ctr, flaky: Flaky, other: Flaky, picture: images.Image) -> None:
    digest = max(picture.blobs, key=lambda key: len(picture.blobs[key]))
    urls = f'"urls":["{other.url}/v2/x/blobs/{digest}"],"digest":"{digest}"'
    flaky.add(picture, "b/urls:1")
    flaky.put_manifest("b/urls", "2", picture.manifest.replace(f'"digest":"{digest}"'.encode(), urls.encode()))
    flaky.on("GET", digest, flaky_registries.instead(flaky_registries.refusal(404, "X", "x")))
    ctr.refused(f"{flaky.host}/b/urls:2", *LOGIN)
    assert other.requests == []


def test_a_token_realm_elsewhere_gets_no_credentials(ctr: Ctr, flaky: Flaky, other: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "b/realm:1")
    flaky.authority = flaky_registries.Bearer(USER, realm=f"{other.url}/token")
    assert "is an address that is not the registry's" in ctr.refused(name, *LOGIN)
    assert other.requests == []


def test_a_netrc_of_the_daemons_user_is_nobodys_business(
    flaky: Flaky, picture: images.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from pydock.core import remotes
    from pydock_plugins.remotes import registry

    (tmp_path / "netrc").write_text("default login root password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    name = flaky.add(picture, "b/netrc:1")

    async def resolve() -> None:
        offered = registry.RegistryRemotes(registry.RemotesConfig())
        async with offered.connect(remotes.Access(plain_http=True)) as found:
            await found.resolve(name)

    asyncio.run(resolve())
    assert [one.authorization for one in flaky.requests] == [""]
