"""Platforms: spelling, and what runs on what."""

from __future__ import annotations

import pytest

from pydock.base import errors, platform

Platform = platform.Platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("Linux/AMD64/v1", Platform("linux", "amd64")),
        ("linux/amd64/v3", Platform("linux", "amd64", "v3")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/arm64/v8", Platform("linux", "arm64", "v8")),
        ("linux/arm", Platform("linux", "arm")),
        ("linux/armhf", Platform("linux", "arm")),
        ("linux/armel", Platform("linux", "arm", "v6")),
        ("linux/arm/7", Platform("linux", "arm", "v7")),
        ("macos/arm64", Platform("darwin", "arm64")),
        ("linux(5.1)/amd64", Platform("linux", "amd64", "", "5.1")),
        ("windows(10.0.17763+win32k)/amd64", Platform("windows", "amd64", "", "10.0.17763", ("win32k",))),
        ("s390x", Platform("linux", "s390x")),
        ("windows", Platform("windows", platform.default().architecture)),
    ],
)
def test_a_platform_is_read_in_all_its_spellings(text: str, expected: platform.Platform) -> None:
    assert platform.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "invalid component"),
        ("*", "wildcards"),
        ("foo", "unknown operating system or architecture"),
        ("a/b/c/d", "cannot parse platform specifier"),
        ("linux/am d64", "invalid component"),
        ("linux/", "invalid component"),
        ("linux(/amd64", "invalid component"),
        ("linux/amd64\n", "invalid component"),
    ],
)
def test_what_is_no_platform_is_refused(text: str, problem: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=problem):
        platform.parse(text)


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm64/v8", "linux(5.1)/amd64", "windows(10.0+a+b)/amd64"])
def test_a_platform_is_written_as_it_is_read(text: str) -> None:
    assert platform.format_all(platform.parse(text)) == text


def test_a_platform_without_os_is_unknown() -> None:
    assert platform.format(Platform("", "")) == "unknown"
    assert platform.format(Platform("linux", "arm", "v7", "5")) == "linux/arm/v7"


@pytest.mark.parametrize(
    ("host", "order"),
    [
        ("linux/amd64", ["linux/amd64", "linux/386"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
        ("linux/arm64", ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/s390x", ["linux/s390x"]),
    ],
)
def test_a_host_runs_older_variants_but_likes_newer_better(host: str, order: list[str]) -> None:
    matcher = platform.only(platform.parse(host))
    found = [platform.parse(text) for text in reversed([*order, "linux/ppc64le", "windows/amd64", "linux/arm64/v9"])]
    assert [platform.format(item) for item in platform.best([(item, item) for item in found], matcher)] == [
        platform.format(platform.parse(text)) for text in order
    ]


def test_strict_means_exactly_it() -> None:
    matcher = platform.only_strict(platform.parse("linux/amd64"))
    assert matcher(Platform("linux", "x86_64", "v1")) == 0
    assert matcher(Platform("linux", "386")) is None


def test_of_several_wishes_the_first_is_preferred() -> None:
    matcher = platform.any_of([platform.parse("linux/arm64"), platform.parse("linux/amd64")])
    found = [platform.parse(text) for text in ("linux/386", "linux/amd64", "linux/arm/v7", "linux/s390x")]
    order = platform.best([(item, platform.format(item)) for item in found], matcher)
    assert order == ["linux/arm/v7", "linux/amd64", "linux/386"]
    assert platform.any_of([])(Platform("plan9", "mips")) == 0


def test_a_manifest_without_a_platform_comes_last() -> None:
    candidates: list[tuple[platform.Like | None, str]] = [
        (None, "any"),
        (platform.parse("linux/386"), "old"),
        (platform.parse("plan9"), "no"),
    ]
    assert platform.best(candidates, platform.only(platform.parse("linux/amd64"))) == ["old", "any"]


def test_windows_must_be_of_the_same_build() -> None:
    matcher = platform.only(platform.parse("windows(10.0.17763)/amd64"))
    assert matcher(Platform("windows", "amd64", "", "10.0.17763.1999")) == 0
    assert matcher(Platform("windows", "amd64", "", "10.0.20348")) is None


def test_the_host_is_normalized() -> None:
    here = platform.default()
    assert platform.normalize(here) == here
