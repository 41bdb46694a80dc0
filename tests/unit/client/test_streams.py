"""Byte pipes over a real Streaming service that echoes, grants little, and counts."""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, empty_pb2

from pydock._proto.containerd.types.transfer import streaming_pb2 as wire
from pydock.client import anys, connection, streams

STEP = 1000


class Peer(grpc.GenericRpcHandler):
    """One stream at a time: takes bytes in windows of `STEP`, or with an id that begins "out" sends `data` as it is granted."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = threading.Event()
        self.most = 0

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(self.stream, any_pb2.Any.FromString, any_pb2.Any.SerializeToString)

    def stream(self, requests: Iterator[any_pb2.Any], context: grpc.ServicerContext) -> Iterator[any_pb2.Any]:
        first = next(requests)
        yield anys.pack(empty_pb2.Empty())
        if b"out" in first.value:
            yield from self.sending(requests)
            return
        yield anys.pack(wire.WindowUpdate(update=STEP))
        for request in requests:
            piece = wire.Data.FromString(request.value).data
            self.most = max(self.most, len(piece))
            self.data += piece
            yield anys.pack(wire.WindowUpdate(update=len(piece)))
        self.ended.set()

    def sending(self, requests: Iterator[any_pb2.Any]) -> Iterator[any_pb2.Any]:
        left = bytes(self.data)
        while left:
            granted = wire.WindowUpdate.FromString(next(requests).value).update
            while granted and left:
                piece, left = left[:STEP], left[STEP:]
                granted -= min(granted, len(piece))
                yield anys.pack(wire.Data(data=piece))


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def conn(peer: Peer, tmp_path: Path) -> Iterator[connection.Connection]:
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[peer])
    server.add_insecure_port(f"unix:{tmp_path}/s")
    server.start()
    with connection.connect(f"{tmp_path}/s", "ns") as opened:
        yield opened
    server.stop(None).wait()


def test_bytes_are_sent_within_the_window_and_end(conn: connection.Connection, peer: Peer) -> None:
    sent = bytes(range(256)) * 40
    with streams.opened(conn, "in") as stream:
        streams.send_bytes(stream, io.BytesIO(sent))
        assert peer.ended.wait(10)
    assert bytes(peer.data) == sent
    assert peer.most <= STEP


def test_bytes_are_received_to_their_end_through_many_windows(conn: connection.Connection, peer: Peer) -> None:
    peer.data += b"x" * (3 * streams.WINDOW + 5)
    sink = io.BytesIO()
    with streams.opened(conn, "out") as stream:
        assert streams.receive_bytes(stream, sink) == len(peer.data)
    assert sink.getvalue() == bytes(peer.data)


def test_a_full_disk_ends_the_stream_and_is_told(conn: connection.Connection, peer: Peer) -> None:
    peer.data += b"x" * 100

    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    with streams.opened(conn, "out") as stream:
        worker = streams.Worker(lambda: streams.receive_bytes(stream, Full()), "drain")
        worker.start()
        with pytest.raises(OSError, match="No space left"):
            worker.finish(10)


def test_ids_are_never_the_same(conn: connection.Connection) -> None:
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()
    for _ in range(3):
        with streams.opened(conn, "in") as stream:
            seen.put(stream.id)
    assert len({seen.get() for _ in range(3)}) == 3
