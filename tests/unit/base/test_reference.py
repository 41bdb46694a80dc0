"""References in containerd's form and in Docker's."""

from __future__ import annotations

import pytest

from pydock.base import errors, reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "locator", "object_", "host", "repository", "tag", "digest"),
    [
        ("docker.io/library/x:tag", "docker.io/library/x", "tag", "docker.io", "library/x", "tag", ""),
        (f"docker.io/x@{DIGEST}", "docker.io/x", f"@{DIGEST}", "docker.io", "x", "", DIGEST),
        (f"docker.io/x:1@{DIGEST}", "docker.io/x", f"1@{DIGEST}", "docker.io", "x", "1", DIGEST),
        ("localhost:5000/a/b:1", "localhost:5000/a/b", "1", "localhost:5000", "a/b", "1", ""),
        ("[::1]:5000/x", "[::1]:5000/x", "", "[::1]:5000", "x", "", ""),
        ("docker.io", "docker.io", "", "docker.io", "", "", ""),
    ],
)
def test_a_spec_is_host_path_and_object(text: str, locator: str, object_: str, host: str, repository: str, tag: str, digest: str) -> None:
    spec = reference.parse(text)
    assert (spec.locator, spec.object, spec.hostname, spec.repository) == (locator, object_, host, repository)
    assert (spec.tag, spec.digest, str(spec)) == (tag, digest, text)


@pytest.mark.parametrize("text", ["http://x/y", "a b/c", "x/y?z", "x/y#z", "x/\ny", "exa_mple.com/x", "a" * 3000])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="invalid reference"):
        reference.parse(text)


@pytest.mark.parametrize("text", ["", "/x"])
def test_a_spec_needs_a_host(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="hostname required"):
        reference.parse(text)


@pytest.mark.parametrize(
    "text", ["docker.io/../x", "docker.io/X", "docker.io", "docker.io/x:-1", "docker.io/x@sha256:ab", "docker.io/a//b/../../../c"]
)
def test_what_goes_into_a_url_is_checked(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        reference.parse_checked(text)
    assert reference.parse_checked(f"docker.io/a/b-c__d.e:1.0@{DIGEST}").tag == "1.0"


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu", "ubuntu"),
        ("ubuntu:20.04", "docker.io/library/ubuntu:20.04", "ubuntu:20.04"),
        ("a/b", "docker.io/a/b", "a/b"),
        ("index.docker.io/x", "docker.io/library/x", "x"),
        ("docker.io/library/x", "docker.io/library/x", "x"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("quay.io:443/a/b:1", "quay.io:443/a/b:1", "quay.io:443/a/b:1"),
        (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}", f"x@{DIGEST}"),
        (f"x:1@{DIGEST}", f"docker.io/library/x:1@{DIGEST}", f"x:1@{DIGEST}"),
        ("[fe80::1]:5000/x", "[fe80::1]:5000/x", "[fe80::1]:5000/x"),
        ("HOST/x", "HOST/x", "HOST/x"),
    ],
)
def test_a_name_is_completed_as_docker_does(text: str, full: str, familiar: str) -> None:
    name = reference.normalize(text)
    assert str(name) == full
    assert name.familiar == familiar
    assert reference.normalize(full) == name == reference.normalize(familiar)


def test_the_default_tag_is_given_only_to_a_bare_name() -> None:
    assert str(reference.normalize("x").tagged()) == "docker.io/library/x:latest"
    assert reference.normalize("x:1").tagged().tag == "1"
    assert reference.normalize(f"x@{DIGEST}").tagged().tag == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Ubuntu", "must be lowercase"),
        ("quay.io/X", "must be lowercase"),
        ("a" * 64, "cannot specify 64-byte hexadecimal strings"),
        ("", "invalid reference format"),
        ("x:", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("x:" + "t" * 129, "invalid reference format"),
        ("x@sha256:abc", "invalid reference format"),
        ("x@sha256:" + "a" * 63, "invalid checksum digest length"),
        ("x/" + "a" * 256, "not be more than 255"),
        ("x y", "invalid reference format"),
        ("x\n", "invalid reference format"),
    ],
)
def test_what_is_no_name_is_refused(text: str, problem: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=problem):
        reference.normalize(text)
