"""Calls over a real channel, to a real server that answers as told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, empty_pb2

from pydock.base import errors
from pydock.client import connection


class Server(grpc.GenericRpcHandler):
    """Answers every call: "/fail/CODE/text" with that status, "/meta" with what metadata came, "/many" with three answers."""

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        path, metadata = handler_call_details.method, dict(handler_call_details.invocation_metadata)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if path.startswith("/fail/"):
                _, _, code, text = path.split("/", 3)
                context.abort(grpc.StatusCode[code], text)
            pairs = {key: metadata.get(key, "") for key in (connection.NAMESPACE_HEADER, connection.LEASE_HEADER)}
            return any_pb2.Any(type_url=str(pairs)).SerializeToString()

        def many(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            yield from (any_pb2.Any(type_url=str(number)).SerializeToString() for number in range(3))

        return grpc.unary_stream_rpc_method_handler(many) if path == "/many" else grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Server()])
    server.add_insecure_port(f"unix:{tmp_path}/s")
    server.start()
    yield f"{tmp_path}/s"
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("code", "text", "kind", "shown"),
    [
        ("NOT_FOUND", 'image "x": not found', errors.NotFound, 'image "x": not found'),
        ("ALREADY_EXISTS", "already exists", errors.AlreadyExists, "already exists"),
        ("FAILED_PRECONDITION", "busy", errors.FailedPrecondition, "busy: failed precondition"),
        ("UNKNOWN", "runc: oh", errors.Unknown, "runc: oh: unknown"),
        ("UNAUTHENTICATED", "who", errors.Unauthenticated, "who: unauthenticated"),
        ("DATA_LOSS", "gone", errors.DataLoss, "gone: data loss"),
    ],
)
def test_a_failed_call_raises_the_error_of_its_status_in_the_daemons_words(
    socket: str, code: str, text: str, kind: type[errors.PydockError], shown: str
) -> None:
    with connection.connect(socket, "ns") as conn, pytest.raises(kind) as caught:
        conn.unary(f"/fail/{code}/{text}", empty_pb2.Empty(), any_pb2.Any)
    assert str(caught.value) == shown


def test_namespace_and_lease_go_with_every_call(socket: str) -> None:
    with connection.connect(f"unix://{socket}", "ns") as conn:
        assert "'containerd-namespace': 'ns', 'containerd-lease': ''" in conn.unary("/meta", empty_pb2.Empty(), any_pb2.Any).type_url
        assert "'containerd-lease': 'l'" in conn.leased("l").begin("/meta", empty_pb2.Empty(), any_pb2.Any).result().type_url


def test_many_answers_may_be_left_early(socket: str) -> None:
    with connection.connect(socket, "ns") as conn:
        assert [each.type_url for each in conn.read("/many", empty_pb2.Empty(), any_pb2.Any)] == ["0", "1", "2"]
        assert next(conn.read("/many", empty_pb2.Empty(), any_pb2.Any)).type_url == "0"


def test_a_deadline_that_has_passed_stops_calls_before_they_begin(socket: str) -> None:
    with connection.connect(socket, "ns") as conn, pytest.raises(errors.DeadlineExceeded):
        conn.within(0).unary("/meta", empty_pb2.Empty(), any_pb2.Any)


def test_without_a_socket_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match="cannot access socket"), connection.connect(f"{tmp_path}/none", "ns"):
        pass
