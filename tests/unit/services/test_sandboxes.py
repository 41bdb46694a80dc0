"""The sandbox services on a real store, and the controller's refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2

from pydock._proto.containerd.services.sandbox.v1 import sandbox_pb2 as pb
from pydock._proto.containerd.types import sandbox_pb2
from pydock.core import sandboxes as core
from pydock.services import sandboxes


class Records:
    """As much of a store as the service needs."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], core.Sandbox] = {}

    async def create(self, ns: str, item: core.Sandbox) -> core.Sandbox:
        return self.items.setdefault((ns, item.sandbox_id), item)

    async def update(self, ns: str, item: core.Sandbox, paths: Any) -> core.Sandbox:
        assert paths == ("labels.k",)
        self.items[ns, item.sandbox_id] = item
        return item

    async def get(self, ns: str, id: str) -> core.Sandbox:
        return self.items[ns, id]

    async def list(self, ns: str, filters: Any) -> list[core.Sandbox]:
        assert filters == ("id==one",)
        return list(self.items.values())

    async def delete(self, ns: str, id: str) -> None:
        del self.items[ns, id]


async def test_every_field_goes_there_and_back(dial: Any, tmp_path: Path) -> None:
    wire = sandbox_pb2.Sandbox(sandbox_id="one", labels={"k": "v"}, sandboxer="podsandbox", spec=any_pb2.Any(type_url="s", value=b"{}"))
    wire.runtime.name = "r"
    wire.runtime.options.CopyFrom(any_pb2.Any(type_url="o", value=b"1"))
    wire.extensions["e"].CopyFrom(any_pb2.Any(type_url="x", value=b"2"))
    records: Any = Records()
    async with dial(sandboxes.Store(records)) as client:
        assert (await client.Create(pb.StoreCreateRequest(sandbox=wire))).sandbox == wire
        assert (await client.Update(pb.StoreUpdateRequest(sandbox=wire, fields=["labels.k"]))).sandbox == wire
        assert (await client.Get(pb.StoreGetRequest(sandbox_id="one"))).sandbox == wire
        assert list((await client.List(pb.StoreListRequest(filters=["id==one"]))).list) == [wire]
        await client.Delete(pb.StoreDeleteRequest(sandbox_id="one"))
    assert records.items == {}


@pytest.mark.parametrize(
    ("sandboxer", "code", "words"),
    [
        ("", grpc.StatusCode.INVALID_ARGUMENT, "name can not be empty"),
        ("nobody", grpc.StatusCode.NOT_FOUND, '"nobody"'),
        ("shim", grpc.StatusCode.UNIMPLEMENTED, "runs no sandboxes"),
        ("podsandbox", grpc.StatusCode.UNIMPLEMENTED, "runs no sandboxes"),
    ],
)
async def test_every_method_of_the_controller_is_refused_in_words(dial: Any, sandboxer: str, code: grpc.StatusCode, words: str) -> None:
    async with dial(sandboxes.Controller()) as client:
        for method in sandboxes.Controller.wire.methods:
            request = getattr(pb, method.input_type.name)(sandbox_id="one", sandboxer=sandboxer)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await getattr(client, method.name)(request)
            assert refused.value.code() is code
            assert words in (refused.value.details() or "")
