"""Snapshots of one snapshotter, named in every call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf import empty_pb2, field_mask_pb2

from pydock._proto.containerd.services.snapshots.v1 import snapshots_pb2 as api
from pydock._proto.containerd.types import mount_pb2
from pydock.base import errors
from pydock.client import namespaces
from pydock.client.connection import Connection

_SERVICE = "/containerd.services.snapshots.v1.Snapshots"
DEFAULT = "overlayfs"
ROOT_LABEL = "containerd.io/gc.root"
DEFAULT_LABEL = "containerd.io/defaults/snapshotter"
KINDS = {api.UNKNOWN: "Unknown", api.VIEW: "View", api.ACTIVE: "Active", api.COMMITTED: "Committed"}

Info = api.Info
Mount = mount_pb2.Mount


def choose(conn: Connection, wanted: str) -> str:
    """Return ``wanted``, else the namespace's default snapshotter, else the daemon's."""
    if wanted:
        return wanted
    try:
        return namespaces.get(conn, conn.namespace).labels.get(DEFAULT_LABEL, "") or DEFAULT
    except errors.NotFound:
        return DEFAULT


def prepare(conn: Connection, snapshotter: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
    """Make a writable snapshot on ``parent``; return how to mount it. Raises AlreadyExists, NotFound."""
    request = api.PrepareSnapshotRequest(snapshotter=snapshotter, key=key, parent=parent, labels=labels or {})
    return conn.unary(f"{_SERVICE}/Prepare", request, api.PrepareSnapshotResponse).mounts


def view(conn: Connection, snapshotter: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> Sequence[Mount]:
    """Make a read-only snapshot on ``parent``; return how to mount it. Raises AlreadyExists, NotFound."""
    request = api.ViewSnapshotRequest(snapshotter=snapshotter, key=key, parent=parent, labels=labels or {})
    return conn.unary(f"{_SERVICE}/View", request, api.ViewSnapshotResponse).mounts


def mounts(conn: Connection, snapshotter: str, key: str) -> Sequence[Mount]:
    """Return how to mount an active snapshot or a view. Raises NotFound."""
    return conn.unary(f"{_SERVICE}/Mounts", api.MountsRequest(snapshotter=snapshotter, key=key), api.MountsResponse).mounts


def commit(conn: Connection, snapshotter: str, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
    """Turn the active snapshot ``key`` into the committed one ``name``. Raises NotFound, AlreadyExists."""
    request = api.CommitSnapshotRequest(snapshotter=snapshotter, name=name, key=key, labels=labels or {})
    conn.unary(f"{_SERVICE}/Commit", request, empty_pb2.Empty)


def remove(conn: Connection, snapshotter: str, key: str) -> None:
    """Remove a snapshot nothing is built on. Raises NotFound, FailedPrecondition."""
    conn.unary(f"{_SERVICE}/Remove", api.RemoveSnapshotRequest(snapshotter=snapshotter, key=key), empty_pb2.Empty)


def stat(conn: Connection, snapshotter: str, key: str) -> Info:
    """Return kind, parent, times and labels. Raises NotFound."""
    return conn.unary(f"{_SERVICE}/Stat", api.StatSnapshotRequest(snapshotter=snapshotter, key=key), api.StatSnapshotResponse).info


def label(conn: Connection, snapshotter: str, key: str, labels: Mapping[str, str]) -> Info:
    """Set the given labels and leave the others; an empty value removes its label. Raises NotFound."""
    mask = field_mask_pb2.FieldMask(paths=[f"labels.{name}" for name in labels])
    request = api.UpdateSnapshotRequest(snapshotter=snapshotter, info=Info(name=key, labels=labels), update_mask=mask)
    return conn.unary(f"{_SERVICE}/Update", request, api.UpdateSnapshotResponse).info


def listing(conn: Connection, snapshotter: str, filters: Sequence[str] = ()) -> Iterator[Info]:
    """Yield the snapshots that match any filter."""
    request = api.ListSnapshotsRequest(snapshotter=snapshotter, filters=filters)
    for answer in conn.read(f"{_SERVICE}/List", request, api.ListSnapshotsResponse):
        yield from answer.info


def usage(conn: Connection, snapshotter: str, key: str) -> tuple[int, int]:
    """Return (bytes, inodes) of one snapshot without its parents. Raises NotFound."""
    answer = conn.unary(f"{_SERVICE}/Usage", api.UsageRequest(snapshotter=snapshotter, key=key), api.UsageResponse)
    return answer.size, answer.inodes
