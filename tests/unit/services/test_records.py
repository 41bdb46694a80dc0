"""The services that hold records, on a store that answers with what it was given: every field there and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf import any_pb2, timestamp_pb2

from pydock._proto.containerd.services.containers.v1 import containers_pb2
from pydock._proto.containerd.services.diff.v1 import diff_pb2
from pydock._proto.containerd.services.images.v1 import images_pb2
from pydock._proto.containerd.services.leases.v1 import leases_pb2
from pydock._proto.containerd.services.namespaces.v1 import namespace_pb2
from pydock._proto.containerd.services.snapshots.v1 import snapshots_pb2
from pydock._proto.containerd.types import descriptor_pb2
from pydock.core import containers, diff, images, leases, mounts, namespaces, snapshots
from pydock.oci import image
from pydock.services import containers as containers_service
from pydock.services import diff as diff_service
from pydock.services import images as images_service
from pydock.services import leases as leases_service
from pydock.services import namespaces as namespaces_service
from pydock.services import snapshots as snapshots_service


class Echo:
    """Remembers calls; answers from ``answers``, else with the last dataclass it was handed."""

    def __init__(self, **answers: Any) -> None:
        self.calls: Any = []
        self.answers = answers

    def __getattr__(self, name: str) -> Any:
        async def method(*args: Any) -> Any:
            self.calls.append((name, *args))
            return self.answers.get(name, next((item for item in reversed(args) if hasattr(item, "__dataclass_fields__")), None))

        return method


def _walk(*items: Any) -> Any:
    async def walk(*_: Any) -> AsyncIterator[Any]:
        for item in items:
            yield item

    return walk


async def test_every_method_of_namespaces_reaches_the_store_and_answers(dial: Any) -> None:
    store, wire = Echo(), namespace_pb2.Namespace(name="moby", labels={"k": "v"})
    item = namespaces.Namespace("moby", {"k": "v"})
    store.answers = {"get": item, "list": [item]}
    async with dial(namespaces_service.Namespaces(store)) as client:
        assert (await client.Create(namespace_pb2.CreateNamespaceRequest(namespace=wire), ns="")).namespace == wire
        change = namespace_pb2.UpdateNamespaceRequest(namespace=wire)
        change.update_mask.paths.append("labels.k")
        assert (await client.Update(change)).namespace == wire
        assert (await client.Get(namespace_pb2.GetNamespaceRequest(name="moby"))).namespace == wire
        assert list((await client.List(namespace_pb2.ListNamespacesRequest(filter="ignored"))).namespaces) == [wire]
        await client.Delete(namespace_pb2.DeleteNamespaceRequest(name="moby"))
    assert store.calls == [("create", item), ("update", item, ("labels.k",)), ("get", "moby"), ("list",), ("delete", "moby")]


async def test_every_method_of_leases_reaches_the_store_and_answers(dial: Any) -> None:
    lease, resource = leases.Lease("l", {"k": "v"}, 1_000_000_001), leases.Resource("sha256:ab", "content")
    manager = Echo(list=[lease], resources=[resource], create=lease)
    wire = leases_pb2.Lease(id="l", labels={"k": "v"}, created_at=timestamp_pb2.Timestamp(seconds=1, nanos=1))
    wire_resource = leases_pb2.Resource(id="sha256:ab", type="content")
    async with dial(leases_service.Leases(manager)) as client:
        assert (await client.Create(leases_pb2.CreateRequest(id="l", labels={"k": "v"}))).lease == wire
        assert list((await client.List(leases_pb2.ListRequest(filters=["id==l"]))).leases) == [wire]
        await client.AddResource(leases_pb2.AddResourceRequest(id="l", resource=wire_resource))
        assert list((await client.ListResources(leases_pb2.ListResourcesRequest(id="l"))).resources) == [wire_resource]
        await client.DeleteResource(leases_pb2.DeleteResourceRequest(id="l", resource=wire_resource))
        await client.Delete(leases_pb2.DeleteRequest(id="l", sync=True))
    assert manager.calls == [
        ("create", "default", leases.Lease("l", {"k": "v"})),
        ("list", "default", ("id==l",)),
        ("add_resource", "default", "l", resource),
        ("resources", "default", "l"),
        ("delete_resource", "default", "l", resource),
        ("delete", "default", "l", True),
    ]


async def test_every_method_of_images_reaches_the_store_and_answers(dial: Any) -> None:
    item = images.Image("busybox", image.Descriptor("m", "sha256:ab", 9), {"k": "v"})
    store, collector = Echo(get=item, list=[item]), Echo()
    wire = images_pb2.Image(name="busybox", labels={"k": "v"}, target=descriptor_pb2.Descriptor(media_type="m", digest="sha256:ab", size=9))
    sent = images_pb2.Image()
    sent.CopyFrom(wire)
    sent.created_at.seconds = 99
    async with dial(images_service.Images(store, collector)) as client:
        assert (await client.Create(images_pb2.CreateImageRequest(image=sent))).image == wire
        dated = await client.Create(images_pb2.CreateImageRequest(image=wire, source_date_epoch=timestamp_pb2.Timestamp(seconds=5)))
        assert (dated.image.created_at.seconds, dated.image.updated_at.seconds) == (5, 5)
        change = images_pb2.UpdateImageRequest(image=wire)
        change.update_mask.paths.append("target")
        assert (await client.Update(change)).image == wire
        assert (await client.Get(images_pb2.GetImageRequest(name="busybox"))).image == wire
        assert list((await client.List(images_pb2.ListImagesRequest(filters=["name==busybox"]))).images) == [wire]
        await client.Delete(images_pb2.DeleteImageRequest(name="busybox", sync=True, target=wire.target))
    assert collector.calls == [("collect",)]
    assert store.calls[2:] == [
        ("update", "default", item, ("target",)),
        ("get", "default", "busybox"),
        ("list", "default", ("name==busybox",)),
        ("delete", "default", "busybox", "sha256:ab"),
    ]


CONTAINER = containers.Container(
    id="c1",
    labels={"k": "v"},
    image="busybox",
    runtime="io.containerd.runc.v2",
    runtime_options=containers.Any("o", b"1"),
    spec=containers.Any("types.containerd.io/opencontainers/runtime-spec/1/Spec", b"{}"),
    snapshotter="overlayfs",
    snapshot_key="c1",
    extensions={"x": containers.Any("e", b"2")},
    sandbox="s1",
)


async def test_every_method_of_containers_reaches_the_store_and_answers(dial: Any) -> None:
    store = Echo(get=CONTAINER, list=[CONTAINER, CONTAINER])
    async with dial(containers_service.Containers(store)) as client:
        wire = (await client.Get(containers_pb2.GetContainerRequest(id="c1"))).container
        assert (wire.runtime.name, wire.runtime.options.value, wire.spec.value, wire.sandbox) == (
            "io.containerd.runc.v2",
            b"1",
            b"{}",
            "s1",
        )
        assert (await client.Create(containers_pb2.CreateContainerRequest(container=wire))).container == wire
        assert store.calls[-1] == ("create", "default", CONTAINER)
        change = containers_pb2.UpdateContainerRequest(container=wire)
        change.update_mask.paths.extend(["labels.k", "spec"])
        assert (await client.Update(change)).container == wire
        assert store.calls[-1] == ("update", "default", CONTAINER, ("labels.k", "spec"))
        assert list((await client.List(containers_pb2.ListContainersRequest())).containers) == [wire, wire]
        assert [item.container async for item in client.ListStream(containers_pb2.ListContainersRequest())] == [wire, wire]
        await client.Delete(containers_pb2.DeleteContainerRequest(id="c1"))
        assert store.calls[-1] == ("delete", "default", "c1")


async def test_a_container_without_runtime_options_has_none(dial: Any) -> None:
    store = Echo()
    async with dial(containers_service.Containers(store)) as client:
        sent = containers_pb2.Container(id="c1", runtime=containers_pb2.Container.Runtime(name="r", options=any_pb2.Any()))
        answer = (await client.Create(containers_pb2.CreateContainerRequest(container=sent))).container
    assert store.calls[-1][2].runtime_options is None and not answer.runtime.HasField("options")


async def test_every_method_of_snapshots_reaches_the_store_and_answers(dial: Any) -> None:
    info = snapshots.Info("k", snapshots.Kind.ACTIVE, "p", {"a": "b"}, 1, 2)
    mount = mounts.Mount("overlay", "overlay", "", ("index=off", "upperdir=/u"))
    service: Any = Echo(stat=info, mounts=[mount], prepare=[mount], view=[mount], usage=snapshots.Usage(4096, 3))
    service.walk = _walk(*[info] * 101)
    pb = snapshots_pb2
    async with dial(snapshots_service.Snapshots(service)) as client:
        ready = await client.Prepare(pb.PrepareSnapshotRequest(snapshotter="native", key="k", parent="p", labels={"a": "b"}), lease="l")
        assert list(ready.mounts[0].options) == ["index=off", "upperdir=/u"]
        assert service.calls[-1] == ("prepare", "default", "native", snapshots.Preparation("k", "p", {"a": "b"}, "l"))
        assert (await client.View(pb.ViewSnapshotRequest(key="k", parent="p"))).mounts == ready.mounts
        assert service.calls[-1] == ("view", "default", "", snapshots.Preparation("k", "p"))
        assert (await client.Mounts(pb.MountsRequest(key="k"))).mounts == ready.mounts
        await client.Commit(pb.CommitSnapshotRequest(name="n", key="k", labels={"a": "b"}), lease="l")
        assert service.calls[-1] == ("commit", "default", "", snapshots.Commitment("n", "k", {"a": "b"}, "l"))
        wire = (await client.Stat(pb.StatSnapshotRequest(key="k"))).info
        assert (wire.kind, wire.parent, wire.updated_at.nanos) == (pb.ACTIVE, "p", 2)
        change = pb.UpdateSnapshotRequest(info=wire)
        change.update_mask.paths.append("labels.a")
        assert (await client.Update(change)).info == wire
        assert service.calls[-1] == ("update", "default", "", info, ("labels.a",))
        assert [len(block.info) async for block in client.List(pb.ListSnapshotsRequest())] == [100, 1]
        usage = await client.Usage(pb.UsageRequest(key="k"))
        assert (usage.size, usage.inodes) == (4096, 3)
        await client.Remove(pb.RemoveSnapshotRequest(key="k"))
        await client.Cleanup(pb.CleanupRequest(snapshotter="native"))
    assert service.calls[-2:] == [("remove", "default", "", "k"), ("cleanup", "default", "native")]


async def test_a_layer_is_applied_and_its_blob_closed(dial: Any) -> None:
    blob = Echo()
    digest = "sha256:" + "0" * 64
    applier = Echo(apply=diff.Applied("application/vnd.oci.image.layer.v1.tar", 7, digest))
    request = diff_pb2.ApplyRequest(diff=descriptor_pb2.Descriptor(media_type="m", digest=digest, size=3))
    request.mounts.add(type="bind", source="/s")
    async with dial(diff_service.Diff(Echo(open=blob), applier)) as client:
        applied = (await client.Apply(request)).applied
    assert (applied.media_type, applied.digest, applied.size) == ("application/vnd.oci.image.layer.v1.tar", digest, 7)
    assert applier.calls == [("apply", image.Descriptor("m", digest, 3), blob, [mounts.Mount("bind", "/s")])]
    assert blob.calls == [("close",)]


@pytest.mark.parametrize("digest", ["", "sha256:xx", "nope"])
async def test_a_layer_without_a_digest_is_refused(dial: Any, digest: str) -> None:
    store = Echo()
    async with dial(diff_service.Diff(store, Echo())) as client:
        with pytest.raises(Exception, match="invalid"):
            await client.Apply(diff_pb2.ApplyRequest(diff=descriptor_pb2.Descriptor(digest=digest)))
    assert store.calls == []
