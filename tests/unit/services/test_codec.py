"""Messages to core values and back."""

from __future__ import annotations

import pytest
from google.protobuf import any_pb2, timestamp_pb2

from pydock._proto.containerd.services.containers.v1 import containers_pb2
from pydock._proto.containerd.services.content.v1 import content_pb2
from pydock._proto.containerd.services.images.v1 import images_pb2
from pydock._proto.containerd.services.snapshots.v1 import snapshots_pb2
from pydock._proto.containerd.types import mount_pb2
from pydock._proto.containerd.types.transfer import imagestore_pb2
from pydock.base import errors
from pydock.core import containers, content, images, mounts, snapshots, transfer
from pydock.oci import image
from pydock.services import codec


def test_a_value_survives_the_way_there_and_back() -> None:
    info = content.Info("sha256:ab", 7, 1_700_000_000_123_456_789, 2_000_000_000, {"a": "b"})
    assert codec.decode(content.Info, codec.encode(content_pb2.Info, info)) == info


def test_nested_messages_become_nested_dataclasses() -> None:
    item = images.Image("docker.io/library/busybox:1", image.Descriptor("m", "sha256:ab", 3, {"k": "v"}))
    assert codec.decode(images.Image, codec.encode(images_pb2.Image, item)) == item


def test_a_missing_nested_message_that_must_be_there_is_empty() -> None:
    assert codec.decode(images.Image, images_pb2.Image(name="x")).target == image.Descriptor("", "", 0)


def test_repeated_messages_become_tuples_of_dataclasses() -> None:
    message = imagestore_pb2.ImageStore(name="n")
    message.unpacks.add(snapshotter="overlayfs").platform.os = "linux"
    message.unpacks.add(snapshotter="native")
    unpacks = codec.decode(transfer.Store, message).unpacks
    assert unpacks == (transfer.Unpack(image.Platform("linux", ""), "overlayfs"), transfer.Unpack(None, "native"))


def test_enums_become_their_class() -> None:
    kind = codec.decode(snapshots.Info, snapshots_pb2.Info(name="n", kind=snapshots_pb2.COMMITTED)).kind
    assert kind is snapshots.Kind.COMMITTED


def test_a_mount_keeps_the_order_of_its_options() -> None:
    mount = mounts.Mount("overlay", "overlay", "", ("index=off", "lowerdir=/a:/b"))
    assert codec.decode(mounts.Mount, codec.encode(mount_pb2.Mount, mount)) == mount


def test_maps_of_any_are_kept_byte_for_byte() -> None:
    item = containers.Container("c", extensions={"x": containers.Any("odd/url", b"\xff\x00")})
    message = codec.encode(containers_pb2.Container, item, skip=frozenset({"runtime"}))
    assert message.extensions["x"] == any_pb2.Any(type_url="odd/url", value=b"\xff\x00")
    assert codec.decode(containers.Container, message, runtime="") == item


@pytest.mark.parametrize(
    ("stamp", "ns"),
    [
        (timestamp_pb2.Timestamp(), 0),
        (timestamp_pb2.Timestamp(seconds=-62135596800), 0),
        (timestamp_pb2.Timestamp(seconds=1, nanos=5), 1_000_000_005),
        (timestamp_pb2.Timestamp(nanos=5), 5),
    ],
)
def test_times_are_nanoseconds_and_the_zero_time_of_go_is_none(stamp: timestamp_pb2.Timestamp, ns: int) -> None:
    assert codec.time_of(stamp) == ns


def test_no_time_is_not_sent() -> None:
    assert not codec.encode(content_pb2.Info, content.Info("sha256:ab", 1)).HasField("created_at")
    assert codec.stamp(0) is None


def test_packing_writes_the_bare_name_and_parsing_takes_it_with_a_prefix_too() -> None:
    packed = codec.pack(content_pb2.InfoRequest(digest="d"))
    assert packed.type_url == "containerd.services.content.v1.InfoRequest"
    prefixed = containers.Any("type.googleapis.com/" + packed.type_url, packed.value)
    assert codec.parse(content_pb2.InfoRequest, prefixed).digest == "d"


@pytest.mark.parametrize(
    "value", [containers.Any("other.Type", b""), containers.Any("containerd.services.content.v1.InfoRequest", b"\xff")]
)
def test_parsing_what_is_not_there_is_an_invalid_argument(value: containers.Any) -> None:
    with pytest.raises(errors.InvalidArgument):
        codec.parse(content_pb2.InfoRequest, value)
