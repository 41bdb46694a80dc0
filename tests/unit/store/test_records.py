"""Namespaces, images, containers and leases: what clients may do to them, in containerd's words."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from pydock.base import errors
from pydock.core import containers, events, images, leases, namespaces, snapshots
from pydock.oci import image

NS = "testing"
DIGEST = "sha256:" + "a" * 64
TARGET = image.Descriptor("application/x", DIGEST, 7, {"note": "1"})
SPEC = containers.Any("type", b"spec")


def an_image(name: str = "i", **changes: Any) -> images.Image:
    return dataclasses.replace(images.Image(name, TARGET, {"a": "1"}), **changes)


def a_container(id: str = "c", **changes: Any) -> containers.Container:
    made = containers.Container(id, {"a": "1"}, "img", "io.containerd.runc.v2", None, SPEC, "overlayfs", "key", {"ext": SPEC})
    return dataclasses.replace(made, **changes)


# namespaces


async def test_a_namespace_is_made_once_and_listed_by_name(stores: Any) -> None:
    await stores.namespaces.create(namespaces.Namespace("b", {"k": "v"}))
    await stores.namespaces.create(namespaces.Namespace("a"))
    with pytest.raises(errors.AlreadyExists, match=r'^namespace "a": already exists$'):
        await stores.namespaces.create(namespaces.Namespace("a"))
    assert await stores.namespaces.list() == [namespaces.Namespace("a"), namespaces.Namespace("b", {"k": "v"})]
    assert stores.exchange.seen == [("b", events.NamespaceCreate("b", {"k": "v"})), ("a", events.NamespaceCreate("a"))]


async def test_a_namespace_not_made_yet_is_empty_but_must_be_a_name(stores: Any) -> None:
    assert await stores.namespaces.get("later") == namespaces.Namespace("later")
    assert await stores.namespaces.list() == []
    with pytest.raises(errors.InvalidArgument, match='identifier "a/b" must match'):
        await stores.namespaces.get("a/b")


async def test_labels_of_a_namespace_are_masked_and_bounded(stores: Any) -> None:
    await stores.namespaces.create(namespaces.Namespace("n", {"k": "v", "q": "w"}))
    assert (await stores.namespaces.update(namespaces.Namespace("n", {"z": "1"}), ["labels.q", "labels.z"])).labels == {"k": "v", "z": "1"}
    assert (await stores.namespaces.update(namespaces.Namespace("n", {"m": "v"}))).labels == {"m": "v"}
    with pytest.raises(errors.InvalidArgument, match=r'^cannot update "name" field: invalid argument$'):
        await stores.namespaces.update(namespaces.Namespace("n"), ["name"])
    with pytest.raises(errors.InvalidArgument, match=r"^namespace\.Labels: label key and value length \(5001 bytes\)"):
        await stores.namespaces.update(namespaces.Namespace("n", {"m": "v" * 5000}))
    assert (await stores.namespaces.get("n")).labels == {"m": "v"}


async def test_a_label_makes_a_namespace_but_no_label_does_not(stores: Any) -> None:
    await stores.namespaces.update(namespaces.Namespace("none"))
    await stores.namespaces.update(namespaces.Namespace("some", {"a": "b"}))
    assert await stores.namespaces.list() == [namespaces.Namespace("some", {"a": "b"})]


async def test_a_namespace_that_holds_anything_is_not_deleted(stores: Any) -> None:
    await stores.images.create(NS, an_image())
    await stores.containers.create(NS, a_container())
    writer = await stores.content.writer(NS, "ref")
    await writer.write(b"x")
    await writer.commit(0, "", {})
    await stores.snapshots.prepare(NS, "native", snapshots.Preparation("s"))
    await stores.snapshots.prepare(NS, "overlayfs", snapshots.Preparation("s"))
    with pytest.raises(errors.FailedPrecondition) as caught:
        await stores.namespaces.delete(NS)
    held = 'images, blobs, containers, snapshots on "native" snapshotter, snapshots on "overlayfs" snapshotter'
    assert str(caught.value) == f'namespace "{NS}" must be empty, but it still has {held}: failed precondition'


async def test_leases_and_ingests_go_with_their_namespace(stores: Any) -> None:
    await stores.leases.create(NS, leases.Lease("l"))
    await (await stores.content.writer(NS, "ref")).close()
    await stores.namespaces.delete(NS)
    assert await stores.namespaces.list() == []
    assert await stores.leases.list(NS) == []
    assert await stores.content.statuses(NS) == []
    with pytest.raises(errors.NotFound, match=rf'^namespace "{NS}": not found$'):
        await stores.namespaces.delete(NS)


# images


async def test_an_image_is_made_read_listed_and_deleted(stores: Any) -> None:
    made = await stores.images.create(NS, an_image("b"))
    assert made.created_at == made.updated_at > 0
    assert await stores.images.get(NS, "b") == made
    await stores.images.create(NS, an_image("a"))
    assert [item.name for item in await stores.images.list(NS)] == ["a", "b"]
    with pytest.raises(errors.AlreadyExists, match=r'^image "b": already exists$'):
        await stores.images.create(NS, an_image("b"))
    await stores.images.delete(NS, "b")
    for call in (stores.images.get(NS, "b"), stores.images.delete(NS, "b"), stores.images.update(NS, an_image("b"))):
        with pytest.raises(errors.NotFound, match=r'^image "b": not found$'):
            await call
    assert [type(event) for _, event in stores.exchange.seen] == [events.ImageCreate, events.ImageCreate, events.ImageDelete]


async def test_another_namespace_sees_no_image_of_this_one(stores: Any) -> None:
    await stores.images.create(NS, an_image())
    assert await stores.images.list("other") == []
    with pytest.raises(errors.NotFound):
        await stores.images.get("other", "i")


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (dataclasses.replace(TARGET, digest="foo"), 'Target.Digest "foo" invalid: invalid checksum digest format'),
        (dataclasses.replace(TARGET, media_type=""), "Target.MediaType must be set"),
        (dataclasses.replace(TARGET, size=-1), "Target.Size must be greater than zero"),
        (dataclasses.replace(TARGET, annotations={"a": "b" * 5000}), "Target.Annotations: label key and value length"),
    ],
)
async def test_an_image_must_point_at_something(stores: Any, target: image.Descriptor, problem: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await stores.images.create(NS, an_image(target=target))
    assert str(caught.value).startswith(problem)
    await stores.images.create(NS, an_image())
    with pytest.raises(errors.InvalidArgument):
        await stores.images.update(NS, an_image(target=target))
    assert (await stores.images.get(NS, "i")).target == TARGET


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 2000])
async def test_an_image_must_have_a_name(stores: Any, name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="image name"):
        await stores.images.create(NS, an_image(name))


async def test_an_image_is_updated_as_masked(stores: Any) -> None:
    await stores.images.create(NS, an_image())
    new = images.Image("i", dataclasses.replace(TARGET, size=9, annotations={"more": "2"}), {"b": "2"})

    async def after(*paths: str) -> images.Image:
        made: images.Image = await stores.images.update(NS, new, paths)
        return made

    assert (await after("labels.b")).labels == {"a": "1", "b": "2"}
    assert (await after("labels.a")).labels == {"b": "2"}
    assert (await after("annotations.more")).target == dataclasses.replace(TARGET, annotations={"note": "1", "more": "2"})
    assert (await after("annotations")).target.annotations == {"more": "2"}
    assert (await after("target")).target == new.target
    made = await after()
    assert (made.target, made.labels) == (new.target, new.labels)
    assert made.updated_at > made.created_at
    for path in ("name", "target.size", "created_at"):
        with pytest.raises(errors.InvalidArgument, match=f'cannot update "{path}" field on image "i"'):
            await after(path)


async def test_an_image_is_deleted_only_while_it_points_where_the_client_thinks(stores: Any) -> None:
    await stores.images.create(NS, an_image())
    other = "sha256:" + "b" * 64
    with pytest.raises(errors.NotFound, match=rf'^image "i" has target {DIGEST}, not {other}: not found$'):
        await stores.images.delete(NS, "i", other)
    await stores.images.delete(NS, "i", DIGEST)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name==i", True),
        (f"target.digest=={DIGEST}", True),
        ("target.mediatype==application/x", True),
        ("target.size==7", False),
        ("target", False),
        ("labels.a==1", True),
        ("annotations.note==1", True),
        ("labels", False),
        ("name~=^j", False),
    ],
)
async def test_images_are_filtered_by_the_fields_containerd_has(stores: Any, text: str, found: bool) -> None:
    await stores.images.create(NS, an_image())
    assert bool(await stores.images.list(NS, [text])) is found


# containers


async def test_a_container_is_made_read_listed_and_deleted(stores: Any) -> None:
    made = await stores.containers.create(NS, a_container())
    assert await stores.containers.get(NS, "c") == made
    with pytest.raises(errors.AlreadyExists, match=r'^container "c": already exists$'):
        await stores.containers.create(NS, a_container())
    assert [item.id for item in await stores.containers.list(NS)] == ["c"]
    await stores.containers.delete(NS, "c")
    with pytest.raises(errors.NotFound, match=rf'^container "c" in namespace "{NS}": not found$'):
        await stores.containers.get(NS, "c")
    with pytest.raises(errors.NotFound):
        await stores.containers.delete(NS, "c")
    runtime = events.ContainerRuntime("io.containerd.runc.v2")
    assert stores.exchange.seen == [(NS, events.ContainerCreate("c", "img", runtime)), (NS, events.ContainerDelete("c"))]


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (a_container(""), "container.ID: identifier must not be empty"),
        (a_container("a/b"), 'container.ID: identifier "a/b" must match'),
        (a_container(runtime=""), "container.Runtime.Name must be set"),
        (a_container(snapshotter=""), "container.Snapshotter must be set if container.SnapshotKey is set"),
        (a_container(extensions={"": SPEC}), "container.Extension keys must not be zero-length"),
        (a_container(labels={"k": "v" * 5000}), "containers.Labels: label key and value length"),
    ],
)
async def test_a_container_must_be_whole(stores: Any, item: containers.Container, problem: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await stores.containers.create(NS, item)
    assert str(caught.value).startswith(f"create container failed validation: {problem}")


async def test_a_container_is_updated_as_masked(stores: Any) -> None:
    await stores.containers.create(NS, a_container())
    other = containers.Any("type", b"other")
    new = a_container(
        image="img2", labels={"b": "2"}, spec=other, extensions={"new": other}, runtime="x", snapshot_key="k2", snapshotter="s2"
    )

    async def after(*paths: str) -> containers.Container:
        made: containers.Container = await stores.containers.update(NS, new, paths)
        return made

    assert (await after("image")).image == "img2"
    assert (await after("spec")).spec == other
    assert (await after("labels.b")).labels == {"a": "1", "b": "2"}
    assert (await after("extensions.new")).extensions == {"ext": SPEC, "new": other}
    assert (await after("extensions.ext")).extensions == {"new": other}
    assert (await after("extensions", "labels")).labels == {"b": "2"}
    for path in ("id", "snapshot_key", "snapshotter", "runtime", "runtime.name", "sandbox"):
        with pytest.raises(errors.InvalidArgument, match=rf'^cannot update "{path}" field on "c": invalid argument$'):
            await after(path)


@pytest.mark.parametrize(("field", "word"), [("snapshotter", "Snapshotter"), ("snapshot_key", "SnapshotKey"), ("runtime", "Runtime.Name")])
async def test_what_a_container_stands_on_never_changes(stores: Any, field: str, word: str) -> None:
    await stores.containers.create(NS, a_container())
    with pytest.raises(errors.InvalidArgument, match=rf"^container\.{word} field is immutable: invalid argument$"):
        await stores.containers.update(NS, a_container(**{field: "other"}))
    made = await stores.containers.update(NS, a_container(image="new", labels={}))
    assert (made.image, made.labels) == ("new", {})


async def test_a_spec_is_not_taken_away(stores: Any) -> None:
    await stores.containers.create(NS, a_container())
    with pytest.raises(errors.InvalidArgument, match=r"container\.Spec must be set"):
        await stores.containers.update(NS, a_container(spec=None), ["spec"])
    with pytest.raises(errors.NotFound, match=r'^container "nope": not found$'):
        await stores.containers.update(NS, a_container("nope"))


@pytest.mark.parametrize(
    ("text", "found"),
    [("id==c", True), ("runtime.name~=runc", True), ("image==img", True), ("labels.a", True), ("snapshotter", False), ("runtime", False)],
)
async def test_containers_are_filtered_by_the_fields_containerd_has(stores: Any, text: str, found: bool) -> None:
    await stores.containers.create(NS, a_container())
    assert bool(await stores.containers.list(NS, [text])) is found


async def test_of_many_that_make_one_container_one_wins(stores: Any) -> None:
    results = await asyncio.gather(*(stores.containers.create(NS, a_container()) for _ in range(10)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == ["AlreadyExists"] * 9 + ["Container"]


# leases


async def test_a_lease_without_a_name_gets_one(stores: Any) -> None:
    made = await stores.leases.create(NS, leases.Lease("", {"a": "b"}))
    assert made.id
    assert made.created_at
    assert await stores.leases.list(NS, ["labels.a==b"]) == await stores.leases.list(NS, [f"id=={made.id}"]) == [made]
    assert await stores.leases.list(NS, ["id==other"]) == []
    with pytest.raises(errors.AlreadyExists, match=rf'^lease "{made.id}": already exists$'):
        await stores.leases.create(NS, made)


async def test_a_lease_holds_what_it_is_told_once(stores: Any) -> None:
    await stores.leases.create(NS, leases.Lease("l"))
    held = [("images", "x"), ("content", DIGEST), ("snapshots/overlayfs", "x"), ("ingests", "x"), ("images", "x"), ("snapshots/none", "x")]
    for type_, id_ in held:
        await stores.leases.add_resource(NS, "l", leases.Resource(id_, type_))
    found = await stores.leases.resources(NS, "l")
    assert [(each.type, each.id) for each in found] == sorted(set(held))
    await stores.leases.delete_resource(NS, "l", leases.Resource("x", "images"))
    await stores.leases.delete_resource(NS, "l", leases.Resource("x", "images"))
    assert len(await stores.leases.resources(NS, "l")) == 4


@pytest.mark.parametrize(
    ("resource", "error", "problem"),
    [
        (leases.Resource("foo", "content"), errors.InvalidArgument, "invalid content resource id foo: invalid checksum digest format"),
        (leases.Resource("x", "snapshots"), errors.InvalidArgument, "invalid snapshot resource type snapshots"),
        (leases.Resource("x", "content/foo"), errors.InvalidArgument, "invalid resource type content/foo"),
        (leases.Resource("x", "bogus"), errors.Unimplemented, "resource type bogus not supported yet"),
        (leases.Resource("", "images"), errors.InvalidArgument, "resource id must not be empty"),
    ],
)
async def test_what_is_no_resource_is_refused(
    stores: Any, resource: leases.Resource, error: type[errors.PydockError], problem: str
) -> None:
    await stores.leases.create(NS, leases.Lease("l"))
    for call in (stores.leases.add_resource, stores.leases.delete_resource):
        with pytest.raises(error) as caught:
            await call(NS, "l", resource)
        assert str(caught.value).startswith(problem)


async def test_a_lease_that_is_not_there_is_not_found(stores: Any) -> None:
    resource = leases.Resource("x", "images")
    calls = [
        stores.leases.delete(NS, "nope"),
        stores.leases.resources(NS, "nope"),
        stores.leases.add_resource(NS, "nope", resource),
        stores.leases.delete_resource(NS, "nope", resource),
    ]
    for call in calls:
        with pytest.raises(errors.NotFound, match=r'^lease "nope": not found$'):
            await call


# all of them


async def test_everything_is_there_after_a_restart(opener: Any) -> None:
    async with opener() as stores:
        await stores.namespaces.create(namespaces.Namespace("empty", {"k": "v"}))
        made = (await stores.images.create(NS, an_image()), await stores.containers.create(NS, a_container()))
        lease = await stores.leases.create(NS, leases.Lease("l", {"x": "y"}))
        await stores.leases.add_resource(NS, "l", leases.Resource("x", "images"))
    async with opener() as stores:
        assert (await stores.images.get(NS, "i"), await stores.containers.get(NS, "c")) == made
        assert await stores.leases.list(NS) == [lease]
        assert await stores.leases.resources(NS, "l") == [leases.Resource("x", "images")]
        assert await stores.namespaces.list() == [namespaces.Namespace("empty", {"k": "v"}), namespaces.Namespace(NS)]


@pytest.mark.parametrize("ns", ["", "a/b", "..", "x" * 77])
async def test_nothing_is_written_outside_a_namespace(stores: Any, ns: str) -> None:
    calls = [
        stores.images.create(ns, an_image()),
        stores.containers.create(ns, a_container()),
        stores.leases.create(ns, leases.Lease("l")),
        stores.content.writer(ns, "ref"),
        stores.snapshots.prepare(ns, "overlayfs", snapshots.Preparation("s")),
    ]
    for call in calls:
        with pytest.raises((errors.InvalidArgument, errors.FailedPrecondition)):
            await call
    assert await stores.namespaces.list() == []
    assert await stores.blobs.statuses() == []
