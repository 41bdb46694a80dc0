"""Packed messages as containerd's clients write and read them."""

from __future__ import annotations

from google.protobuf import any_pb2

from pydock._proto.containerd.events import task_pb2
from pydock._proto.containerd.runc.v1 import options_pb2
from pydock.client import anys


def test_a_type_url_is_the_bare_name() -> None:
    assert anys.pack(task_pb2.TaskExit()).type_url == "containerd.events.TaskExit"


def test_a_message_is_unpacked_by_name_with_or_without_a_host() -> None:
    packed = anys.pack(task_pb2.TaskExit(pid=7))
    packed.type_url = f"type.googleapis.com/{packed.type_url}"
    found = anys.unpack(packed, task_pb2.TaskExit)
    assert found is not None
    assert found.pid == 7
    assert anys.unpack(packed, task_pb2.TaskStart) is None


def test_a_known_message_becomes_plain_data_with_what_is_packed_in_it() -> None:
    event = task_pb2.TaskExit(container_id="c", exit_status=3)
    event.exited_at.FromNanoseconds(1_500_000_000)
    assert anys.plain(anys.pack(event)) == {"container_id": "c", "exit_status": 3, "exited_at": "1970-01-01T00:00:01.5Z"}


def test_runtime_options_are_known() -> None:
    assert anys.plain(anys.pack(options_pb2.Options(binary_name="crun"))) == {"binary_name": "crun"}


def test_json_documents_are_read() -> None:
    assert anys.plain(anys.pack_json(anys.SPEC, {"a": [1]})) == {"a": [1]}


def test_what_is_unknown_or_broken_is_named_and_not_read() -> None:
    assert anys.plain(any_pb2.Any(type_url="a.b.C", value=b"123")) == {"type_url": "a.b.C", "size": 3}
    assert anys.plain(any_pb2.Any(type_url=anys.SPEC, value=b"{")) == {"type_url": anys.SPEC, "size": 1}
    assert anys.plain(any_pb2.Any(type_url="containerd.events.TaskExit", value=b"\xff\xff")) == {
        "type_url": "containerd.events.TaskExit", "size": 2,
    }  # fmt: skip
    assert anys.plain(any_pb2.Any()) is None
