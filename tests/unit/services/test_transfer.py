"""Transfers over the wire: values out of Anys, progress and credentials over streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, empty_pb2

from pydock._proto.containerd.services.transfer.v1 import transfer_pb2 as pb
from pydock._proto.containerd.types.transfer import imagestore_pb2, importexport_pb2, progress_pb2, registry_pb2
from pydock._proto.containerd.types.transfer import streaming_pb2 as bytes_pb2
from pydock.base import errors
from pydock.core import containers, remotes, streams, transfer
from pydock.domain import streams as domain
from pydock.oci import image
from pydock.services import codec, streaming
from pydock.services import transfer as service


class Pipe:
    """A stream in memory; the client's end is ``sent`` and ``given``."""

    def __init__(self) -> None:
        self.sent: streaming.Channel[containers.Any] = streaming.Channel(1000)
        self.given: streaming.Channel[containers.Any] = streaming.Channel(1000)

    async def send(self, message: containers.Any) -> None:
        await self.sent.put(message)

    async def __aiter__(self) -> AsyncIterator[containers.Any]:
        while (message := await self.given.get()) is not None:
            yield message

    async def close(self) -> None:
        await self.sent.close()


class Transferrer:
    """Does what the test says with the request."""

    def __init__(self) -> None:
        self.requests: list[transfer.Request] = []
        self.work: Callable[[transfer.Request], Awaitable[None]] | None = None

    async def transfer(self, request: transfer.Request) -> None:
        self.requests.append(request)
        if self.work is not None:
            await self.work(request)


@pytest.fixture
def verb() -> Transferrer:
    return Transferrer()


@pytest.fixture
def open_streams() -> domain.Streams:
    return domain.Streams()


@pytest.fixture
async def client(dial: Any, verb: Transferrer, open_streams: streams.Streams) -> AsyncIterator[Any]:
    async with dial(service.Transfer(verb, open_streams)) as client:
        yield client


def _request(source: Any, destination: Any, progress: str = "") -> pb.TransferRequest:
    request = pb.TransferRequest(source=codec.wire_any(codec.pack(source)), destination=codec.wire_any(codec.pack(destination)))
    request.options.progress_stream = progress
    return request


REGISTRY = registry_pb2.OCIRegistry(reference="docker.io/library/busybox:1")
STORE = imagestore_pb2.ImageStore(name="docker.io/library/busybox:1")


async def test_a_pull_becomes_values(client: Any, verb: Transferrer) -> None:
    registry = registry_pb2.OCIRegistry(reference="r/x:1")
    registry.resolver.default_scheme = "http"
    registry.resolver.host_dir = "/etc/hosts.d"
    registry.resolver.headers["X-A"] = "b"
    store = imagestore_pb2.ImageStore(name="x", labels={"k": "v"}, all_metadata=True, manifest_limit=2)
    store.platforms.add(os="linux", architecture="arm64", variant="v8")
    store.unpacks.add(snapshotter="native")
    store.extra_references.add(name="p", is_prefix=True, allow_overwrite=True)
    await client.Transfer(_request(registry, store), ns="moby", lease="l1")
    [request] = verb.requests
    assert (request.ns, request.lease) == ("moby", "l1")
    assert request.source == transfer.Registry("r/x:1", remotes.Access(plain_http=True, hosts_dir="/etc/hosts.d", headers=(("X-A", "b"),)))
    assert request.destination == transfer.Store(
        name="x",
        labels={"k": "v"},
        platforms=(image.Platform("linux", "arm64", "v8"),),
        all_metadata=True,
        manifest_limit=2,
        extra_references=(transfer.NameRule("p", is_prefix=True, allow_overwrite=True),),
        unpacks=(transfer.Unpack(None, "native"),),
    )


async def test_progress_is_sent_in_order_and_the_stream_closed(client: Any, verb: Transferrer, open_streams: domain.Streams) -> None:
    pipe = Pipe()
    open_streams.register("default", "p", pipe)

    async def work(request: transfer.Request) -> None:
        request.report(transfer.Progress("Resolving"))
        request.report(transfer.Progress("Fetching"))
        descriptor = image.Descriptor("m", "sha256:ab", 9)
        for done in range(9):
            request.report(transfer.Progress("downloading", "layer", ("manifest",), done, 9, descriptor))
        await asyncio.sleep(0)
        request.report(transfer.Progress("complete", "layer", ("manifest",), 9, 9, descriptor))

    verb.work = work
    await client.Transfer(_request(REGISTRY, STORE, "p"))
    lines = []
    while (message := await pipe.sent.get()) is not None:
        lines.append(codec.parse(progress_pb2.Progress, message))
    assert [line.event for line in lines][:2] == ["Resolving", "Fetching"]
    last = lines[-1]
    assert (last.event, last.name, list(last.parents), last.progress, last.total) == ("complete", "layer", ["manifest"], 9, 9)
    assert (last.desc.digest, last.desc.size) == ("sha256:ab", 9)


