"""Leases: what keeps resources from garbage collection while a client works with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

EXPIRE_LABEL = "containerd.io/gc.expire"  # RFC 3339 time after which the lease holds nothing


@dataclass(frozen=True, slots=True)
class Lease:
    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class Resource:
    """``type`` is "content", "ingests", "images" or "snapshots/<snapshotter>"; ``id`` a digest, ref, name or key."""

    id: str
    type: str


class Manager(Protocol):
    """NotFound / AlreadyExists carry ``lease "<id>"``."""

    async def create(self, ns: str, item: Lease) -> Lease:
        """An empty id gets a generated one."""

    async def delete(self, ns: str, id: str, sync: bool = False) -> None: ...
    async def list(self, ns: str, filters: Iterable[str] = ()) -> Sequence[Lease]: ...
    async def add_resource(self, ns: str, lease: str, resource: Resource) -> None: ...
    async def delete_resource(self, ns: str, lease: str, resource: Resource) -> None: ...
    async def resources(self, ns: str, lease: str) -> Sequence[Resource]: ...
