"""Containers: the records tasks are made from (no process yet)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Any:
    """An opaque typed value, as google.protobuf.Any."""

    type_url: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Container:
    """Created by a client, run by a task of the same id; times in ns since the epoch."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    runtime: str = ""
    runtime_options: Any | None = None
    spec: Any | None = None
    snapshotter: str = ""
    snapshot_key: str = ""
    extensions: Mapping[str, Any] = field(default_factory=dict)
    sandbox: str = ""
    created_at: int = 0
    updated_at: int = 0


class Store(Protocol):
    """NotFound / AlreadyExists carry ``container "<id>"``."""

    async def get(self, ns: str, id: str) -> Container: ...
    async def list(self, ns: str, filters: Iterable[str] = ()) -> Sequence[Container]: ...
    async def create(self, ns: str, item: Container) -> Container: ...
    async def update(self, ns: str, item: Container, paths: Sequence[str] = ()) -> Container: ...
    async def delete(self, ns: str, id: str) -> None: ...
