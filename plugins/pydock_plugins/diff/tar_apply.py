"""The ``Applier`` for tar layers: decides from a snapshot's mounts where and how the helper writes.

Vocabulary: one overlay mount with an upper directory is written directly, without mounting it (*overlay* mode); one bind mount is its
source, written directly (*plain* mode); anything else is mounted for the time of the work and written through the mount.
Invariant: no mount is left behind; a read-only target is refused before anything is read. Source: containerd core/diff/apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydock.base import errors
from pydock.core import content, diff, mounts
from pydock.oci import image
from pydock_plugins.diff import unpacker

UNCOMPRESSED: Final = "application/vnd.oci.image.layer.v1.tar"
_BIND: Final = ("bind", "rbind")


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that can be written without mounting anything, with the layer directories below it, topmost first."""

    mode: str
    path: str
    lowers: tuple[str, ...] = ()


def place(target: Sequence[mounts.Mount]) -> Place | None:
    """Where ``target`` can be written directly, None when it must be mounted; FailedPrecondition for a read-only one."""
    if len(target) != 1:
        return None
    only = target[0]
    if "ro" in only.options:
        raise errors.FailedPrecondition(f"mount {only.source!r} is read-only")
    if only.type == "overlay":
        return _overlay(only.options)
    if only.type in _BIND or any(option in _BIND for option in only.options):
        return Place("plain", only.source)
    return None


def _overlay(options: Sequence[str]) -> Place | None:
    upper, lower = "", ""
    for option in options:
        key, _, value = option.partition("=")
        if key == "upperdir":
            upper = value
        elif key == "lowerdir":
            lower = value
        elif key == "userxattr":
            return None  # its marks are other ones: let the kernel write them
    if not upper:
        raise errors.FailedPrecondition("overlay mount has no upper directory")
    return Place("overlay", upper, split_lowers(lower))


def split_lowers(value: str) -> tuple[str, ...]:
    r"""The directories of a ``lowerdir=`` option: separated by ``:``, with ``\:`` and ``\\`` for the characters themselves."""
    found, current, escaped = [], "", False
    for char in value:
        if escaped:
            current, escaped = current + char, False
        elif char == "\\":
            escaped = True
        elif char == ":":
            found.append(current)
            current = ""
        else:
            current += char
    return tuple(path for path in (*found, current) if path)


class TarApplier:
    """Applies tar layers, gzip or zstd compressed or not, in helper processes of ``helpers``."""

    def __init__(self, helpers: unpacker.Unpacker, mounter: mounts.Mounter, *, sync: bool = False) -> None:
        self._helpers, self._mounter, self._sync = helpers, mounter, sync

    async def apply(self, layer: image.Descriptor, blob: content.Reader, target: Sequence[mounts.Mount]) -> diff.Applied:
        """Unpack ``layer``; errors as ``Unpacker.apply``, and FailedPrecondition for a target that cannot be written."""
        return await self.apply_source(unpacker.Whole(blob.fd, blob.size), target)

    async def apply_source(self, blob: diff.Source, target: Sequence[mounts.Mount], lowers: unpacker.Lowers | None = None) -> diff.Applied:
        """As ``apply`` for a blob that may still be arriving; ``lowers`` may wait for layers that are still being unpacked."""
        spot = place(target)
        if spot is None:
            async with self._mounter.mounted(target) as path:
                return await self._run(unpacker.ApplyRequest(blob, path, "plain", recursive=True, sync=self._sync))
        if spot.mode == "plain":
            return await self._run(unpacker.ApplyRequest(blob, Path(spot.path), "plain", sync=self._sync))

        async def known() -> Sequence[str]:
            return spot.lowers

        below = (lowers or known) if spot.lowers else None
        return await self._run(unpacker.ApplyRequest(blob, Path(spot.path), "overlay", below, sync=self._sync))

    async def _run(self, request: unpacker.ApplyRequest) -> diff.Applied:
        result = await self._helpers.apply(request)
        return diff.Applied(UNCOMPRESSED, result.size, result.diff_id)
