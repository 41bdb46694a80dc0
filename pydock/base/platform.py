"""Platforms: what an image is built for, and which of several fits this host best.

Vocabulary: a *platform* has an OS, an architecture and perhaps a variant; *normalized* means one spelling per platform ("x86_64" is
"amd64", "aarch64/v8" is "arm64"); a *matcher* ranks platforms for one that is wanted, best first.
Functions take anything with the fields of `Platform` (an OCI descriptor's platform has them).
Source: containerd's platforms package and OCI image-spec image-index.md (GOOS, GOARCH, variants).
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pydock.base import errors

T = TypeVar("T")

_PART = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_OS = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)((?:\+[A-Za-z0-9_.-]+)*)\))?", re.ASCII)
_OS_NAMES = """
aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris wasip1 windows zos
"""
_ARCH_NAMES = """
386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc ppc64 ppc64le
riscv riscv64 s390 s390x sparc sparc64 wasm
"""
_KNOWN_OS = frozenset(_OS_NAMES.split())
_KNOWN_ARCH = frozenset(_ARCH_NAMES.split())
_ARCH_ALIASES = {"i386": "386", "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
_FROM_UNAME = {"i686": "386", "armv7l": "arm", "armv6l": "arm", "armv5tel": "arm"}
_UNAME_VARIANTS = {"armv7l": "v7", "armv6l": "v6", "armv5tel": "v5"}


class Like(Protocol):
    """The fields of a platform, whoever's class it is."""

    @property
    def os(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def os_version(self) -> str: ...
    @property
    def os_features(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Platform:
    """The fields of an OCI platform."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: Sequence[str] = ()


Matcher = Callable[[Like], "int | None"]


@functools.cache
def default() -> Platform:
    """Return the platform of this host, normalized."""
    name = os.uname()
    arch, variant = normalize_arch(_FROM_UNAME.get(name.machine, name.machine), _UNAME_VARIANTS.get(name.machine, ""))
    return Platform(name.sysname.lower(), arch, variant)


def parse(text: str) -> Platform:
    """Return the platform of "os[(version+feature)]/arch[/variant]", "os" or "arch". Raises InvalidArgument."""
    if "*" in text:
        raise errors.InvalidArgument(f'"{text}": wildcards not yet supported')
    parts = text.split("/")
    system = _OS.fullmatch(parts[0])
    wrong = next((part for part in parts[1:] if not _PART.fullmatch(part)), None)
    if system is None or wrong is not None:
        bad = parts[0] if system is None else wrong
        raise errors.InvalidArgument(
            f'"{bad}" is an invalid component of "{text}": platform specifier component must match "{_PART.pattern}"'
        )
    version, features = system[2] or "", tuple((system[3] or "").split("+")[1:])
    if len(parts) == 1:
        return _parse_single(text, system[1], version, features)
    if len(parts) > 3:
        raise errors.InvalidArgument(f'"{text}": cannot parse platform specifier')
    arch, variant = normalize_arch(parts[1], parts[2] if len(parts) == 3 else "")
    if len(parts) == 2 and (arch, variant) == ("arm", "v7"):
        variant = ""
    if len(parts) == 3 and (arch, variant) == ("arm64", ""):
        variant = "v8"
    return Platform(normalize_os(system[1]), arch, variant, version, features)


def _parse_single(text: str, word: str, version: str, features: tuple[str, ...]) -> Platform:
    here = default()
    system = normalize_os(word)
    if system in _KNOWN_OS:
        return Platform(system, here.architecture, "" if here.variant == "v7" else here.variant, version, features)
    arch, variant = normalize_arch(word, "")
    if arch in _KNOWN_ARCH and not version and not features:
        return Platform(here.os, arch, "" if (arch, variant) == ("arm", "v7") else variant)
    raise errors.InvalidArgument(f'"{text}": unknown operating system or architecture')


def format(platform: Like) -> str:
    """Return "os/arch[/variant]"; "unknown" when there is no OS."""
    if not platform.os:
        return "unknown"
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)


def format_all(platform: Like) -> str:
    """As `format`, with OS version and features in brackets."""
    extra = platform.os_version + "".join(f"+{feature}" for feature in platform.os_features)
    if not platform.os or not extra:
        return format(platform)
    return "/".join(part for part in (f"{platform.os}({extra})", platform.architecture, platform.variant) if part)


def normalize(platform: Like) -> Platform:
    """Return the one spelling of a platform."""
    arch, variant = normalize_arch(platform.architecture, platform.variant)
    return Platform(normalize_os(platform.os), arch, variant, platform.os_version, tuple(platform.os_features))


def normalize_os(name: str) -> str:
    """Return the one spelling of an OS; "" is the host's."""
    lower = name.lower()
    if lower == "macos":
        return "darwin"
    return lower or default().os


def normalize_arch(arch: str, variant: str) -> tuple[str, str]:
    """Return the one spelling of an architecture and its variant; the variant every CPU of the kind has becomes ""."""
    arch, variant = arch.lower(), variant.lower()
    if arch == "armhf":
        return "arm", "v7"
    if arch == "armel":
        return "arm", "v6"
    arch = _ARCH_ALIASES.get(arch, arch)
    if arch == "386":
        return arch, ""
    if arch == "amd64":
        return arch, "" if variant == "v1" else variant
    if arch == "arm64":
        return arch, {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"}.get(variant, variant)
    if arch == "arm":
        return arch, {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    return arch, variant


def only(wanted: Like) -> Matcher:
    """Return a matcher for what a host of platform ``wanted`` can run: rank 0 fits best, None does not run."""
    vector = _vector(normalize(wanted))

    def rank(found: Like) -> int | None:
        return next((index for index, candidate in enumerate(vector) if _fits(candidate, normalize(found))), None)

    return rank


def only_strict(wanted: Like) -> Matcher:
    """Return a matcher for exactly ``wanted``."""
    exact = normalize(wanted)
    return lambda found: 0 if _fits(exact, normalize(found)) else None


def any_of(wanted: Iterable[Like]) -> Matcher:
    """Return a matcher that prefers what fits an earlier one of ``wanted``; with none, everything matches alike."""
    matchers = [only(platform) for platform in wanted]
    if not matchers:
        return lambda found: 0

    def rank(found: Like) -> int | None:
        for index, matcher in enumerate(matchers):
            inner = matcher(found)
            if inner is not None:
                return index * 100 + inner
        return None

    return rank


def best(candidates: Iterable[tuple[Like | None, T]], matcher: Matcher) -> list[T]:
    """Return the values whose platform matches, best first, in their order where equal; one without a platform comes last."""
    ranked = []
    for platform, value in candidates:
        rank = 1 << 30 if platform is None else matcher(platform)
        if rank is not None:
            ranked.append((rank, value))
    return [value for _, value in sorted(ranked, key=lambda pair: pair[0])]


def _fits(wanted: Platform, found: Platform) -> bool:
    if (wanted.os, wanted.architecture, wanted.variant) != (found.os, found.architecture, found.variant):
        return False
    versions = (wanted.os_version, found.os_version)
    if wanted.os == "windows" and all(versions) and len({tuple(version.split(".")[:3]) for version in versions}) > 1:
        return False
    return not wanted.os_features or set(found.os_features) <= set(wanted.os_features)


def _vector(platform: Platform) -> list[Platform]:
    """Return what runs on ``platform``, best first."""

    def like(arch: str, variant: str = "") -> Platform:
        return Platform(platform.os, arch, variant, platform.os_version, platform.os_features)

    found = [platform]
    if platform.architecture == "amd64":
        level = int(platform.variant[1:]) if re.fullmatch(r"v[0-9]{1,2}", platform.variant, re.ASCII) else 1
        found += [like("amd64", f"v{step}") for step in range(level - 1, 1, -1)]
        found += [like("amd64")] * (level > 1) + [like("386")]
    elif platform.architecture == "arm":
        found += [like("arm", variant) for variant in _arm_below(platform.variant)]
    elif platform.architecture == "arm64":
        found += [like("arm64", variant) for variant in _arm64_below(platform.variant)]
        found += [like("arm", variant) for variant in ("v8", *_arm_below("v8"))]
    return found


def _arm_below(variant: str) -> list[str]:
    level = int(variant[1:]) if re.fullmatch(r"v[0-9]", variant, re.ASCII) else 0
    return [f"v{step}" for step in range(level - 1, 4, -1)]


def _arm64_below(variant: str) -> list[str]:
    """Return the older ISA levels; v9.N implies v8.(N+5) (Arm ARM, A2.3)."""
    match = re.fullmatch(r"v([89])(?:\.([0-9]))?", variant, re.ASCII)
    if match is None:
        return []
    major, minor = int(match[1]), int(match[2] or 0)
    levels = [f"v9.{step}" if step else "v9" for step in range(minor - 1, -1, -1)] if major == 9 else []
    top = min(minor + 5, 9) if major == 9 else minor - 1
    return levels + [f"v8.{step}" if step else "" for step in range(top, -1, -1)]
