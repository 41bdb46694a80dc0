"""Transfers: the daemon moves images between a registry, its store and archives; this side watches, signs in and carries bytes.

Vocabulary: an *end* is a source or a destination, a packed message; *progress* is what the daemon reports of one object (a name, its
parents, bytes done and total) or of the whole (no name).
Invariant: credentials go only over the auth stream of the call they were given for, and only for the host of the reference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from google.protobuf import any_pb2, empty_pb2

from pydock._proto.containerd.services.transfer.v1 import transfer_pb2 as api
from pydock._proto.containerd.types import platform_pb2
from pydock._proto.containerd.types.transfer import imagestore_pb2 as store
from pydock._proto.containerd.types.transfer import importexport_pb2 as archive
from pydock._proto.containerd.types.transfer import progress_pb2, registry_pb2
from pydock.base import errors, platform
from pydock.base import reference as references
from pydock.client import anys, streams
from pydock.client.connection import Connection

_PATH = "/containerd.services.transfer.v1.Transfer/Transfer"
# The daemon need not end the progress stream; what it sent before its answer arrives at once or not at all.
_LAST_PROGRESS = 0.1
_LAST_BYTES = 0.1
_LONGEST_QUIET = 5.0

Progress = progress_pb2.Progress
Watch = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password or, with an empty user, a refresh token."""

    user: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Registry:
    """How to reach the registry of ``reference``; ``hosts_dir`` is a path on the daemon's host."""

    reference: str
    plain_http: bool = False
    hosts_dir: str = ""
    credentials: Credentials | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to keep of an image: platforms (none: all), labels, and for which snapshotter to unpack each platform (None: not at all)."""

    platforms: Sequence[platform.Like] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    snapshotter: str | None = None
    all_metadata: bool = True


@dataclass(frozen=True, slots=True)
class Naming:
    """How images of an archive are named: by ``base`` (a prefix), or by what the archive says."""

    base: str
    overwrite: bool = False
    digests: bool = False
    skip_named: bool = False
    index: str = ""


@dataclass(frozen=True, slots=True)
class Export:
    """What to put into an archive."""

    platforms: Sequence[platform.Like] = ()
    all_platforms: bool = False
    skip_manifest: bool = False
    skip_foreign: bool = False


def pull(conn: Connection, registry: Registry, wanted: Wanted, watch: Watch) -> None:
    """Fetch an image and name it by its reference. Raises NotFound, Unauthenticated, Unavailable and what the store raises."""
    image = store.ImageStore(
        name=registry.reference, labels=wanted.labels, platforms=[_platform(each) for each in wanted.platforms],
        all_metadata=wanted.all_metadata, unpacks=_unpacks(wanted),
    )  # fmt: skip
    with _signed_in(conn, registry) as end:
        _transfer(conn, end, anys.pack(image), watch)


def push(conn: Connection, image: str, registry: Registry, platforms: Sequence[platform.Like], watch: Watch) -> None:
    """Send the image named ``image`` to a registry. Raises NotFound, Unauthenticated, Unavailable."""
    source = store.ImageStore(name=image, platforms=[_platform(each) for each in platforms])
    with _signed_in(conn, registry) as end:
        _transfer(conn, anys.pack(source), end, watch)


def tag(conn: Connection, source: str, target: str) -> None:
    """Give the image ``source`` a second name, replacing what it named."""
    _call(conn, anys.pack(store.ImageStore(name=source)), anys.pack(store.ImageStore(name=target)))


def load(conn: Connection, source: BinaryIO, naming: Naming, wanted: Wanted, watch: Watch) -> None:
    """Import the images of an archive. Raises InvalidArgument, FailedPrecondition and OSError of ``source``."""
    name = store.ImageReference(
        name=naming.base, is_prefix=True, allow_overwrite=naming.overwrite,
        add_digest=naming.digests, skip_named_digest=naming.skip_named,
    )  # fmt: skip
    image = store.ImageStore(
        name=naming.index, labels=wanted.labels, platforms=[_platform(each) for each in wanted.platforms],
        extra_references=[name], unpacks=_unpacks(wanted),
    )  # fmt: skip
    with streams.opened(conn, "import") as stream:
        feeder = streams.Worker(lambda: streams.send_bytes(stream, source), "import")
        feeder.start()
        _transfer(conn, anys.pack(archive.ImageImportStream(stream=stream.id)), anys.pack(image), watch)
        # An archive may go on after what the daemon reads of it, so its reader's own end is not waited for, only its failure told.
        feeder.finish(0)


def save(conn: Connection, images: Sequence[str], sink: BinaryIO, export: Export, watch: Watch) -> int:
    """Write the named images as an archive; return its size in bytes. Raises NotFound, DataLoss and OSError of ``sink``."""
    source = store.ImageStore(extra_references=[store.ImageReference(name=name) for name in images])
    tail = Tail(sink)
    with streams.opened(conn, "export") as stream:
        drain = streams.Worker(lambda: streams.receive_bytes(stream, tail), "export")
        drain.start()
        end = archive.ImageExportStream(
            stream=stream.id, platforms=[_platform(each) for each in export.platforms], all_platforms=export.all_platforms,
            skip_compatibility_manifest=export.skip_manifest, skip_non_distributable=export.skip_foreign,
        )  # fmt: skip
        try:
            _transfer(conn, anys.pack(source), anys.pack(end), watch)
        except errors.PydockError:
            stream.cancel()
            drain.finish()
            raise
        _see_the_end(drain, tail)
    return tail.total


class Tail:
    """Passes bytes on and remembers whether an archive's end mark was last."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._zeros = 0
        self.total = 0

    def write(self, data: bytes) -> None:
        """Write ``data`` on."""
        self._sink.write(data)
        self.total += len(data)
        rest = len(data.rstrip(b"\0"))
        self._zeros = len(data) - rest + (0 if rest else self._zeros)

    @property
    def complete(self) -> bool:
        """Tell whether two zero blocks, which end a tar archive, came last."""
        return self._zeros >= 1024


