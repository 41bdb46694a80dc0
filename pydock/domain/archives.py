"""Image archives: OCI layouts and docker-save tars, read from and written to a stream without a temporary copy.

An archive is hostile: only header fields are read by the tar library, nothing is ever extracted, documents are bounded, blobs are checked
against the digest of their name, names of entries are keys and never paths.
Sources: OCI image-layout.md; Docker's image tar format (manifest.json); POSIX pax.
"""

from __future__ import annotations

import itertools
import json
import secrets
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydock.base import digest as digests
from pydock.base import errors, groups, reference
from pydock.core import content, transfer
from pydock.domain import inflating, manifests
from pydock.oci import image

NAME_ANNOTATION = "io.containerd.image.name"
REF_ANNOTATION = "org.opencontainers.image.ref.name"
ENTRIES = 100_000
_BLOCK = 512
_CHUNK = 1 << 20
_EXTENSION_LIMIT = 1 << 20
_LARGEST = 1 << 50
_BARE = frozenset({tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE})
_DOCUMENTS = frozenset({"index.json", "oci-layout", "manifest.json", "repositories"})
_MAGIC = ((b"\x1f\x8b", image.DOCKER_LAYER_GZIP), (b"\x28\xb5\x2f\xfd", image.LAYER_ZSTD))


class _Tape:
    """Bytes of a stream by count; a stream that ends inside what is asked for is InvalidArgument."""

    def __init__(self, data: AsyncIterator[bytes]) -> None:
        self._data, self._held = data, bytearray()

    async def some(self, most: int) -> bytes:
        while not self._held:
            try:
                self._held += await anext(self._data)
            except StopAsyncIteration:
                return b""
        out = bytes(self._held[:most])
        del self._held[: len(out)]
        return out

    async def exactly(self, size: int) -> bytes:
        out = bytearray()
        while len(out) < size:
            part = await self.some(size - len(out))
            if not part:
                raise errors.InvalidArgument("archive ends in the middle of an entry")
            out += part
        return bytes(out)

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        while size:
            part = await self.some(min(size, _CHUNK))
            if not part:
                raise errors.InvalidArgument("archive ends in the middle of an entry")
            size -= len(part)
            yield part


@dataclass
class _Loaded:
    """What an archive held: documents by name, blobs by name, links by name."""

    documents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, image.Descriptor] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Entry:
    """One entry: ``name`` is a clean key; ``link`` is as it stands in the archive."""

    kind: bytes
    name: str
    size: int
    link: str = ""


@dataclass(frozen=True)
class Archived:
    """The images of an archive, named by `NAME_ANNOTATION` (or only `REF_ANNOTATION`), and the document that lists them."""

    images: Sequence[image.Descriptor]
    index: bytes


