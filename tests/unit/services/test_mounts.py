"""The Mounts service: every field there and back."""

from __future__ import annotations

from typing import Any

from pydock._proto.containerd.services.mounts.v1 import mounts_pb2 as pb
from pydock._proto.containerd.types import mount_pb2
from pydock.core import activations, mounts
from pydock.services import mounts as service

INFO = activations.ActivationInfo(
    "one",
    (activations.ActiveMount(mounts.Mount("tmpfs", "tmpfs", "t", ("ro",)), 5_000_000_001, "/point", {"a": "b"}),),
    (mounts.Mount("bind", "/point", options=("rbind",)),),
    {"k": "v"},
)


class Manager:
    """Answers with one set and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def activate(self, ns: str, request: activations.Request) -> activations.ActivationInfo:
        self.calls.append((ns, request))
        return INFO

    async def deactivate(self, ns: str, name: str) -> None:
        self.calls.append((ns, name))

    async def info(self, ns: str, name: str) -> activations.ActivationInfo:
        self.calls.append((ns, name))
        return INFO

    async def update(self, ns: str, info: activations.ActivationInfo, paths: Any) -> activations.ActivationInfo:
        self.calls.append((ns, info, paths))
        return INFO

    async def list(self, ns: str, filters: Any) -> list[activations.ActivationInfo]:
        self.calls.append((ns, filters))
        return [INFO, INFO]


async def test_every_method_reaches_the_manager_and_answers(dial: Any) -> None:
    manager: Any = Manager()
    async with dial(service.Mounts(manager)) as client:
        wanted = [mount_pb2.Mount(type="tmpfs", source="tmpfs", target="t", options=["ro"])]
        made = (await client.Activate(pb.ActivateRequest(name="one", mounts=wanted, labels={"k": "v"}, temporary=True))).info
        assert (made.name, made.active[0].mount, made.active[0].mount_point) == ("one", wanted[0], "/point")
        assert (made.active[0].mounted_at.ToNanoseconds(), dict(made.active[0].data)) == (5_000_000_001, {"a": "b"})
        assert (made.system[0].source, dict(made.labels)) == ("/point", {"k": "v"})
        assert (await client.Info(pb.InfoRequest(name="one"))).info == made
        change = pb.UpdateRequest(info=mount_pb2.ActivationInfo(name="one", labels={"k": "w"}))
        change.update_mask.paths.append("labels.k")
        assert (await client.Update(change)).info == made
        assert [message.info async for message in client.List(pb.ListRequest(filters=["name==one"]))] == [made, made]
        await client.Deactivate(pb.DeactivateRequest(name="one"))
    assert manager.calls == [
        ("default", activations.Request("one", (mounts.Mount("tmpfs", "tmpfs", "t", ("ro",)),), {"k": "v"}, True)),
        ("default", "one"),
        ("default", activations.ActivationInfo("one", labels={"k": "w"}), ("labels.k",)),
        ("default", ("name==one",)),
        ("default", "one"),
    ]
