"""Activations: named sets of mounts that the daemon has performed and keeps until they are deactivated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydock.core.mounts import Mount


@dataclass(frozen=True, slots=True)
class ActiveMount:
    """A ``mount`` that was performed at ``mounted_at`` (ns) and is seen at ``mount_point``; ``data`` holds its handler's notes."""

    mount: Mount
    mounted_at: int = 0
    mount_point: str = ""
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActivationInfo:
    """A set: ``active`` is mounted, ``system`` is what a client still mounts itself to have it where it wants it."""

    name: str
    active: Sequence[ActiveMount] = ()
    system: Sequence[Mount] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """``mounts`` to be performed in order under ``name``; ``temporary``: all of them here, although a client could do it."""

    name: str
    mounts: Sequence[Mount]
    labels: Mapping[str, str] = field(default_factory=dict)
    temporary: bool = False


class Manager(Protocol):
    """NotFound / AlreadyExists carry ``mount "<name>"``; sets survive the daemon, not the host's boot."""

    async def activate(self, ns: str, request: Request) -> ActivationInfo:
        """Perform all mounts of a set, or none.

        Unimplemented where nothing needs the daemon: the client is to mount by itself then; and for a type of mount it does not know.
        """

    async def deactivate(self, ns: str, name: str) -> None: ...
    async def info(self, ns: str, name: str) -> ActivationInfo: ...
    async def update(self, ns: str, info: ActivationInfo, paths: Sequence[str] = ()) -> ActivationInfo:
        """Replace labels, see `content.Store.update`."""

    async def list(self, ns: str, filters: Iterable[str] = ()) -> Sequence[ActivationInfo]: ...