class Importer:
    """Reads one archive into namespace ``ns`` under ``lease``."""

    def __init__(self, store: content.Store, ns: str, lease: str) -> None:
        self._store, self._ns, self._lease = store, ns, lease
        self._refs = (f"import-{secrets.token_hex(8)}-{number}" for number in itertools.count(1))

    async def load(self, data: AsyncIterator[bytes]) -> Archived:
        """Store all blobs; returns the images found."""
        loaded = await self._read(_Tape(inflating.inflated(data)))
        if "index.json" in loaded.documents and ("oci-layout" in loaded.documents or "manifest.json" not in loaded.documents):
            return Archived(self._layout(loaded), loaded.documents["index.json"])
        if "manifest.json" in loaded.documents:
            found = await self._docker(loaded)
            rows = [manifests.to_json(item) for item in found]
            return Archived(found, _json({"schemaVersion": 2, "mediaType": image.INDEX, "manifests": rows}))
        raise errors.InvalidArgument("unrecognized image format: neither index.json nor manifest.json in the archive")

    async def _read(self, tape: _Tape) -> _Loaded:
        loaded, extension = _Loaded(), dict[str, str]()
        for _ in range(ENTRIES):
            block = await tape.some(_BLOCK)
            if block:
                block += await tape.exactly(_BLOCK - len(block))
            if not block.strip(b"\0"):
                while await tape.some(_CHUNK):  # the sender must not find its pipe closed
                    pass
                return loaded
            try:
                head = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.HeaderError, ValueError) as error:
                raise errors.InvalidArgument(f"not a tar archive: {error}") from error
            entry = _entry(head, extension)
            if head.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                extension |= _extension(head.type, await self._small(tape, _Entry(head.type, head.name, head.size), _EXTENSION_LIMIT))
                continue
            await self._take(tape, entry, loaded)
            extension = {}
        raise errors.ResourceExhausted(f"archive with more than {ENTRIES} entries")

    async def _small(self, tape: _Tape, entry: _Entry, limit: int) -> bytes:
        if not 0 <= entry.size <= limit:
            raise errors.ResourceExhausted(f"archive entry {entry.name[:200]!r}: {entry.size} bytes, the limit is {limit}")
        data = await tape.exactly(entry.size)
        await tape.exactly(-entry.size % _BLOCK)
        return data

    async def _take(self, tape: _Tape, entry: _Entry, loaded: _Loaded) -> None:
        if entry.kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            base = entry.name.rpartition("/")[0] + "/" if entry.kind == tarfile.SYMTYPE else ""
            loaded.links[entry.name] = _clean(base + entry.link)
        elif entry.kind in _BARE:
            return
        elif entry.kind not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
            async for _ in tape.pieces(entry.size + -entry.size % _BLOCK):
                pass
        elif entry.name in _DOCUMENTS:
            loaded.documents[entry.name] = await self._small(tape, entry, manifests.LIMIT)
        else:
            loaded.blobs[entry.name] = await self._blob(tape, entry)
            await tape.exactly(-entry.size % _BLOCK)

    async def _blob(self, tape: _Tape, entry: _Entry) -> image.Descriptor:
        """Store one entry; the media type is found from its first bytes."""
        folders, size, ref, kind = entry.name.split("/"), entry.size, next(self._refs), image.DOCKER_LAYER
        expected = digests.validate(":".join(folders[1:])) if folders[0] == "blobs" and len(folders) == 3 else ""
        try:
            writer = await self._store.writer(self._ns, ref, size, expected, self._lease)
        except errors.AlreadyExists:
            async for _ in tape.pieces(size):
                pass
            return image.Descriptor(kind, expected, size)
        digest = ""
        try:
            await writer.truncate(0)
            async for piece in tape.pieces(size):
                if writer.status().offset == 0:
                    kind = next((found for magic, found in _MAGIC if piece.startswith(magic)), kind)
                await writer.write(piece)
            found = expected or await writer.digest()
            digest = await _commit(writer, image.Descriptor(kind, found, size))
        finally:
            await writer.close()
            if not digest:
                await groups.finish(self._drop(ref))
        return image.Descriptor(kind, digest, size)

    async def _drop(self, ref: str) -> None:
        try:
            await self._store.abort(self._ns, ref)
        except errors.NotFound:
            return

    # --- what the documents say

    def _layout(self, loaded: _Loaded) -> Sequence[image.Descriptor]:
        data = loaded.documents["index.json"]
        parsed = manifests.parse(image.Descriptor(image.INDEX, "index.json", len(data)), data)
        if not isinstance(parsed, manifests.Index):
            raise errors.InvalidArgument("index.json is not an index")
        return parsed.manifests

    async def _docker(self, loaded: _Loaded) -> Sequence[image.Descriptor]:
        rows = manifests.load("manifest.json", loaded.documents["manifest.json"])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise errors.InvalidArgument("manifest.json is not a list of images")
        return [item for row in rows for item in await self._docker_image(loaded, row)]

    async def _docker_image(self, loaded: _Loaded, row: Mapping[str, Any]) -> Sequence[image.Descriptor]:
        config = replace(_find(loaded, row.get("Config")), media_type=image.DOCKER_CONFIG)
        listed, tags = row.get("Layers") or [], row.get("RepoTags") or []
        if not isinstance(listed, list) or not isinstance(tags, list) or len(listed) > manifests.LAYERS:
            raise errors.InvalidArgument("manifest.json: Layers and RepoTags must be lists")
        layers = [_find(loaded, name) for name in listed]
        document = {
            "schemaVersion": 2,
            "mediaType": image.DOCKER_MANIFEST,
            "config": manifests.to_json(config),
            "layers": [manifests.to_json(layer) for layer in layers],
        }
        made = await self.put(image.DOCKER_MANIFEST, _json(document))
        names = [str(reference.normalize(tag)) for tag in tags if isinstance(tag, str)]
        return [replace(made, annotations={NAME_ANNOTATION: name}) for name in names] or [made]

    async def put(self, media_type: str, data: bytes) -> image.Descriptor:
        """Store a document of ours."""
        made, ref = image.Descriptor(media_type, digests.compute(data), len(data)), next(self._refs)
        try:
            writer = await self._store.writer(self._ns, ref, made.size, made.digest, self._lease)
        except errors.AlreadyExists:
            return made
        done = ""
        try:
            await writer.truncate(0)
            await writer.write(data)
            done = await _commit(writer, made)
        finally:
            await writer.close()
            if not done:
                await groups.finish(self._drop(ref))
        return made


