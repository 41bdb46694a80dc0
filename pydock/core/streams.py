"""Streams: byte pipes between a client and a daemon-side operation, found by id (containerd's streaming service)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from pydock.core import containers


class Stream(Protocol):
    """Ordered typed messages both ways until either side closes."""

    async def send(self, message: containers.Any) -> None: ...
    def __aiter__(self) -> AsyncIterator[containers.Any]: ...
    async def close(self) -> None: ...


class Streams(Protocol):
    """The streams clients opened, by namespace and id, until a transfer takes them."""

    def register(self, ns: str, id: str, stream: Stream) -> None:
        """AlreadyExists ``stream <id>``."""

    def get(self, ns: str, id: str) -> Stream:
        """NotFound ``stream <id>``."""

    def remove(self, ns: str, id: str) -> None: ...
