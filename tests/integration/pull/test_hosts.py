"""Certificates and mirrors: hosts files as containerd and Docker know them."""

from __future__ import annotations

import dataclasses
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pydock.testing import flaky_registry as flaky_registries
from pydock.testing import images

pytestmark = pytest.mark.root

Ctr = Any
Flaky = flaky_registries.FlakyRegistry


# --- certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's certificate for 127.0.0.1 by it, and one for another name."""
    place = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req",
        "-x509",
        *curve,
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-days",
        "2",
        "-subj",
        "/CN=flaky CA",
        "-addext",
        "keyUsage=critical,keyCertSign",
    )
    for name, alternative in (("right", "IP:127.0.0.1"), ("wrong", "DNS:example.org"), ("client", "DNS:client")):
        (place / "ext").write_text(f"subjectAltName={alternative}\n")
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-out",
            f"{name}.crt",
            "-days",
            "2",
            "-extfile",
            "ext",
        )
    return place


def served_with(place: Path, name: str) -> ssl.SSLContext:
    """Return the TLS context of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / f"{name}.crt", place / f"{name}.key")
    return context


def hosts(directory: Path, domain: str, text: str) -> tuple[str, str]:
    """Write a hosts.toml and return the flags that name its directory."""
    port = domain.rpartition(":")[2]
    folder = directory / domain.replace(f":{port}", f"_{port}_")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.toml").write_text(text)
    return "--hosts-dir", str(directory)


def test_a_registry_is_believed_by_its_certificate_only(ctr: Ctr, picture: images.Image, certificates: Path, tmp_path: Path) -> None:
    with flaky_registries.running(served_with(certificates, "right")) as flaky:
        name = flaky.add(picture, "c/tls:1")
        assert "failed to verify certificate" in ctr.bad("images", "pull", name)
        assert ctr.left().nothing
        assert flaky.requests == []
        flags = hosts(tmp_path, flaky.host, f'[host."{flaky.url}"]\nca = "{certificates}/ca.crt"\n')
        ctr.good("images", "pull", *flags, name)
        assert ctr.has(name)


def test_docker_style_certificates_are_found(ctr: Ctr, picture: images.Image, certificates: Path, tmp_path: Path) -> None:
    context = served_with(certificates, "right")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates / "ca.crt")
    with flaky_registries.running(context) as flaky:
        name = flaky.add(picture, "c/certs:1")
        folder = tmp_path / flaky.host
        folder.mkdir()
        for source, target in (("ca.crt", "ca.crt"), ("client.crt", "client.cert"), ("client.key", "client.key")):
            (folder / target).write_bytes((certificates / source).read_bytes())
        ctr.good("images", "pull", "--hosts-dir", str(tmp_path), name)
        assert ctr.has(name)
        (folder / "client.cert").unlink()
        ctr.good("images", "rm", name)
        ctr.bad("images", "pull", "--hosts-dir", str(tmp_path), name)


def test_a_certificate_of_another_host_is_refused_unless_told(ctr: Ctr, picture: images.Image, certificates: Path, tmp_path: Path) -> None:
    with flaky_registries.running(served_with(certificates, "wrong")) as flaky:
        name = flaky.add(picture, "c/other:1")
        flags = hosts(tmp_path, flaky.host, f'[host."{flaky.url}"]\nca = ["{certificates}/ca.crt"]\n')
        assert "failed to verify certificate" in ctr.bad("images", "pull", *flags, name)
        assert ctr.left().nothing
        flags = hosts(tmp_path, flaky.host, f'[host."{flaky.url}"]\nskip_verify = true\n')
        ctr.good("images", "pull", *flags, name)
        assert ctr.has(name)


def test_a_redirect_out_of_tls_is_refused(ctr: Ctr, flaky: Flaky, picture: images.Image, certificates: Path, tmp_path: Path) -> None:
    flaky.add(picture, "c/down:1")
    with flaky_registries.running(served_with(certificates, "right")) as safe:
        name = safe.add(picture, "c/down:1")
        safe.on("GET", "/blobs/", flaky_registries.redirect(f"{flaky.url}{{path}}"))
        flags = hosts(tmp_path, safe.host, f'[host."{safe.url}"]\nca = "{certificates}/ca.crt"\n')
        assert "would leave TLS" in ctr.bad("images", "pull", *flags, name)
        assert (flaky.requests, ctr.left().nothing) == ([], True)


def test_a_loopback_registry_without_tls_is_spoken_to_in_plain_http(ctr: Ctr, flaky: Flaky, picture: images.Image) -> None:
    name = flaky.add(picture, "c/plain:1")
    ctr.good("images", "pull", name)
    assert ctr.has(name)


@pytest.mark.parametrize("file", ["missing.crt", "empty.crt"])
def test_a_certificate_that_cannot_be_read_is_named(ctr: Ctr, flaky: Flaky, picture: images.Image, tmp_path: Path, file: str) -> None:
    (tmp_path / "empty.crt").write_text("")
    name = flaky.add(picture, "c/unread:1")
    flags = hosts(tmp_path, flaky.host, f'[host."https://{flaky.host}"]\nca = "{tmp_path}/{file}"\n')
    assert f"certificate {tmp_path}/{file}" in ctr.bad("images", "pull", *flags, name)
    assert ctr.left().nothing


# --- mirrors


def mirrored(directory: Path, origin: Flaky, mirror: str, more: str = "") -> tuple[str, str]:
    """Put a mirror before a registry."""
    return hosts(directory, origin.host, f'server = "{origin.url}"\n[host."{mirror}"]\ncapabilities = ["pull", "resolve"]\n{more}')


def test_a_mirror_is_asked_first_and_told_whom_it_stands_for(
    ctr: Ctr, flaky: Flaky, other: Flaky, picture: images.Image, tmp_path: Path
) -> None:
    name = flaky.add(picture, "d/mirror:1")
    other.add(picture, "d/mirror:1")
    header = '[host."' + other.url + '".header]\nX-Team = ["a", "b"]\n'
    ctr.good("images", "pull", *mirrored(tmp_path, flaky, other.url, header), name)
    assert ctr.has(name)
    assert flaky.requests == []
    assert {one.query.get("ns") for one in other.requests} == {flaky.host}
    assert {one.headers.get("x-team") for one in other.requests} <= {"a", "b", "a, b"}


MIRRORS: dict[str, flaky_registries.Action] = {
    "empty": flaky_registries.instead(flaky_registries.refusal(404, "NAME_UNKNOWN", "no")),
    "closed": flaky_registries.instead(flaky_registries.refusal(403, "DENIED", "no")),
    "broken": flaky_registries.instead(flaky_registries.Answer(500)),
    "not believed": flaky_registries.instead(flaky_registries.refusal(401, "UNAUTHORIZED", "no")),
    "another digest": flaky_registries.header("Docker-Content-Digest", "sha256:" + "1" * 64),
}


@pytest.mark.parametrize("trouble", MIRRORS)
def test_a_mirror_in_trouble_does_not_hide_the_registry(
    ctr: Ctr, flaky: Flaky, other: Flaky, picture: images.Image, tmp_path: Path, trouble: str
) -> None:
    name = flaky.add(picture, "d/trouble:1").rpartition(":")[0] + f"@{picture.digest}"
    other.add(picture, "d/trouble:1")
    other.on("GET|HEAD", ".", MIRRORS[trouble])
    ctr.good("images", "pull", *mirrored(tmp_path, flaky, other.url), name)
    assert ctr.has(name)
    assert other.requests


def test_a_mirror_that_is_away_does_not_hide_the_registry(ctr: Ctr, flaky: Flaky, picture: images.Image, tmp_path: Path) -> None:
    name = flaky.add(picture, "d/away:1")
    ctr.good("images", "pull", *mirrored(tmp_path, flaky, "http://127.0.0.1:1"), name)
    assert ctr.has(name)


def test_bytes_of_a_mirror_are_checked_against_the_digest(
    ctr: Ctr, flaky: Flaky, other: Flaky, picture: images.Image, tmp_path: Path
) -> None:
    name = flaky.add(picture, "d/pinned:1")
    other.add(picture, "d/pinned:1")
    other.on("GET", "/manifests/", lambda answer, _: dataclasses.replace(answer, body=bytes(len(answer.body))))
    assert "unexpected commit digest" in ctr.bad("images", "pull", *mirrored(tmp_path, flaky, other.url), name)
    assert ctr.left().nothing


def test_a_hosts_file_that_is_none_is_told(ctr: Ctr, flaky: Flaky, picture: images.Image, tmp_path: Path) -> None:
    name = flaky.add(picture, "d/bad:1")
    flags = hosts(tmp_path, flaky.host, "server = [")
    assert "hosts.toml" in ctr.bad("images", "pull", *flags, name)
