"""Images: names that point at a manifest, an index or anything else in content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydock.oci import image


@dataclass(frozen=True, slots=True)
class Image:
    """A name in a namespace; times in ns since the epoch."""

    name: str
    target: image.Descriptor
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0
    updated_at: int = 0


class Store(Protocol):
    """NotFound / AlreadyExists carry ``image "<name>"``."""

    async def get(self, ns: str, name: str) -> Image: ...
    async def list(self, ns: str, filters: Iterable[str] = ()) -> Sequence[Image]: ...
    async def create(self, ns: str, item: Image) -> Image: ...
    async def update(self, ns: str, item: Image, paths: Sequence[str] = ()) -> Image:
        """``paths``: "labels", "labels.KEY", "target", "annotations" (of the target); empty replaces labels and target."""

    async def delete(self, ns: str, name: str, target: str = "") -> None:
        """``target``: only when it points at that digest, else NotFound."""
