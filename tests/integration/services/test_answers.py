"""The whole front on a real daemon: what clients are told, in the words of the real containerd where they parse them."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, empty_pb2, message_factory

from pydock._proto.containerd.services.containers.v1 import containers_pb2
from pydock._proto.containerd.services.content.v1 import content_pb2
from pydock._proto.containerd.services.diff.v1 import diff_pb2
from pydock._proto.containerd.services.events.v1 import events_pb2
from pydock._proto.containerd.services.images.v1 import images_pb2
from pydock._proto.containerd.services.introspection.v1 import introspection_pb2
from pydock._proto.containerd.services.leases.v1 import leases_pb2
from pydock._proto.containerd.services.namespaces.v1 import namespace_pb2
from pydock._proto.containerd.services.snapshots.v1 import snapshots_pb2
from pydock._proto.containerd.services.streaming.v1 import streaming_pb2
from pydock._proto.containerd.services.tasks.v1 import tasks_pb2
from pydock._proto.containerd.services.transfer.v1 import transfer_pb2
from pydock._proto.containerd.services.version.v1 import version_pb2
from pydock._proto.containerd.types import descriptor_pb2, event_pb2
from pydock.testing import daemon as harness

pytestmark = pytest.mark.root

Code = grpc.StatusCode
NOWHERE = "sha256:" + "0" * 64
BLOB = b"some layer"
BLOB_DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
MODULES: tuple[Any, ...] = (
    containers_pb2,
    content_pb2,
    diff_pb2,
    events_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    namespace_pb2,
    snapshots_pb2,
    streaming_pb2,
    tasks_pb2,
    transfer_pb2,
    version_pb2,
)
SERVICES = {name: wire for module in MODULES for name, wire in module.DESCRIPTOR.services_by_name.items()}

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    """``call("Images.Get", request)`` on one daemon for all tests of this file."""
    with harness.running() as running, grpc.insecure_channel(f"unix:{running.address}") as channel:

        def call(name: str, request: Any, ns: str = "default") -> Any:
            service, _, method = name.partition(".")
            wire = SERVICES[service].methods_by_name[method]
            kind = ("stream" if wire.client_streaming else "unary") + "_" + ("stream" if wire.server_streaming else "unary")
            multi = getattr(channel, kind)(
                f"/{wire.containing_service.full_name}/{method}",
                request_serializer=message_factory.GetMessageClass(wire.input_type).SerializeToString,
                response_deserializer=message_factory.GetMessageClass(wire.output_type).FromString,
            )
            return multi(request, metadata=[("containerd-namespace", ns)] if ns else [], timeout=20)

        yield call


def _refused(call: Call, name: str, request: Any, ns: str = "default") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        answer = call(name, request, ns)
        if hasattr(answer, "__next__"):
            list(answer)
    return caught.value.code(), str(caught.value.details())


def _image(name: str, digest: str = BLOB_DIGEST, size: int = 9, media_type: str = "m") -> images_pb2.Image:
    return images_pb2.Image(name=name, target=descriptor_pb2.Descriptor(media_type=media_type, digest=digest, size=size))


def _container(**fields: Any) -> containers_pb2.CreateContainerRequest:
    return containers_pb2.CreateContainerRequest(container=containers_pb2.Container(**fields))


NEED_A_NAMESPACE = [
    ("Images.List", images_pb2.ListImagesRequest()),
    ("Containers.Get", containers_pb2.GetContainerRequest(id="x")),
    ("Content.Info", content_pb2.InfoRequest(digest=NOWHERE)),
    ("Snapshots.Stat", snapshots_pb2.StatSnapshotRequest(key="x")),
    ("Leases.List", leases_pb2.ListRequest()),
    ("Tasks.List", tasks_pb2.ListTasksRequest()),
    ("Events.Publish", events_pb2.PublishRequest(topic="/x")),
    ("Diff.Apply", diff_pb2.ApplyRequest(diff=descriptor_pb2.Descriptor(digest=NOWHERE))),
    ("Transfer.Transfer", transfer_pb2.TransferRequest()),
]


@pytest.mark.parametrize(("name", "request_"), NEED_A_NAMESPACE)
def test_a_missing_namespace_is_said_in_containerds_words(call: Call, name: str, request_: Any) -> None:
    assert _refused(call, name, request_, ns="") == (Code.FAILED_PRECONDITION, "namespace is required: failed precondition")


@pytest.mark.parametrize(("name", "request_"), NEED_A_NAMESPACE)
def test_a_namespace_out_of_its_grammar_is_refused_everywhere(call: Call, name: str, request_: Any) -> None:
    code, text = _refused(call, name, request_, ns="../etc")
    assert code is Code.INVALID_ARGUMENT and text.startswith('namespace validation: identifier "../etc" must match')


REFUSALS = [
    ("Images.Get", images_pb2.GetImageRequest(name="nope"), Code.NOT_FOUND, 'image "nope": not found'),
    ("Images.Delete", images_pb2.DeleteImageRequest(name="nope"), Code.NOT_FOUND, 'image "nope": not found'),
    ("Images.Create", images_pb2.CreateImageRequest(), Code.INVALID_ARGUMENT, "image name"),
    ("Images.Create", images_pb2.CreateImageRequest(image=_image("x", "bad")), Code.INVALID_ARGUMENT, 'Target.Digest "bad" invalid'),
    (
        "Images.Create",
        images_pb2.CreateImageRequest(image=_image("x", size=0)),
        Code.INVALID_ARGUMENT,
        "Target.Size must be greater than zero",
    ),
    ("Images.List", images_pb2.ListImagesRequest(filters=["name=="]), Code.INVALID_ARGUMENT, "filters: parse error: [name==]"),
    ("Containers.Get", containers_pb2.GetContainerRequest(id="nope"), Code.NOT_FOUND, 'container "nope" in namespace "default": not found'),
    (
        "Containers.Create",
        _container(id="a/b"),
        Code.INVALID_ARGUMENT,
        'create container failed validation: container.ID: identifier "a/b"',
    ),
    (
        "Containers.Create",
        _container(id="c"),
        Code.INVALID_ARGUMENT,
        "create container failed validation: container.Runtime.Name must be set",
    ),
    ("Content.Info", content_pb2.InfoRequest(digest=NOWHERE), Code.NOT_FOUND, f"content digest {NOWHERE}: not found"),
    ("Content.Info", content_pb2.InfoRequest(digest="sha256:../x"), Code.INVALID_ARGUMENT, "invalid checksum digest"),
    ("Content.Read", content_pb2.ReadContentRequest(digest=NOWHERE), Code.NOT_FOUND, f"content digest {NOWHERE}: not found"),
    ("Content.Status", content_pb2.StatusRequest(ref="nope"), Code.NOT_FOUND, "reference nope: not found"),
    ("Content.Abort", content_pb2.AbortRequest(ref="nope"), Code.NOT_FOUND, "reference nope: not found"),
    ("Leases.Delete", leases_pb2.DeleteRequest(id="nope"), Code.NOT_FOUND, 'lease "nope": not found'),
    (
        "Snapshots.Stat",
        snapshots_pb2.StatSnapshotRequest(snapshotter="native", key="x"),
        Code.NOT_FOUND,
        "snapshot x does not exist: not found",
    ),
    (
        "Snapshots.Stat",
        snapshots_pb2.StatSnapshotRequest(snapshotter="nope", key="x"),
        Code.INVALID_ARGUMENT,
        "snapshotter not loaded: nope",
    ),
    (
        "Tasks.Create",
        tasks_pb2.CreateTaskRequest(container_id="nope"),
        Code.NOT_FOUND,
        'container "nope" in namespace "default": not found',
    ),
    ("Tasks.Get", tasks_pb2.GetRequest(container_id="nope"), Code.NOT_FOUND, "task nope"),
    ("Tasks.Kill", tasks_pb2.KillRequest(container_id="nope", signal=9), Code.NOT_FOUND, "task nope"),
    ("Tasks.Exec", tasks_pb2.ExecProcessRequest(container_id="nope"), Code.INVALID_ARGUMENT, "exec id cannot be empty"),
    ("Events.Publish", events_pb2.PublishRequest(topic="bad"), Code.INVALID_ARGUMENT, "envelope topic \"bad\": must start with '/'"),
    ("Events.Forward", events_pb2.ForwardRequest(), Code.INVALID_ARGUMENT, "event envelope has invalid namespace"),
    ("Diff.Apply", diff_pb2.ApplyRequest(), Code.INVALID_ARGUMENT, "invalid checksum digest"),
    ("Transfer.Transfer", transfer_pb2.TransferRequest(), Code.UNIMPLEMENTED, "transfer from or to"),
    ("Introspection.PluginInfo", introspection_pb2.PluginInfoRequest(type="x", id="y"), Code.NOT_FOUND, "plugin x.y not found"),
    ("Namespaces.Delete", namespace_pb2.DeleteNamespaceRequest(name="nope"), Code.NOT_FOUND, 'namespace "nope": not found'),
    ("Namespaces.Create", namespace_pb2.CreateNamespaceRequest(), Code.INVALID_ARGUMENT, "identifier must not be empty"),
]


@pytest.mark.parametrize(("name", "request_", "code", "text"), REFUSALS)
def test_what_cannot_be_done_is_told_by_code_and_words(call: Call, name: str, request_: Any, code: Code, text: str) -> None:
    found = _refused(call, name, request_)
    assert found[0] is code and found[1].startswith(text)


def test_clients_begin_with_version_server_and_plugins_and_need_no_namespace(call: Call) -> None:
    assert call("Version.Version", empty_pb2.Empty(), ns="").version.startswith("2.1.0+pydock.")
    assert len(call("Introspection.Server", empty_pb2.Empty(), ns="").uuid) == 36
    plugins = call("Introspection.Plugins", introspection_pb2.PluginsRequest(), ns="").plugins
    assert {"content", "overlayfs", "tasks", "transfer"} <= {item.id for item in plugins}
    assert all("skip plugin" in item.init_err.message for item in plugins if item.HasField("init_err"))


def test_a_blob_is_written_read_labelled_and_removed(call: Call) -> None:
    pb = content_pb2
    parts = [
        pb.WriteContentRequest(action=pb.STAT, ref="r1", total=len(BLOB)),
        pb.WriteContentRequest(action=pb.WRITE, data=BLOB[:4]),
        pb.WriteContentRequest(action=pb.COMMIT, offset=4, data=BLOB[4:], expected=BLOB_DIGEST, labels={"containerd.io/gc.root": "1"}),
    ]
    answers = list(call("Content.Write", iter(parts)))
    assert [item.offset for item in answers] == [0, 4, len(BLOB)] and answers[-1].digest == BLOB_DIGEST
    again = pb.WriteContentRequest(action=pb.STAT, ref="r2", expected=BLOB_DIGEST)
    assert _refused(call, "Content.Write", iter([again]))[0] is Code.ALREADY_EXISTS
    read = call("Content.Read", pb.ReadContentRequest(digest=BLOB_DIGEST, offset=5, size=3))
    assert b"".join(part.data for part in read) == BLOB[5:8]
    update = pb.UpdateRequest(info=pb.Info(digest=BLOB_DIGEST, labels={"k": "v"}))
    update.update_mask.paths.append("labels.k")
    assert set(call("Content.Update", update).info.labels) == {"containerd.io/gc.root", "k"}
    listed = [item.digest for block in call("Content.List", pb.ListContentRequest(filters=["labels.k==v"])) for item in block.info]
    assert listed == [BLOB_DIGEST]
    assert _refused(call, "Content.Info", pb.InfoRequest(digest=BLOB_DIGEST), ns="other")[0] is Code.NOT_FOUND
    call("Content.Delete", pb.DeleteContentRequest(digest=BLOB_DIGEST))
    assert _refused(call, "Content.Info", pb.InfoRequest(digest=BLOB_DIGEST))[0] is Code.NOT_FOUND


def test_an_image_is_announced_to_who_listens_and_to_nobody_else(call: Call) -> None:
    wanted = call("Events.Subscribe", events_pb2.SubscribeRequest(filters=["event.name==wanted"]), ns="")
    ready = call("Events.Subscribe", events_pb2.SubscribeRequest(filters=['topic=="/ready"']), ns="")
    _until_heard(call, ready)
    for name in ("other", "wanted"):
        call("Images.Create", images_pb2.CreateImageRequest(image=_image(name)))
    found: event_pb2.Envelope = next(wanted)
    assert (found.namespace, found.topic, found.event.type_url) == (
        "default",
        "/images/create",
        "containerd.services.images.v1.ImageCreate",
    )
    wanted.cancel()
    for name in ("other", "wanted"):
        call("Images.Delete", images_pb2.DeleteImageRequest(name=name, sync=True))


def _until_heard(call: Call, stream: Any) -> None:
    """Publish until ``stream`` hears it: then it, and what was opened before it, is subscribed."""
    heard = threading.Event()

    def listen() -> None:
        next(stream)
        heard.set()

    listener = threading.Thread(target=listen)
    listener.start()
    while not heard.wait(0.01):
        call("Events.Publish", events_pb2.PublishRequest(topic="/ready", event=any_pb2.Any(type_url="x")))
    listener.join()
    stream.cancel()


def test_a_stream_is_acknowledged_and_its_id_taken(call: Call) -> None:
    def opened() -> tuple[Any, queue.Queue[any_pb2.Any | None]]:
        sent: queue.Queue[any_pb2.Any | None] = queue.Queue()
        init = streaming_pb2.StreamInit(id="s1")
        sent.put(any_pb2.Any(type_url=init.DESCRIPTOR.full_name, value=init.SerializeToString()))
        return call("Streaming.Stream", iter(sent.get, None)), sent

    first, first_sent = opened()
    assert next(first).type_url == "google.protobuf.Empty"
    second, second_sent = opened()
    with pytest.raises(grpc.RpcError) as caught:
        next(second)
    assert (caught.value.code(), caught.value.details()) == (Code.ALREADY_EXISTS, "stream s1: already exists")
    first.cancel()
    for sent in (first_sent, second_sent):
        sent.put(None)
