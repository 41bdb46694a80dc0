"""Registries spoken to by the OCI distribution protocol (distribution-spec v1.1, and Docker's registry API v2, the same for our verbs)."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urljoin

from pydock.base import digest as digests
from pydock.base import errors, reference
from pydock.core import plugin, remotes
from pydock.oci import image
from pydock_plugins.remotes import hosts

if TYPE_CHECKING:
    import aiohttp

    from pydock_plugins.remotes import http

MANIFEST_LIMIT = 4 << 20  # bytes; distribution-spec: registries should accept manifests of at least 4 MiB
_ACCEPT = ", ".join([image.INDEX, image.MANIFEST, image.DOCKER_LIST, image.DOCKER_MANIFEST, "*/*"])
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_MANIFESTS = image.INDEXES | image.MANIFESTS


class RegistryRemotes:
    """`remotes.Remotes` over HTTP; aiohttp is imported by the first use, not by the daemon's start."""

    def __init__(self, cfg: RemotesConfig) -> None:
        self._cfg = cfg

    @asynccontextmanager
    async def connect(self, access: remotes.Access) -> AsyncIterator[remotes.Registry]:
        """Yield a registry client with connections and tokens of its own."""
        from pydock_plugins.remotes import http

        cfg = self._cfg
        bounds = http.Bounds(cfg.stall_seconds, cfg.slow_window_seconds, cfg.slowest_bytes, cfg.request_tries)
        async with http.open_session(bounds) as session:
            yield _Registry(http.Client(session, access.credentials, bounds), access, self._cfg.config_path)


class _Registry:
    def __init__(self, client: http.Client, access: remotes.Access, hosts_dir: str) -> None:
        self._client, self._access, self._hosts_dir = client, access, hosts_dir

    def _target(self, name: str) -> tuple[reference.Spec, _Repository]:
        parsed = reference.parse_checked(name)
        known = hosts.hosts_for(parsed.hostname, self._access, self._hosts_dir)
        return parsed, _Repository(self._client, known, parsed.repository)

    async def resolve(self, name: str) -> tuple[str, image.Descriptor]:
        """Return the name and root descriptor; a digest in the name is what the answer must have."""
        try:
            parsed, repository = self._target(name)
            if not (parsed.digest or parsed.tag):
                raise errors.InvalidArgument("object required")
            return name, await repository.resolve(parsed.digest or parsed.tag, parsed.digest)
        except errors.NotFound as error:
            raise errors.NotFound(f"failed to resolve image: {name}") from error
        except errors.PydockError as error:
            error.detail = f"failed to resolve image: {error.detail}"
            raise

    def fetcher(self, name: str) -> remotes.Fetcher:
        """Return a fetcher of the repository of ``name``."""
        return self._target(name)[1]

    def pusher(self, name: str) -> remotes.Pusher:
        """Return a pusher into the repository of ``name``; a manifest pushed last takes its tag."""
        parsed, repository = self._target(name)
        return _Pusher(repository, parsed.tag)


