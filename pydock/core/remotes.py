"""Remotes: registries that names resolve in, content is fetched from and pushed to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from pydock.oci import image


@dataclass(frozen=True, slots=True)
class Credentials:
    """Basic credentials, or an identity/refresh token in ``secret`` with an empty ``username``; or a ready ``header``."""

    username: str = ""
    secret: str = ""
    header: str = ""


# Asked with the registry host that wants credentials; None means go on without.
CredentialsFor = Callable[[str], Awaitable[Credentials | None]]


@dataclass(frozen=True, slots=True)
class Access:
    """How a client wants registries spoken to; the daemon's hosts directory fills in what is not said."""

    credentials: CredentialsFor | None = None
    plain_http: bool = False
    skip_verify: bool = False
    hosts_dir: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class Fetcher(Protocol):
    """Opens the bytes of a descriptor from ``offset`` on; the stream fails when the registry sends fewer or more than said."""

    def open(self, descriptor: image.Descriptor, offset: int = 0) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


class Pusher(Protocol):
    """Uploads content to one repository of a registry."""

    async def exists(self, descriptor: image.Descriptor) -> bool: ...
    async def push(self, descriptor: image.Descriptor, data: Callable[[], AsyncIterator[bytes]], root: bool = False) -> None:
        """Upload it (``data`` may be asked for again on a retry); ``root`` puts a manifest under the reference's tag."""


class Registry(Protocol):
    """One client's view of the registry of one reference."""

    async def resolve(self, reference: str) -> tuple[str, image.Descriptor]:
        """The name to record and the root descriptor.  NotFound ``<reference>``."""

    def fetcher(self, reference: str) -> Fetcher: ...
    def pusher(self, reference: str) -> Pusher: ...


class Remotes(Protocol):
    """Makes `Registry` objects; connections are pooled for the time of the block."""

    def connect(self, access: Access) -> AbstractAsyncContextManager[Registry]: ...