def _see_the_end(drain: streams.Worker, tail: Tail) -> None:
    """Wait for the stream's end, or where the daemon leaves it open (containerd does) for the archive's, and quiet after it."""
    quiet = 0.0
    seen = tail.total
    while not drain.finish(_LAST_BYTES):
        quiet, seen = (quiet + _LAST_BYTES if seen == tail.total else 0.0), tail.total
        if quiet and tail.complete:
            return
        if quiet >= _LONGEST_QUIET:
            raise errors.DataLoss(f"the archive ends after {tail.total} bytes without its end mark")


def _call(conn: Connection, source: any_pb2.Any, destination: any_pb2.Any, progress: str = "") -> None:
    options = api.TransferOptions(progress_stream=progress)
    conn.unary(_PATH, api.TransferRequest(source=source, destination=destination, options=options), empty_pb2.Empty)


def _transfer(conn: Connection, source: any_pb2.Any, destination: any_pb2.Any, watch: Watch) -> None:
    with streams.opened(conn, "progress") as stream:
        watcher = streams.Worker(lambda: _report(stream, watch), "progress")
        watcher.start()
        try:
            _call(conn, source, destination, stream.id)
        finally:
            stream.close()
            watcher.join(_LAST_PROGRESS)


def _report(stream: streams.Stream, watch: Watch) -> None:
    while (packed := stream.receive()) is not None:
        progress = anys.unpack(packed, Progress)
        if progress is not None:
            watch(progress)


@contextlib.contextmanager
def _signed_in(conn: Connection, registry: Registry) -> Iterator[any_pb2.Any]:
    """Give the registry's end, with somebody answering its questions for credentials when there are any."""
    resolver = registry_pb2.RegistryResolver(
        headers=registry.headers, host_dir=registry.hosts_dir, default_scheme="http" if registry.plain_http else ""
    )
    if registry.credentials is None:
        yield anys.pack(registry_pb2.OCIRegistry(reference=registry.reference, resolver=resolver))
        return
    with streams.opened(conn, "auth") as stream:
        resolver.auth_stream = stream.id
        given, host = registry.credentials, references.parse(registry.reference).hostname
        streams.Worker(lambda: _answer(stream, given, host), "auth").start()
        yield anys.pack(registry_pb2.OCIRegistry(reference=registry.reference, resolver=resolver))


def _answer(stream: streams.Stream, given: Credentials, host: str) -> None:
    while (packed := stream.receive()) is not None:
        question = anys.unpack(packed, registry_pb2.AuthRequest)
        reply = registry_pb2.AuthResponse()
        if question is not None and same_host(question.host, host):
            kind = registry_pb2.CREDENTIALS if given.user else registry_pb2.REFRESH
            reply = registry_pb2.AuthResponse(authType=kind, username=given.user, secret=given.secret)
        stream.send(anys.pack(reply))


def same_host(asked: str, host: str) -> bool:
    """Tell whether credentials for ``host`` may be told for ``asked``; Docker Hub answers under a second name."""
    hub = {references.DEFAULT_DOMAIN, "registry-1.docker.io"}
    return asked == host or (host in hub and asked in hub)


def _platform(each: platform.Like) -> platform_pb2.Platform:
    return platform_pb2.Platform(os=each.os, architecture=each.architecture, variant=each.variant, os_version=each.os_version)


def _unpacks(wanted: Wanted) -> list[store.UnpackConfiguration]:
    if wanted.snapshotter is None:
        return []
    return [store.UnpackConfiguration(platform=_platform(each), snapshotter=wanted.snapshotter) for each in wanted.platforms]