async def test_a_reader_of_progress_that_goes_does_not_disturb_the_transfer(
    client: Any, verb: Transferrer, open_streams: domain.Streams
) -> None:
    pipe = Pipe()
    open_streams.register("default", "p", pipe)
    await pipe.close()

    async def work(request: transfer.Request) -> None:
        request.report(transfer.Progress("one"))
        await asyncio.sleep(0)
        request.report(transfer.Progress("two"))

    verb.work = work
    assert await client.Transfer(_request(REGISTRY, STORE, "p")) == empty_pb2.Empty()


async def test_a_failed_transfer_is_told_and_its_streams_closed(client: Any, verb: Transferrer, open_streams: domain.Streams) -> None:
    pipe = Pipe()
    open_streams.register("default", "p", pipe)

    async def work(_: transfer.Request) -> None:
        raise errors.NotFound("docker.io/library/nope:latest")

    verb.work = work
    with pytest.raises(grpc.RpcError) as caught:
        await client.Transfer(_request(REGISTRY, STORE, "p"))
    assert caught.value.details() == "docker.io/library/nope:latest: not found"
    with pytest.raises(errors.Aborted):
        await pipe.send(containers.Any("t", b""))


ANSWERS = [
    (registry_pb2.AuthResponse(authType=registry_pb2.CREDENTIALS, username="u", secret="s"), remotes.Credentials("u", "s")),
    (registry_pb2.AuthResponse(authType=registry_pb2.REFRESH, secret="t"), remotes.Credentials(secret="t")),
    (registry_pb2.AuthResponse(authType=registry_pb2.HEADER, secret="h"), remotes.Credentials(header="h")),
    (registry_pb2.AuthResponse(authType=registry_pb2.NONE), None),
    (registry_pb2.AuthResponse(authType=registry_pb2.REFRESH), None),
]


@pytest.mark.parametrize(("answer", "found"), ANSWERS)
async def test_credentials_are_asked_of_the_client(
    client: Any, verb: Transferrer, open_streams: domain.Streams, answer: registry_pb2.AuthResponse, found: remotes.Credentials | None
) -> None:
    pipe = Pipe()
    open_streams.register("default", "a", pipe)
    await pipe.given.put(codec.pack(answer))
    got: list[remotes.Credentials | None] = []

    async def work(request: transfer.Request) -> None:
        assert isinstance(request.source, transfer.Registry) and request.source.access.credentials is not None
        got.append(await request.source.access.credentials("registry.example"))

    verb.work = work
    registry = registry_pb2.OCIRegistry(reference="r/x:1")
    registry.resolver.auth_stream = "a"
    await client.Transfer(_request(registry, STORE))
    asked = await pipe.sent.get()
    assert asked is not None
    request = codec.parse(registry_pb2.AuthRequest, asked)
    assert (request.host, request.reference, got) == ("registry.example", "r/x:1", [found])


async def test_an_archive_streams_in(client: Any, verb: Transferrer, open_streams: domain.Streams) -> None:
    pipe = Pipe()
    open_streams.register("default", "i", pipe)
    await pipe.given.put(codec.pack(bytes_pb2.Data(data=b"tar")))
    await pipe.given.close()
    got: list[bytes] = []

    async def work(request: transfer.Request) -> None:
        assert isinstance(request.source, transfer.Archive)
        got.extend([part async for part in request.source.data])

    verb.work = work
    await client.Transfer(_request(importexport_pb2.ImageImportStream(stream="i"), STORE))
    assert got == [b"tar"]


async def test_an_archive_streams_out(client: Any, verb: Transferrer, open_streams: domain.Streams) -> None:
    pipe = Pipe()
    open_streams.register("default", "e", pipe)
    await pipe.given.put(codec.pack(bytes_pb2.WindowUpdate(update=100)))

    async def work(request: transfer.Request) -> None:
        assert isinstance(request.destination, transfer.ArchiveSink) and request.destination.all_platforms
        await request.destination.sink.write(b"tar")
        await request.destination.sink.close()

    verb.work = work
    await client.Transfer(_request(STORE, importexport_pb2.ImageExportStream(stream="e", all_platforms=True)))
    sent = await pipe.sent.get()
    assert sent is not None and codec.parse(bytes_pb2.Data, sent).data == b"tar"


async def test_a_kind_nobody_knows_is_unimplemented(client: Any) -> None:
    request = pb.TransferRequest(source=any_pb2.Any(type_url="x.Y"), destination=codec.wire_any(codec.pack(STORE)))
    with pytest.raises(grpc.RpcError) as caught:
        await client.Transfer(request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stream_nobody_opened_is_not_found(client: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await client.Transfer(_request(REGISTRY, STORE, "nope"))
    assert caught.value.details() == "stream nope: not found"
