"""What the daemon says of itself."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, empty_pb2

from pydock._proto.containerd.services.introspection.v1 import introspection_pb2 as pb
from pydock._proto.containerd.types import introspection_pb2
from pydock.core import containers, plugin, tasks
from pydock.services import codec, introspection


class Inspector:
    """Knows one runtime."""

    async def inspect(self, path: str, options: containers.Any | None) -> tasks.RuntimeInfo:
        return tasks.RuntimeInfo(path, tasks.RuntimeVersion("1.2", "abc"), annotations={"k": "v"}, features=containers.Any("f", b"{}"))


def _table() -> plugin.PluginTable:
    table = plugin.PluginTable()
    table.add(
        plugin.PluginInfo("io.containerd.runtime.v2", "task", ("io.containerd.event.v1",), ("linux/arm64/v8",), ("c",), {"root": "/r"})
    )
    table.add(plugin.PluginInfo("io.containerd.snapshotter.v1", "zfs", init_error="no zfs: skip plugin"))
    return table


def _service(inspector: tasks.Inspector | None = None) -> introspection.Introspection:
    return introspection.Introspection(_table(), "the-uuid", inspector)


async def test_plugins_are_shown_whole_and_need_no_namespace(dial: Any) -> None:
    async with dial(_service()) as client:
        one, other = (await client.Plugins(pb.PluginsRequest(), ns="")).plugins
    assert (one.type, one.id, list(one.requires), list(one.capabilities), dict(one.exports)) == (
        "io.containerd.runtime.v2",
        "task",
        ["io.containerd.event.v1"],
        ["c"],
        {"root": "/r"},
    )
    assert (one.platforms[0].os, one.platforms[0].architecture, one.platforms[0].variant) == ("linux", "arm64", "v8")
    assert not one.HasField("init_err") and other.init_err.message == "no zfs: skip plugin" and other.init_err.code == 2


@pytest.mark.parametrize(
    ("filters", "ids"),
    [(["id==zfs"], ["zfs"]), (["type==io.containerd.runtime.v2"], ["task"]), (["id==zfs", "id==task"], ["task", "zfs"]), (["id==x"], [])],
)
async def test_plugins_are_picked_by_filters(dial: Any, filters: list[str], ids: list[str]) -> None:
    async with dial(_service()) as client:
        assert [item.id for item in (await client.Plugins(pb.PluginsRequest(filters=filters))).plugins] == ids


async def test_the_server_is_named_by_root_and_process(dial: Any) -> None:
    async with dial(_service()) as client:
        found = await client.Server(empty_pb2.Empty(), ns="")
    assert (found.uuid, found.pid, found.pidns) == ("the-uuid", os.getpid(), os.stat("/proc/self/ns/pid").st_ino)


async def test_a_runtime_says_what_it_can(dial: Any) -> None:
    asked = codec.wire_any(codec.pack(introspection_pb2.RuntimeRequest(runtime_path="crun")))
    async with dial(_service(Inspector())) as client:
        found = await client.PluginInfo(pb.PluginInfoRequest(type="io.containerd.runtime.v2", id="task", options=asked))
    info = codec.parse(introspection_pb2.RuntimeInfo, codec.any_of(found.extra))
    assert (found.plugin.id, info.name, info.version.version, dict(info.annotations), info.features.value) == (
        "task",
        "crun",
        "1.2",
        {"k": "v"},
        b"{}",
    )


async def test_a_plugin_is_shown_without_more_when_nothing_is_asked(dial: Any) -> None:
    async with dial(_service()) as client:
        found = await client.PluginInfo(pb.PluginInfoRequest(type="io.containerd.runtime.v2", id="task"))
    assert found.plugin.id == "task" and not found.HasField("extra")


@pytest.mark.parametrize(
    ("type_", "id", "code"),
    [
        ("io.containerd.nope.v1", "x", grpc.StatusCode.NOT_FOUND),
        ("io.containerd.snapshotter.v1", "zfs", grpc.StatusCode.FAILED_PRECONDITION),
        ("io.containerd.runtime.v2", "task", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
async def test_asking_what_cannot_be_told_is_refused(dial: Any, type_: str, id: str, code: grpc.StatusCode) -> None:
    async with dial(_service()) as client:
        with pytest.raises(grpc.RpcError) as caught:
            await client.PluginInfo(pb.PluginInfoRequest(type=type_, id=id, options=any_pb2.Any(type_url="x")))
    assert caught.value.code() is code


def test_a_root_keeps_its_uuid(tmp_path: Path) -> None:
    made = introspection.identity(tmp_path)
    assert str(uuid.UUID(made)) == made == introspection.identity(tmp_path)


def test_half_a_uuid_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "uuid").write_bytes(b"1234\xff")
    assert str(uuid.UUID(introspection.identity(tmp_path)))
