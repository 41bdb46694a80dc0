"""Namespaces: the walls between clients; everything else belongs to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """NotFound / AlreadyExists carry ``namespace "<name>"``.  A namespace that holds anything cannot be deleted (FailedPrecondition)."""

    async def get(self, name: str) -> Namespace: ...
    async def list(self) -> Sequence[Namespace]: ...
    async def create(self, item: Namespace) -> Namespace: ...
    async def update(self, item: Namespace, paths: Sequence[str] = ()) -> Namespace: ...
    async def delete(self, name: str) -> None: ...