class _Repository:
    """One repository on its hosts, mirrors first."""

    def __init__(self, client: http.Client, known: Sequence[hosts.Host], path: str) -> None:
        self.client, self.hosts, self.path = client, known, path

    def able(self, capability: str) -> Sequence[hosts.Host]:
        found = [host for host in self.hosts if capability in host.capabilities]
        if not found:
            raise errors.NotFound(f"no host of {self.path} is allowed to {capability}")
        return found

    def scope(self, actions: str = "pull") -> str:
        return f"repository:{self.path}:{actions}"

    async def resolve(self, object_: str, wanted: str) -> image.Descriptor:
        """Ask one host after the other; none hides the next, and the most telling of their errors is the one that counts."""
        from pydock_plugins.remotes import http

        worst: errors.PydockError | None = None
        for host in self.able("resolve"):
            for kind in ("manifests", "blobs") if wanted else ("manifests",):
                try:
                    return await self._resolve_at(host, f"/{self.path}/{kind}/{object_}", wanted)
                except errors.PydockError as error:
                    if isinstance(error, http.BadCertificate):
                        raise
                    worst = error if worst is None or _weight(error) > _weight(worst) else worst
                    if not isinstance(error, errors.NotFound):
                        break
        raise worst or errors.NotFound(self.path)

    async def _resolve_at(self, host: hosts.Host, path: str, wanted: str) -> image.Descriptor:
        from pydock_plugins.remotes import http

        asked = http.Request("HEAD", path, self.scope(), {"Accept": _ACCEPT}, accept=frozenset({200, 405}))
        async with self.client.send(host, asked) as answer:
            found = answer.headers.get("Docker-Content-Digest", "") or wanted
            size, media_type = answer.headers.get("Content-Length", ""), _media_type(answer)
            if answer.status == 200 and found and size.isascii() and size.isdecimal() and media_type:
                return _checked(image.Descriptor(media_type, found, int(size)), wanted, path)
        asked = http.Request("GET", path, self.scope(), {"Accept": _ACCEPT})
        async with self.client.send(host, asked) as answer:
            _check_encoding(answer, path)
            data = await http.read_bounded(answer, MANIFEST_LIMIT)
            made = "sha256:" + hashlib.sha256(data).hexdigest()
            said = answer.headers.get("Docker-Content-Digest", made)
            if said.startswith("sha256:") and said != made:
                raise errors.FailedPrecondition(f"{path}: the registry says {said}, its bytes are {made}")
            return _checked(image.Descriptor(_media_type(answer), made, len(data)), wanted, path)

    @asynccontextmanager
    async def open(self, descriptor: image.Descriptor, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the bytes of ``descriptor`` from ``offset`` on; what is not exactly as many as it says is Unavailable or DataLoss."""
        digests.validate(descriptor.digest)
        from pydock_plugins.remotes import http

        worst: errors.PydockError | None = None
        kinds = ("manifests", "blobs") if descriptor.media_type in _MANIFESTS else ("blobs", "manifests")
        for host in self.able("pull"):
            for kind in kinds:
                entered = False
                try:
                    async with self._open_at(host, f"/{self.path}/{kind}/{descriptor.digest}", descriptor, offset) as data:
                        entered = True
                        yield data
                        return
                except errors.PydockError as error:
                    if entered or isinstance(error, http.BadCertificate):
                        raise
                    worst = error if worst is None or _weight(error) > _weight(worst) else worst
                    if not isinstance(error, errors.NotFound):
                        break
        raise worst or errors.NotFound(self.path)

    @asynccontextmanager
    async def _open_at(self, host: hosts.Host, path: str, wanted: image.Descriptor, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        from pydock_plugins.remotes import http

        headers = {"Accept": f"{wanted.media_type}, */*"} | ({"Range": f"bytes={offset}-"} if offset else {})
        request = http.Request("GET", path, self.scope(), headers, accept=frozenset({200, 206}))
        path = f"{host.authority}{path}"
        async with self.client.send(host, request) as answer:
            _check_encoding(answer, path)
            skip = offset
            if answer.status == 206:
                said = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
                if said is None or int(said[1]) != offset or (said[3] != "*" and int(said[3]) != wanted.size):
                    raise errors.DataLoss(f"{path}: asked from byte {offset}, got {answer.headers.get('Content-Range', '')[:80]!r}")
                skip = 0
            elif answer.content_length not in (None, wanted.size):
                raise errors.DataLoss(f"{path}: has {answer.content_length} bytes, its descriptor says {wanted.size}")
            yield _exactly(answer, _Part(path, wanted.size - offset + skip, skip), self.client.bounds)


@dataclass(frozen=True)
class _Part:
    """What is to come: ``length`` bytes of ``path``, of which the first ``skip`` are not wanted."""

    path: str
    length: int
    skip: int


async def _exactly(answer: aiohttp.ClientResponse, part: _Part, bounds: http.Bounds) -> AsyncIterator[bytes]:
    """Yield a part; fewer bytes or too slow ones are Unavailable (worth a resume), more are DataLoss."""
    import aiohttp

    got, pace = 0, _Pace(bounds)
    try:
        while chunk := await pace.next(answer.content):
            start, got = got, got + len(chunk)
            if got > part.length:
                raise errors.DataLoss(f"{part.path}: the registry sends more than {part.length} bytes")
            if got > part.skip:
                yield chunk[part.skip - start :] if start < part.skip else chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        why = "unexpected EOF" if isinstance(error, aiohttp.ClientPayloadError) else str(error)[:200] or f"no byte for {bounds.stall:g} s"
        raise errors.Unavailable(f"{part.path}: broken off after {got} of {part.length} bytes ({why})") from error
    if got < part.length:
        raise errors.Unavailable(f"{part.path}: ended after {got} of {part.length} bytes")


class _Pace:
    """Judges a registry by the time it is waited for, which is not the time its reader takes."""

    def __init__(self, bounds: http.Bounds) -> None:
        self._bounds = bounds
        self._waited, self._got = 0.0, 0

    async def next(self, content: aiohttp.StreamReader) -> bytes:
        """Return some bytes, none at the end.  TimeoutError when there were too few in the time waited."""
        begun = time.monotonic()
        chunk = await content.readany()
        self._waited += time.monotonic() - begun
        self._got += len(chunk)
        if self._waited > self._bounds.window:
            if chunk and self._got < self._bounds.slowest:
                raise TimeoutError(f"only {self._got} bytes in {self._waited:.1f} s")
            self._waited, self._got = 0.0, 0
        return chunk


class _Pusher:
    def __init__(self, repository: _Repository, tag: str) -> None:
        self._repository, self._tag = repository, tag
        self._host = repository.able("push")[0]  # as containerd: a push goes to one host

    def _path(self, descriptor: image.Descriptor) -> str:
        kind = "manifests" if descriptor.media_type in _MANIFESTS else "blobs"
        return f"/{self._repository.path}/{kind}/{descriptor.digest}"

    async def exists(self, descriptor: image.Descriptor) -> bool:
        """Tell whether the registry has it already."""
        from pydock_plugins.remotes import http

        path, scope = self._path(descriptor), self._repository.scope("pull,push")
        asked = http.Request("HEAD", path, scope, {"Accept": _ACCEPT}, accept=frozenset({200, 404}))
        async with self._repository.client.send(self._host, asked) as answer:
            return answer.status == 200

    async def push(self, descriptor: image.Descriptor, data: Callable[[], AsyncIterator[bytes]], root: bool = False) -> None:
        """Upload it; ``root`` puts a manifest under the reference's tag."""
        from pydock_plugins.remotes import http

        headers = {"Content-Length": str(descriptor.size), "Content-Type": descriptor.media_type}
        scope, client = self._repository.scope("pull,push"), self._repository.client
        if descriptor.media_type in _MANIFESTS:
            name = self._tag if root and self._tag else descriptor.digest
            path, url = f"/{self._repository.path}/manifests/{quote(name, safe=':')}", ""
        else:
            headers["Content-Type"] = "application/octet-stream"
            path, url = "", await self._upload_url(descriptor, scope)
        request = http.Request("PUT", path, scope, headers, data, frozenset({200, 201, 202, 204}), url)
        async with client.send(self._host, request) as answer:
            said = answer.headers.get("Docker-Content-Digest", descriptor.digest)
        if said != descriptor.digest:
            raise errors.DataLoss(f"pushed {descriptor.digest}, the registry stored {said[:200]}")

    async def _upload_url(self, descriptor: image.Descriptor, scope: str) -> str:
        """Begin an upload; return where it is to be put, which may be another host (that is then given no credentials)."""
        from pydock_plugins.remotes import auth, http

        start = f"/{self._repository.path}/blobs/uploads/"
        async with self._repository.client.send(self._host, http.Request("POST", start, scope, accept=frozenset({202}))) as answer:
            here, location = str(answer.url), answer.headers.get("Location", "")
        try:
            url = urljoin(here, location).partition("#")[0] if location else ""
        except ValueError:
            url = ""
        auth.check_redirect(here, url)
        return url + ("&" if "?" in url else "?") + urlencode({"digest": descriptor.digest})


def _weight(error: errors.PydockError) -> int:
    """Return how much an error tells: that a host has not what was asked for more than that it is away, all others more than both."""
    return {errors.Unavailable: 0, errors.NotFound: 1}.get(type(error), 2)


def _check_encoding(answer: aiohttp.ClientResponse, path: str) -> None:
    if answer.headers.get("Content-Encoding", "identity") not in ("", "identity"):
        raise errors.DataLoss(f"{path}: sent in an encoding nobody asked for")


def _media_type(answer: aiohttp.ClientResponse) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()


def _checked(descriptor: image.Descriptor, wanted: str, path: str) -> image.Descriptor:
    digests.validate(descriptor.digest)
    if wanted and descriptor.digest != wanted:
        raise errors.FailedPrecondition(f"{path}: asked for {wanted}, the registry answers {descriptor.digest}")
    if descriptor.size > MANIFEST_LIMIT and descriptor.media_type in _MANIFESTS:
        raise errors.ResourceExhausted(f"{path}: manifest of {descriptor.size} bytes, the limit is {MANIFEST_LIMIT}")
    return descriptor


@dataclass(frozen=True)
class RemotesConfig(plugin.Config):
    """Defaults for every registry."""

    config_path: str = plugin.option("", "directory of <registry>/hosts.toml files, as containerd's config_path")
    stall_seconds: float = plugin.option(30.0, "seconds without a byte after which a registry is given up")
    slow_window_seconds: float = plugin.option(30.0, "seconds of waiting over which a registry's speed is judged")
    slowest_bytes: int = plugin.option(64 << 10, "bytes a registry must send in that time")
    request_tries: int = plugin.option(4, "tries of a request that a registry answers with 429 or 5xx")


@plugin.plugin("io.pydock.remotes.v1", "registry")
async def registry(cfg: RemotesConfig) -> AsyncIterator[remotes.Remotes]:
    """Offer registries over HTTP."""
    yield RegistryRemotes(cfg)
