"""Transfers: images moved between a registry, this daemon's store and archives streamed by a client.

Vocabulary: a *source* and a *destination* say from where to where; which pairs exist is the transferrer's to say (Unimplemented for the
others).  A *name rule* makes image names out of what an archive calls its images.  *Progress* is one line of the client's display: lines
of one ``name`` replace each other, ``parents`` make a tree of them.

========== ============= ===========
source     destination   called
========== ============= ===========
Registry   Store         pull
Store      Registry      push
Store      Store         tag
Archive    Store         import
Store      ArchiveSink   export
========== ============= ===========

Source: containerd.types.transfer (the wire form) and its client package ``core/transfer``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydock.core import remotes
from pydock.oci import image


class ByteSink(Protocol):
    """Takes the bytes of an archive, in order; a slow reader makes ``write`` wait."""

    async def write(self, data: bytes | memoryview) -> None:
        """Hand over ``data``.  Aborted when the reader is gone."""

    async def close(self) -> None:
        """Say that this was all; called by the writer when it is done, and only then."""


@dataclass(frozen=True, slots=True)
class Registry:
    """One image in a registry: ``reference`` is the full name, ``access`` how the client wants the registry spoken to."""

    reference: str
    access: remotes.Access = field(default_factory=remotes.Access)


@dataclass(frozen=True, slots=True)
class Unpack:
    """Unpack what is stored: ``platform`` None is the host's, ``snapshotter`` "" the default one."""

    platform: image.Platform | None = None
    snapshotter: str = ""


@dataclass(frozen=True, slots=True)
class NameRule:
    """Names for what an archive holds: ``name``, or with ``is_prefix`` the beginning of every name kept (bare tags are put behind it).

    ``add_digest`` also makes ``<name>@<digest>``, which ``skip_named_digest`` leaves out for what has a name in the archive.
    """

    name: str
    is_prefix: bool = False
    allow_overwrite: bool = False
    add_digest: bool = False
    skip_named_digest: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """The daemon's images.  ``platforms`` empty is all of them; ``manifest_limit`` 0 is no limit; ``all_metadata`` keeps the manifests
    (not the layers) of platforms that were not selected."""

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    platforms: Sequence[image.Platform] = ()
    all_metadata: bool = False
    manifest_limit: int = 0
    extra_references: Sequence[NameRule] = ()
    unpacks: Sequence[Unpack] = ()


@dataclass(frozen=True, slots=True)
class Archive:
    """An image archive a client streams in: OCI layout or docker save, found out from its content when ``media_type`` is empty."""

    data: AsyncIterator[bytes]
    media_type: str = ""
    force_compress: bool = False


@dataclass(frozen=True, slots=True)
class ArchiveSink:
    """An image archive streamed out to a client; ``platforms`` empty is the daemon's own unless ``all_platforms``."""

    sink: ByteSink
    media_type: str = ""
    platforms: Sequence[image.Platform] = ()
    all_platforms: bool = False
    skip_compatibility_manifest: bool = False
    skip_non_distributable: bool = False


Source = Registry | Store | Archive
Destination = Store | Registry | ArchiveSink


@dataclass(frozen=True, slots=True)
class Progress:
    """One line: ``event`` is shown as it is ("waiting", "downloading", "complete", ...); bytes done and in all (0 when unknown)."""

    event: str
    name: str = ""
    parents: Sequence[str] = ()
    progress: int = 0
    total: int = 0
    descriptor: image.Descriptor | None = None


# Never blocks and never fails; lines may be dropped in favour of later ones of the same name.
Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report to nobody."""


@dataclass(frozen=True, slots=True)
class Request:
    """One transfer in namespace ``ns``; what it makes is added to ``lease`` when one is named."""

    ns: str
    source: Source
    destination: Destination
    report: Report = silent
    lease: str = ""


class Transferrer(Protocol):
    """Moves images.  Unimplemented for a pair it does not know, NotFound ``image "<name>"`` for a source that is not there."""

    async def transfer(self, request: Request) -> None: ...
