"""A snapshotter of this daemon offered to another containerd, at a socket of its own, as its proxy plugin.

Vocabulary: what the other side makes is kept in one namespace of ours, `NAMESPACE`, whatever namespace its calls carry, as a *root* of
our collector: only the other side's records know what is in use, and its collector removes what is not.  It never sees that label.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock.base import errors, sockets
from pydock.core import plugin, snapshots
from pydock.core.mounts import Mount
from pydock.services import calls, routing
from pydock.services import snapshots as front

if TYPE_CHECKING:
    import grpc.aio

log = logging.getLogger(__name__)

NAMESPACE = "io.pydock.offered"
ROOT_LABEL = "containerd.io/gc.root"
GRACE_SECONDS = 0.5


@dataclass(frozen=True)
class OfferConfig(plugin.Config):
    """A snapshotter for others' ``[proxy_plugins.NAME]``."""

    address: str = plugin.option("", "path of the unix socket, mode 0600; empty: nothing is offered")
    snapshotter: str = plugin.option("", "which one; empty: the default one")


class Offered:
    """A `core.snapshots.Service` over one of ours with namespace and snapshotter fixed, and everything in it a root."""

    def __init__(self, service: snapshots.Service, snapshotter: str) -> None:
        self._service, self._name = service, snapshotter

    def names(self) -> Sequence[str]:
        """Return the one there is."""
        return [self._name]

    def rebases(self, _: str) -> bool:
        """Tell no: containerd does not do that."""
        return False

    async def stat(self, _: str, __: str, key: str) -> snapshots.Info:
        """See `core.snapshots.Service`, as all below."""
        return _bare(await self._service.stat(NAMESPACE, self._name, key))

    async def update(self, _: str, __: str, info: snapshots.Info, paths: Sequence[str] = ()) -> snapshots.Info:
        """Set labels; the root stays."""
        rooted = dataclasses.replace(info, labels=_rooted(info.labels))
        return _bare(await self._service.update(NAMESPACE, self._name, rooted, paths))

    async def usage(self, _: str, __: str, key: str) -> snapshots.Usage:
        """Return the disk use of one alone."""
        return await self._service.usage(NAMESPACE, self._name, key)

    async def mounts(self, _: str, __: str, key: str) -> Sequence[Mount]:
        """Return what to mount."""
        return await self._service.mounts(NAMESPACE, self._name, key)

    async def prepare(self, _: str, __: str, request: snapshots.Preparation) -> Sequence[Mount]:
        """Make an active one."""
        return await self._service.prepare(NAMESPACE, self._name, _prepared(request))

    async def view(self, _: str, __: str, request: snapshots.Preparation) -> Sequence[Mount]:
        """Make a view."""
        return await self._service.view(NAMESPACE, self._name, _prepared(request))

    async def commit(self, _: str, __: str, request: snapshots.Commitment) -> None:
        """Turn an active one into a committed one."""
        rooted = snapshots.Commitment(request.name, request.key, _rooted(request.labels))
        await self._service.commit(NAMESPACE, self._name, rooted)

    async def rebase(self, _: str, __: str, request: snapshots.Commitment, parent: str) -> None:
        """Refuse."""
        raise errors.Unimplemented(f"rebase of snapshot {request.key} on {parent}")

    async def settle(self, _: str, __: str) -> None:
        """Refuse."""
        raise errors.Unimplemented("settle")

    async def remove(self, _: str, __: str, key: str) -> None:
        """Remove one that is nobody's parent."""
        await self._service.remove(NAMESPACE, self._name, key)

    async def walk(self, _: str, __: str, filters: Iterable[str] = ()) -> AsyncIterator[snapshots.Info]:
        """Yield what any of the filters picks."""
        async for info in self._service.walk(NAMESPACE, self._name, filters):
            yield _bare(info)

    async def cleanup(self, _: str, __: str) -> None:
        """Remove directories that no record names."""
        await self._service.cleanup(NAMESPACE, self._name)


class Anywhere:
    """The Snapshots service for calls of any namespace or none: a collector's have none."""

    def __init__(self, handlers: front.Snapshots) -> None:
        self.wire, self.raw = handlers.wire, handlers.raw
        self._handlers = handlers

    def __getattr__(self, name: str) -> Any:
        handler = getattr(self._handlers, name)

        async def inside(message: Any, call: calls.Call, *send: calls.Send) -> Any:
            return await handler(message, dataclasses.replace(call, namespace=NAMESPACE), *send)

        return inside


def _rooted(labels: Mapping[str, str]) -> dict[str, str]:
    return {**labels, ROOT_LABEL: "offered"}


def _prepared(request: snapshots.Preparation) -> snapshots.Preparation:
    return snapshots.Preparation(request.key, request.parent, _rooted(request.labels))


def _bare(info: snapshots.Info) -> snapshots.Info:
    return dataclasses.replace(info, labels={key: value for key, value in info.labels.items() if key != ROOT_LABEL})


@contextlib.asynccontextmanager
async def serving(service: plugin.GrpcService, path: Path) -> AsyncIterator[grpc.aio.Server]:
    """Answer ``service`` alone, at ``path``, while the body runs."""
    import grpc.aio

    from pydock.services.front import Front

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Front([service]),))
    with sockets.private_place(path, sockets.Access(0o600)) as temporary:
        try:
            server.add_insecure_port(f"unix:{temporary}")
        except RuntimeError as error:
            raise errors.FailedPrecondition(f"cannot listen at {path}: {error}") from error
        await server.start()
    try:
        yield server
    finally:
        sockets.remove(path)
        await server.stop(GRACE_SECONDS)


@plugin.plugin("io.pydock.offer.v1", "snapshots")
async def offer(cfg: OfferConfig, service: snapshots.Service) -> AsyncIterator[None]:
    """Offer a snapshotter where the configuration says."""
    if not cfg.address:
        raise plugin.SkipPlugin("no address is configured")
    name = cfg.snapshotter or service.names()[0]
    if name not in service.names():
        raise errors.InvalidArgument(f"there is no snapshotter {name}; there are {', '.join(service.names())}")
    address = Path(cfg.address.removeprefix("unix://"))
    async with serving(routing.Service(Anywhere(front.Snapshots(Offered(service, name)))), address):
        log.info("snapshotter offered", extra={"snapshotter": name, "address": cfg.address})
        yield
