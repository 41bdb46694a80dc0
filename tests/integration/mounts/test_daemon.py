"""The Mounts service of a real daemon: sets outlive it, however it ends, and leave nothing behind."""

from __future__ import annotations

import os
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from pydock._proto.containerd.services.mounts.v1 import mounts_pb2 as pb
from pydock._proto.containerd.types import mount_pb2
from pydock.testing import daemon as harness
from pydock.testing import leakcheck

pytestmark = pytest.mark.root

SERVICE = pb.DESCRIPTOR.services_by_name["Mounts"]
TMPFS = mount_pb2.Mount(type="tmpfs", source="tmpfs", options=["size=1m"])


def call(daemon: harness.Daemon, name: str, request: Any) -> Any:
    """Call a method on a connection of its own; the answers of a stream as a list."""
    method = SERVICE.methods_by_name[name]
    answer = message_factory.GetMessageClass(method.output_type).FromString
    with grpc.insecure_channel(f"unix:{daemon.address}") as channel:
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        found = make(f"/{SERVICE.full_name}/{name}", type(request).SerializeToString, answer)(
            request, metadata=[("containerd-namespace", "ns")], timeout=20
        )
        return list(found) if method.server_streaming else found


def test_a_set_outlives_the_daemon_and_is_undone_by_the_next(daemon: harness.Daemon) -> None:
    with leakcheck.unchanged(daemon):
        info = call(daemon, "Activate", pb.ActivateRequest(name="one", mounts=[TMPFS], temporary=True)).info
        point = info.active[0].mount_point
        assert os.path.ismount(point)
        for end in (daemon.stop, daemon.kill9):
            end()
            daemon.start()
            assert [message.info for message in call(daemon, "List", pb.ListRequest())] == [info]
            assert os.path.ismount(point)
        call(daemon, "Deactivate", pb.DeactivateRequest(name="one"))
        assert not os.path.exists(point)


def test_refusals_have_their_codes(daemon: harness.Daemon) -> None:
    with leakcheck.unchanged(daemon):
        for name, request, code in (
            ("Info", pb.InfoRequest(name="x"), grpc.StatusCode.NOT_FOUND),
            ("Deactivate", pb.DeactivateRequest(name="x"), grpc.StatusCode.NOT_FOUND),
            ("Activate", pb.ActivateRequest(name="x", mounts=[TMPFS]), grpc.StatusCode.UNIMPLEMENTED),
            ("Activate", pb.ActivateRequest(mounts=[TMPFS], temporary=True), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call(daemon, name, request)
            assert refused.value.code() is code  # type: ignore[attr-defined]