async def _commit(writer: content.Writer, wanted: image.Descriptor) -> str:
    """Commit, or find that somebody else just did."""
    try:
        return await writer.commit(wanted.size, wanted.digest, {})
    except errors.AlreadyExists:
        return wanted.digest


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _find(loaded: _Loaded, name: object) -> image.Descriptor:
    for _ in range(8):
        if not isinstance(name, str):
            break
        if (found := loaded.blobs.get(_clean(name))) is not None:
            return found
        name = loaded.links.get(_clean(name))
    raise errors.InvalidArgument(f"manifest.json names {name!r}, which the archive does not hold")


def _clean(name: str) -> str:
    """Return a name without "." and ".." (names are keys here, never paths)."""
    out: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del out[-1:]
        elif part not in ("", "."):
            out.append(part)
    return "/".join(out)


def _entry(head: tarfile.TarInfo, extension: Mapping[str, str]) -> _Entry:
    """Return an entry by its header and what extensions said before it.  InvalidArgument for a size that is none and for sparse files."""
    said = extension.get("size", str(head.size))
    size = int(said) if said.isascii() and said.isdecimal() and len(said) < 20 else -1
    name = _clean(extension.get("path", head.name))
    if not 0 <= size <= _LARGEST:
        raise errors.InvalidArgument(f"archive entry {name[:200]!r} has no valid size: {said[:30]}")
    if head.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in extension):
        raise errors.InvalidArgument(f"archive entry {name[:200]!r} is a sparse file")
    return _Entry(head.type, name, size, extension.get("linkpath", head.linkname))


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    """Return what a GNU or PAX extension header says of the entry behind it, by PAX keyword."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(data.rstrip(b"\0"))}
    if kind == tarfile.GNUTYPE_LONGLINK:
        return {"linkpath": _text(data.rstrip(b"\0"))}
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        length, _, _ = data[at : at + 9].partition(b" ")
        end = at + int(length) if length.isdigit() and len(length) < 9 else 0
        if not at + len(length) + 1 < end <= len(data) or data[end - 1 : end] != b"\n":
            raise errors.InvalidArgument("archive with a malformed PAX header")
        key, _, value = _text(data[at + len(length) + 1 : end - 1]).partition("=")
        found[key] = value
        at = end
    return {} if kind == tarfile.XGLTYPE else found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


class Exporter:
    """Writes an OCI layout with Docker's manifest.json beside it; the same images give the same bytes."""

    def __init__(self, store: content.Store, ns: str, sink: transfer.ByteSink) -> None:
        self._store, self._ns, self._sink = store, ns, sink

    async def begin(self) -> None:
        """Write the directories."""
        for name in ("blobs/", "blobs/sha256/"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            await self._sink.write(entry.tobuf(tarfile.PAX_FORMAT))

    async def blob(self, wanted: image.Descriptor) -> None:
        """Write one blob."""
        reader = await self._store.open(self._ns, wanted.digest)
        try:
            await self._head("blobs/" + wanted.digest.replace(":", "/"), reader.size)
            for offset in range(0, reader.size, _CHUNK):
                await self._sink.write(await reader.read_at(offset, _CHUNK))
            await self._pad(reader.size)
        finally:
            await reader.close()

    async def document(self, name: str, value: Any) -> None:
        """Write a JSON document."""
        data = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
        await self._head(name, len(data))
        await self._sink.write(data)
        await self._pad(len(data))

    async def end(self) -> None:
        """Write the end of the archive."""
        await self._sink.write(bytes(2 * _BLOCK))
        await self._sink.close()

    async def _head(self, name: str, size: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, 0o444
        await self._sink.write(entry.tobuf(tarfile.PAX_FORMAT))

    async def _pad(self, size: int) -> None:
        if size % _BLOCK:
            await self._sink.write(bytes(-size % _BLOCK))
