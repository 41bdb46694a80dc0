"""Diffs: layer blobs put onto mounts (apply) and made from them (compare)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydock.core import content, mounts
from pydock.oci import image


@dataclass(frozen=True, slots=True)
class Applied:
    """The uncompressed layer: ``size`` in bytes, ``digest`` is the OCI diff id."""

    media_type: str
    size: int
    digest: str


# Waited for only when a layer needs what is below it; returns directories, topmost first.
Lowers = Callable[[], Awaitable[Sequence[str]]]


class Source(Protocol):
    """The compressed bytes of a layer, possibly still arriving.

    ``fd`` is a regular file that is read by pread; ``available`` bytes may be read now; `grown` returns when more are there or the blob is
    whole (``available == size`` then), and raises when it never will be.
    """

    fd: int
    size: int
    available: int

    async def grown(self, beyond: int) -> int: ...


class Applier(Protocol):
    """Unpacks layers onto mounts."""

    async def apply(self, layer: image.Descriptor, blob: content.Reader, target: Sequence[mounts.Mount]) -> Applied:
        """Unpack a layer of ``layer.media_type`` onto ``target`` (as a snapshotter gave it)."""

    async def apply_source(self, blob: Source, target: Sequence[mounts.Mount], lowers: Lowers | None = None) -> Applied:
        """As `apply` for a blob that may still be arriving; ``lowers`` tells the lower directories of an overlay once they are complete."""


@dataclass(frozen=True, slots=True)
class Trees:
    """Two states of a file tree, as the mounts of snapshots: ``lower`` before (none is an empty tree), ``upper`` after."""

    lower: Sequence[mounts.Mount]
    upper: Sequence[mounts.Mount]


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """``media_type`` of the layer, "" for the gzip one; no time in it is later than ``source_date_epoch`` (ns), where that is given."""

    media_type: str = ""
    source_date_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A layer that was written: ``size`` in bytes and ``diff_id`` of the uncompressed archive."""

    media_type: str
    diff_id: str
    size: int
    compressed: bool


class Comparer(Protocol):
    """Makes layers of what changed."""

    async def compare(self, trees: Trees, options: LayerOptions, writer: content.Writer) -> Compared:
        """Write the layer that leads from ``trees.lower`` to ``trees.upper``, in place of what ``writer`` holds; it is not committed.

        Equal trees and options give equal bytes. Raises Unimplemented for a media type it cannot write, NotFound for trees that are gone,
        FailedPrecondition for one that no layer can hold, and what the writer raises.
        """
