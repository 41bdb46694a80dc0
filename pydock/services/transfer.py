"""containerd.services.transfer.v1: images moved by the daemon on a client's behalf.

The wire's sources and destinations are Anys; ``_SHAPES`` says what each becomes.  Progress and credentials travel over streams the client
opened before: progress as Progress messages, credentials as one AuthResponse for each AuthRequest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.transfer.v1 import transfer_pb2 as pb
from pydock._proto.containerd.types.transfer import imagestore_pb2, importexport_pb2, progress_pb2, registry_pb2
from pydock.base import errors
from pydock.core import containers, plugin, remotes, streams, transfer
from pydock.services import calls, codec, routing, streambytes

PACE_SECONDS = 0.1  # between two looks at what is to be shown: a client draws every line it gets
ANSWER_SECONDS = 120.0  # a client whose credentials fail says nothing at all

Find = Callable[[str], streams.Stream]


class Transfer:
    """Answers the Transfer service."""

    wire = pb.DESCRIPTOR.services_by_name["Transfer"]
    raw = frozenset[str]()

    def __init__(self, transferrer: transfer.Transferrer, open_streams: streams.Streams) -> None:
        self._transferrer, self._streams = transferrer, open_streams

    async def transfer(self, request: pb.TransferRequest, call: calls.Call) -> empty_pb2.Empty:
        """Move what ``source`` names to where ``destination`` says, and answer when all of it is there."""
        ns = call.ns
        async with contextlib.AsyncExitStack() as stack:

            def find(id: str) -> streams.Stream:
                stream = self._streams.get(ns, id)
                stack.push_async_callback(stream.close)
                return stream

            progress = request.options.progress_stream
            report = await stack.enter_async_context(reporting(find(progress))) if progress else transfer.silent
            source, destination = _value(request.source, _SOURCES, find), _value(request.destination, _DESTINATIONS, find)
            await self._transferrer.transfer(transfer.Request(ns, source, destination, report, call.lease))
        return empty_pb2.Empty()


@contextlib.asynccontextmanager
async def reporting(stream: streams.Stream) -> AsyncIterator[transfer.Report]:
    """Give a report that never waits; what it is told is sent as fast as the client reads, all of it before the block is left."""
    lines = _Lines()
    async with asyncio.TaskGroup() as group:
        group.create_task(lines.send_to(stream), name="transfer-progress")
        try:
            yield lines.report
        finally:
            lines.end()


class _Lines:
    """Lines of progress not sent yet: of each named one the last, of those without a name every event."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], transfer.Progress] = {}
        self._news, self._over = asyncio.Event(), asyncio.Event()

    def report(self, line: transfer.Progress) -> None:
        self._waiting[line.name, "" if line.name else line.event] = line
        self._news.set()

    def end(self) -> None:
        self._over.set()
        self._news.set()

    async def send_to(self, stream: streams.Stream) -> None:
        """Send lines every `PACE_SECONDS` until ``end``, or until the client has gone, which is no concern of the transfer."""
        with contextlib.suppress(errors.Aborted):
            while self._waiting or not self._over.is_set():
                await self._news.wait()
                self._news.clear()
                lines, self._waiting = self._waiting, {}
                for line in lines.values():
                    await stream.send(_progress(line))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), PACE_SECONDS)


def _progress(line: transfer.Progress) -> containers.Any:
    result = codec.encode(progress_pb2.Progress, line)
    if line.descriptor is not None:
        codec.fill(result.desc, line.descriptor)
    return codec.pack(result)


class Credentials:
    """Asks the client for credentials over its auth stream, one question at a time."""

    def __init__(self, stream: streams.Stream, reference: str) -> None:
        self._stream, self._reference = stream, reference
        self._answers = aiter(stream)
        self._turn = asyncio.Lock()

    async def ask(self, host: str) -> remotes.Credentials | None:
        """Return what the client has for ``host``. Raises Unauthenticated when it does not answer."""
        async with self._turn:
            await self._stream.send(codec.pack(registry_pb2.AuthRequest(host=host, reference=self._reference)))
            try:
                answer = await asyncio.wait_for(anext(self._answers, None), ANSWER_SECONDS)
            except TimeoutError:
                raise errors.Unauthenticated(f"no credentials for {host} within {ANSWER_SECONDS:.0f} seconds") from None
        return None if answer is None else _credentials(codec.parse(registry_pb2.AuthResponse, answer))


def _credentials(answer: registry_pb2.AuthResponse) -> remotes.Credentials | None:
    if answer.authType == registry_pb2.CREDENTIALS:
        return remotes.Credentials(username=answer.username, secret=answer.secret)
    if answer.authType == registry_pb2.REFRESH and answer.secret:
        return remotes.Credentials(secret=answer.secret)
    if answer.authType == registry_pb2.HEADER:
        return remotes.Credentials(header=answer.secret)
    return None


def _registry(message: registry_pb2.OCIRegistry, find: Find) -> transfer.Registry:
    resolver = message.resolver
    credentials: Callable[[str], Awaitable[remotes.Credentials | None]] | None = None
    if resolver.auth_stream:
        credentials = Credentials(find(resolver.auth_stream), message.reference).ask
    access = remotes.Access(
        credentials=credentials,
        plain_http=resolver.default_scheme == "http",
        hosts_dir=resolver.host_dir,
        headers=tuple(resolver.headers.items()),
    )
    return transfer.Registry(message.reference, access)


def _store(message: imagestore_pb2.ImageStore, _: Find) -> transfer.Store:
    return codec.decode(transfer.Store, message)


def _archive(message: importexport_pb2.ImageImportStream, find: Find) -> transfer.Archive:
    return codec.decode(transfer.Archive, message, data=streambytes.received(find(message.stream)))


def _archive_sink(message: importexport_pb2.ImageExportStream, find: Find) -> transfer.ArchiveSink:
    return codec.decode(transfer.ArchiveSink, message, sink=streambytes.Sink(find(message.stream)))


Shapes = dict[str, tuple[Any, Callable[[Any, Find], Any]]]


def _shapes(*rows: tuple[Any, Callable[[Any, Find], Any]]) -> Shapes:
    return {kind.DESCRIPTOR.full_name: (kind, make) for kind, make in rows}


_REGISTRY, _STORE = (registry_pb2.OCIRegistry, _registry), (imagestore_pb2.ImageStore, _store)
_SOURCES = _shapes(_REGISTRY, _STORE, (importexport_pb2.ImageImportStream, _archive))
_DESTINATIONS = _shapes(_REGISTRY, _STORE, (importexport_pb2.ImageExportStream, _archive_sink))


def _value(packed: Any, shapes: Shapes, find: Find) -> Any:
    """Return the core form of a source or destination. Raises Unimplemented for one that is not in the table."""
    value = codec.any_of(packed)
    shape = shapes.get(codec.type_name(value))
    if shape is None:
        raise errors.Unimplemented(f"transfer from or to {value.type_url}")
    kind, make = shape
    return make(codec.parse(kind, value), find)


@plugin.plugin("io.containerd.grpc.v1", "transfer")
async def service(transferrer: transfer.Transferrer, open_streams: streams.Streams) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Transfer service."""
    yield routing.Service(Transfer(transferrer, open_streams))
