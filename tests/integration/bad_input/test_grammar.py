"""Names out of their grammar, on a real daemon: each is refused by its code, nothing is left of it, and the next right call works."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, message_factory

from pydock._proto.containerd.services.containers.v1 import containers_pb2
from pydock._proto.containerd.services.content.v1 import content_pb2
from pydock._proto.containerd.services.images.v1 import images_pb2
from pydock._proto.containerd.services.leases.v1 import leases_pb2
from pydock._proto.containerd.services.namespaces.v1 import namespace_pb2
from pydock._proto.containerd.services.snapshots.v1 import snapshots_pb2
from pydock._proto.containerd.services.tasks.v1 import tasks_pb2
from pydock._proto.containerd.types import descriptor_pb2
from pydock.testing import daemon as harness
from pydock.testing import leakcheck

pytestmark = pytest.mark.root

Call = Callable[..., Any]
INVALID = grpc.StatusCode.INVALID_ARGUMENT
MODULES: tuple[Any, ...] = (containers_pb2, content_pb2, images_pb2, leases_pb2, namespace_pb2, snapshots_pb2, tasks_pb2)
SERVICES = {name: wire for module in MODULES for name, wire in module.DESCRIPTOR.services_by_name.items()}
BLOB = b"bytes of a right call"
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()
LONG = "k" * 4097
SPEC = any_pb2.Any(type_url="types.containerd.io/opencontainers/runtime-spec/1/Spec", value=b"{}")


@pytest.fixture(scope="module")
def daemon() -> Iterator[harness.Daemon]:
    with harness.running() as running:
        yield running


@pytest.fixture(scope="module")
def call(daemon: harness.Daemon) -> Iterator[Call]:
    """``call("Images.Get", request)``, the answers of a stream as a list."""
    with grpc.insecure_channel(f"unix:{daemon.address}") as channel:

        def call(name: str, request: Any) -> Any:
            service, _, method = name.partition(".")
            wire = SERVICES[service].methods_by_name[method]
            multi = channel.stream_stream if wire.client_streaming else channel.unary_unary
            answer = multi(
                f"/{wire.containing_service.full_name}/{method}",
                request_serializer=message_factory.GetMessageClass(wire.input_type).SerializeToString,
                response_deserializer=message_factory.GetMessageClass(wire.output_type).FromString,
            )(iter([request]) if wire.client_streaming else request, metadata=(("containerd-namespace", "default"),), timeout=20)
            return list(answer) if wire.client_streaming else answer

        yield call


def _container(id: str = "web", labels: dict[str, str] | None = None) -> containers_pb2.CreateContainerRequest:
    runtime = containers_pb2.Container.Runtime(name="io.containerd.runc.v2")
    return containers_pb2.CreateContainerRequest(container=containers_pb2.Container(id=id, labels=labels, runtime=runtime, spec=SPEC))


def _image(name: str = "x:1", digest: str = DIGEST, **fields: Any) -> images_pb2.CreateImageRequest:
    target = descriptor_pb2.Descriptor(media_type="m", digest=digest, size=9)
    return images_pb2.CreateImageRequest(image=images_pb2.Image(name=name, target=target, **fields))


def _write(ref: str = "ref", expected: str = DIGEST, **fields: Any) -> content_pb2.WriteContentRequest:
    return content_pb2.WriteContentRequest(action=content_pb2.COMMIT, ref=ref, expected=expected, data=BLOB, total=len(BLOB), **fields)


def _snapshot(key: str = "s", parent: str = "", labels: dict[str, str] | None = None) -> snapshots_pb2.PrepareSnapshotRequest:
    return snapshots_pb2.PrepareSnapshotRequest(snapshotter="overlayfs", key=key, parent=parent, labels=labels)


def _namespace(name: str, labels: dict[str, str] | None = None) -> namespace_pb2.CreateNamespaceRequest:
    return namespace_pb2.CreateNamespaceRequest(namespace=namespace_pb2.Namespace(name=name, labels=labels))


BAD_IDS = ("", "a/b", "../up", "-dash", "a b", "a\0b", "a\nb", "é", "x" * 77)
BAD_DIGESTS = (
    "",
    "nope",
    "sha256:",
    "sha256:../../etc/passwd",
    "sha256:" + "0" * 63,
    "sha256:" + "Z" * 64,
    "md5:" + "0" * 32,
    DIGEST + "0",
)
WRONG: list[tuple[str, Any]] = [
    *[("Containers.Create", _container(id)) for id in BAD_IDS],
    *[("Namespaces.Create", _namespace(name)) for name in BAD_IDS],
    *[("Images.Create", _image(digest=digest)) for digest in BAD_DIGESTS],
    *[("Content.Info", content_pb2.InfoRequest(digest=digest)) for digest in BAD_DIGESTS],
    *[("Content.Delete", content_pb2.DeleteContentRequest(digest=digest)) for digest in BAD_DIGESTS],
    *[("Content.Write", _write(expected=digest)) for digest in BAD_DIGESTS if digest],
    ("Content.Write", _write(ref="")),
    ("Content.Write", _write(ref="a\0b")),
    ("Content.Write", _write(ref="r" * 5000)),
    ("Content.Write", _write(ref="kept", labels={"k": LONG})),  # its bytes are right: they wait under their ref for a right commit
    ("Images.Create", _image("")),
    ("Images.Create", _image("a\0b")),
    ("Images.Create", _image("n" * 5000)),
    ("Images.Create", _image(labels={LONG: "v"})),
    ("Containers.Create", _container(labels={"k": LONG})),
    ("Namespaces.Create", _namespace("fine", {"k": LONG})),
    ("Namespaces.Create", _namespace("fine", {"": "v"})),
    ("Leases.Create", leases_pb2.CreateRequest(id="fine", labels={"k": LONG})),
    ("Leases.Create", leases_pb2.CreateRequest(id="a\0b")),
    ("Snapshots.Prepare", _snapshot("")),
    ("Snapshots.Prepare", _snapshot("a\0b")),
    ("Snapshots.Prepare", _snapshot("k" * 5000)),
    ("Snapshots.Prepare", _snapshot(labels={"k": LONG})),
]


def _refused(call: Call, name: str, request: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(name, request)
    return caught.value.code()


@pytest.mark.parametrize(("name", "request_"), WRONG)
def test_what_is_out_of_its_grammar_is_an_invalid_argument(call: Call, name: str, request_: Any) -> None:
    assert _refused(call, name, request_) is INVALID


def test_what_was_refused_has_left_nothing_and_the_right_calls_work(daemon: harness.Daemon, call: Call) -> None:
    with leakcheck.unchanged(daemon):
        for name, request in WRONG:
            _refused(call, name, request)
    assert not call("Containers.List", containers_pb2.ListContainersRequest()).containers
    assert not call("Images.List", images_pb2.ListImagesRequest()).images
    assert [item.ref for item in call("Content.ListStatuses", content_pb2.ListStatusesRequest()).statuses] == ["kept"]
    assert not call("Leases.List", leases_pb2.ListRequest()).leases
    call("Containers.Create", _container())
    call("Images.Create", _image())
    call("Content.Write", _write(ref="kept"))
    call("Snapshots.Prepare", _snapshot())
    call("Namespaces.Create", _namespace("fine"))


@pytest.mark.parametrize("label", ["", "kept"])
def test_a_label_of_no_value_is_none_and_removes_one(call: Call, label: str) -> None:
    named = f"labelled-{label or 'none'}"
    made = call("Namespaces.Create", _namespace(named, {"a": label, "b": "1"})).namespace
    assert dict(made.labels) == {"b": "1"} | ({"a": label} if label else {})
    changed = namespace_pb2.UpdateNamespaceRequest(namespace=namespace_pb2.Namespace(name=named, labels={"a": "", "b": ""}))
    changed.update_mask.paths.append("labels.a")
    assert dict(call("Namespaces.Update", changed).namespace.labels) == {"b": "1"}
