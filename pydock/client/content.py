"""Content: blobs by digest, and writes under way.

Invariant: `read` never returns more than it was told to, whatever the daemon sends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from google.protobuf import empty_pb2, field_mask_pb2

from pydock._proto.containerd.services.content.v1 import content_pb2 as api
from pydock.base import errors
from pydock.client.connection import Connection

_SERVICE = "/containerd.services.content.v1.Content"
CHUNK = 1 << 20
LARGEST_DOCUMENT = 16 << 20

Info = api.Info
Status = api.Status


def info(conn: Connection, digest: str) -> Info:
    """Return size, times and labels of a blob. Raises NotFound."""
    return conn.unary(f"{_SERVICE}/Info", api.InfoRequest(digest=digest), api.InfoResponse).info


def listing(conn: Connection, filters: Sequence[str] = ()) -> Iterator[Info]:
    """Yield the blobs that match any filter."""
    for answer in conn.read(f"{_SERVICE}/List", api.ListContentRequest(filters=filters), api.ListContentResponse):
        yield from answer.info


def label(conn: Connection, digest: str, labels: Mapping[str, str]) -> Info:
    """Set the given labels and leave the others; an empty value removes its label. Raises NotFound."""
    mask = field_mask_pb2.FieldMask(paths=[f"labels.{key}" for key in labels])
    request = api.UpdateRequest(info=Info(digest=digest, labels=labels), update_mask=mask)
    return conn.unary(f"{_SERVICE}/Update", request, api.UpdateResponse).info


def delete(conn: Connection, digest: str) -> None:
    """Remove a blob from the namespace. Raises NotFound."""
    conn.unary(f"{_SERVICE}/Delete", api.DeleteContentRequest(digest=digest), empty_pb2.Empty)


def chunks(conn: Connection, digest: str) -> Iterator[bytes]:
    """Yield the bytes of a blob. Raises NotFound."""
    for answer in conn.read(f"{_SERVICE}/Read", api.ReadContentRequest(digest=digest), api.ReadContentResponse):
        yield answer.data


def read(conn: Connection, digest: str, *, most: int = LARGEST_DOCUMENT) -> bytes:
    """Return a whole small blob (manifest, config). Raises NotFound, ResourceExhausted above ``most`` bytes."""
    data = bytearray()
    for chunk in chunks(conn, digest):
        data += chunk
        if len(data) > most:
            raise errors.ResourceExhausted(f"{digest} has more than {most} bytes")
    return bytes(data)


def statuses(conn: Connection, filters: Sequence[str] = ()) -> Sequence[Status]:
    """Return the writes under way."""
    return conn.unary(f"{_SERVICE}/ListStatuses", api.ListStatusesRequest(filters=filters), api.ListStatusesResponse).statuses


def abort(conn: Connection, ref: str) -> None:
    """Drop a write under way. Raises NotFound."""
    conn.unary(f"{_SERVICE}/Abort", api.AbortRequest(ref=ref), empty_pb2.Empty)


def ingest(conn: Connection, ref: str, source: BinaryIO, *, size: int = 0, digest: str = "") -> str:
    """Write all of ``source`` under ``ref`` and commit it; return its digest.

    Raises AlreadyExists, FailedPrecondition when size or digest are not those expected (0 and "" expect nothing).
    """
    hasher = hashlib.sha256()
    talk = conn.converse(f"{_SERVICE}/Write", _writes(ref, source, size, digest, hasher), api.WriteContentResponse)
    for answer in talk:
        if answer.action == api.COMMIT:
            return answer.digest or digest or f"sha256:{hasher.hexdigest()}"
    raise errors.Unknown(f"the write of {ref!r} ended without a commit")


def _writes(ref: str, source: BinaryIO, size: int, digest: str, hasher: hashlib._Hash) -> Iterable[api.WriteContentRequest]:
    offset = 0
    yield api.WriteContentRequest(action=api.STAT, ref=ref, total=size, expected=digest)
    while data := source.read(CHUNK):
        hasher.update(data)
        yield api.WriteContentRequest(action=api.WRITE, ref=ref, offset=offset, data=data)
        offset += len(data)
    expected = digest or f"sha256:{hasher.hexdigest()}"
    yield api.WriteContentRequest(action=api.COMMIT, ref=ref, offset=offset, total=size or offset, expected=expected)
