"""Sandboxes: records of the environments (pods, micro VMs) in which containers share a shim and namespaces; a record runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydock.core.containers import Any


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a sandbox is run: the runtime's ``name`` and its options."""

    name: str = ""
    options: Any | None = None


@dataclass(frozen=True, slots=True)
class Sandbox:
    """``sandboxer`` names the controller in charge; times in ns since the epoch."""

    sandbox_id: str
    runtime: Runtime = field(default_factory=Runtime)
    spec: Any | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)
    sandboxer: str = ""
    created_at: int = 0
    updated_at: int = 0


class Store(Protocol):
    """NotFound / AlreadyExists carry ``sandbox "<id>"``."""

    async def get(self, ns: str, id: str) -> Sandbox: ...
    async def list(self, ns: str, filters: Iterable[str] = ()) -> Sequence[Sandbox]: ...
    async def create(self, ns: str, item: Sandbox) -> Sandbox: ...
    async def update(self, ns: str, item: Sandbox, paths: Sequence[str] = ()) -> Sandbox:
        """Replace what ``paths`` name ("labels", "labels.KEY", "extensions", "extensions.KEY", "spec", "runtime"), or all of these."""

    async def delete(self, ns: str, id: str) -> None: ...
