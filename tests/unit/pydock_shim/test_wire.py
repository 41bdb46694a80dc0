"""The codec against protobuf itself, and frames under attack."""

from __future__ import annotations

import importlib
import pkgutil
import random
import struct

import pytest
from google.protobuf import descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pydock._proto
from pydock_shim import wire

SPOKEN = ("task", "ttrpc", "event", "metrics", "runc", "types", "mount", "introspection")
for found in pkgutil.walk_packages(pydock._proto.__path__, "pydock._proto."):
    if found.name.endswith("_pb2") and any(part in found.name for part in SPOKEN):
        importlib.import_module(found.name)

POOL = descriptor_pool.Default()
KINDS = {
    FieldDescriptor.TYPE_STRING: "str", FieldDescriptor.TYPE_BYTES: "bytes", FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_UINT32: "u32", FieldDescriptor.TYPE_UINT64: "u64", FieldDescriptor.TYPE_INT32: "i32",
    FieldDescriptor.TYPE_INT64: "i64", FieldDescriptor.TYPE_DOUBLE: "dbl", FieldDescriptor.TYPE_ENUM: "i32",
}  # fmt: skip
PARTIAL = {"containerd.types.RuntimeInfo"}  # a table need not have every field


def message_class(name: str):
    try:
        return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))
    except KeyError:
        return None


KNOWN = sorted(name for name in wire.MESSAGES if message_class(name) is not None)
NUMBERS = {
    "bool": st.booleans(),
    "u32": st.integers(0, 2**32 - 1),
    "u64": st.integers(0, 2**64 - 1),
    "i32": st.integers(-(2**31), 2**31 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "dbl": st.floats(allow_nan=False),
}


def test_nearly_every_table_has_its_message_in_the_generated_code():
    foreign = ("google.", "ttrpc.")
    assert [name for name in wire.MESSAGES if name not in KNOWN and not name.startswith(foreign)] == ["map"]
    assert len(KNOWN) > 60


@pytest.mark.parametrize("name", KNOWN)
def test_a_table_has_the_numbers_and_kinds_of_its_message(name):
    fields = {field.number: field for field in message_class(name).DESCRIPTOR.fields}
    table = wire.table(name)
    if name not in PARTIAL:
        assert set(table) == set(fields)
    for number, ours in table.items():
        theirs = fields[number]
        assert ours.name == theirs.name
        if ours.kind == "map":
            assert theirs.message_type.GetOptions().map_entry
        elif theirs.type == FieldDescriptor.TYPE_MESSAGE:
            full = theirs.message_type.full_name
            assert ours.kind == ("time" if full == "google.protobuf.Timestamp" else full.replace(".task.v3.", ".task.v2."))
        else:
            assert ours.kind == KINDS[theirs.type]


def test_version_three_of_the_task_service_has_the_same_shapes():
    for request, response in wire.TASK_METHODS.values():
        for name in (request, response):
            other = message_class(name.replace(".v2.", ".v3."))
            if name.startswith("containerd.task."):
                assert [(f.number, f.name) for f in other.DESCRIPTOR.fields] == [(f.number, f.name) for f in wire.table(name).values()]


def values(name: str):
    """Messages of ``name`` as dicts."""
    return st.fixed_dictionaries({}, optional={field.name: value_of(field) for field in wire.table(name).values()})


def value_of(field):
    if field.kind == "map":
        return st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)
    one = NUMBERS.get(field.kind)
    if field.kind == "str":
        one = st.text(max_size=8)
    elif field.kind == "bytes":
        one = st.binary(max_size=8)
    elif field.kind == "time":
        one = st.integers(-(10**18), 4 * 10**18)
    elif one is None:
        one = st.deferred(lambda: values(field.kind))
    return st.lists(one, max_size=3) if field.repeated else one


def fill(message, name: str, value: dict) -> None:
    for field in wire.table(name).values():
        if field.name not in value:
            continue
        item, target = value[field.name], getattr(message, field.name)
        if field.kind == "map":
            target.update(item)
        elif field.kind == "time":
            if item:
                target.seconds, target.nanos = divmod(item, 10**9)
        elif field.kind in wire.MESSAGES and field.repeated:
            for one in item:
                fill(target.add(), field.kind, one)
        elif field.kind in wire.MESSAGES:
            target.SetInParent()
            fill(target, field.kind, item)
        elif field.repeated:
            target.extend(item)
        else:
            setattr(message, field.name, item)


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_encoded_here_is_read_by_protobuf_and_the_other_way_round(name):
    factory = message_class(name)

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(values(name))
    def check(value):
        theirs = factory()
        fill(theirs, name, value)
        ours = wire.encode(name, value)
        assert factory.FromString(ours) == theirs
        full = wire.decode(name, theirs.SerializeToString())
        assert wire.decode(name, ours) == full
        assert wire.decode(name, wire.encode(name, full)) == full

    check()


def test_absent_fields_have_their_defaults():
    assert wire.decode("containerd.task.v3.CreateTaskRequest", b"") == {
        "id": "", "bundle": "", "rootfs": [], "terminal": False, "stdin": "", "stdout": "", "stderr": "",
        "checkpoint": "", "parent_checkpoint": "", "options": None,
    }  # fmt: skip
    assert wire.decode("containerd.task.v2.WaitResponse", b"") == {"exit_status": 0, "exited_at": 0}


def test_times_are_nanoseconds():
    stamp = timestamp_pb2.Timestamp(seconds=1_700_000_000, nanos=5).SerializeToString()
    data = b"\x12" + bytes([len(stamp)]) + stamp
    assert wire.decode("containerd.task.v2.WaitResponse", data)["exited_at"] == 1_700_000_000 * 10**9 + 5


@pytest.mark.parametrize(
    "value",
    [{"nope": 1}, {"pid": -1}, {"pid": 2**32}, {"pid": "7"}, {"exit_status": 1.5}, {"exited_at": "now"}],
)
def test_what_does_not_fit_is_not_encoded(value):
    with pytest.raises(ValueError, match=r"DeleteResponse|range"):
        wire.encode("containerd.task.v2.DeleteResponse", value)


def test_a_message_without_a_table_is_refused():
    with pytest.raises(ValueError, match="no table"):
        wire.decode("containerd.NoSuch", b"")


MALFORMED = {
    "tag cut off": b"\x80",
    "tag too long": b"\x80" * 10 + b"\x01",
    "field number zero": b"\x00\x01",
    "group": b"\x0b\x0c",
    "wire type six": b"\x0e\x00",
    "length beyond the end": b"\x0a\x05abc",
    "huge length": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "number for text": b"\x08\x01",
    "text for a number": b"\x1a\x01a",
    "not UTF-8": b"\x0a\x02\xff\xfe",
    "fixed cut off": b"\xa1\x06\x01",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bytes_are_told_apart(data):
    with pytest.raises(ValueError, match=r"StateResponse"):
        wire.decode("containerd.task.v2.StateResponse", data)


def test_unknown_fields_of_every_wire_type_are_skipped():
    unknown = b"\xa0\x06\x01" + b"\xa1\x06" + bytes(8) + b"\xa2\x06\x02ab" + b"\xa5\x06" + bytes(4)
    assert wire.decode("containerd.task.v2.StateRequest", unknown + b"\x0a\x01x")["id"] == "x"


def test_random_bytes_are_read_or_refused_never_worse():
    source = random.Random(7)
    names = list(wire.MESSAGES)
    for _ in range(4000):
        data = source.randbytes(source.randrange(40))
        try:
            wire.decode(source.choice(names), data)
        except ValueError:
            continue


# frames


def test_a_call_and_its_answer_are_frames_protobuf_can_read():
    frame = wire.request(3, "a.B", "C", b"pay", timeout_nano=9, metadata=[{"key": "k", "value": "v"}])
    length, stream, kind, flags = struct.unpack(">IIBB", frame[:10])
    assert (length, stream, kind, flags) == (len(frame) - 10, 3, wire.REQUEST, 0)
    assert wire.decode("ttrpc.Request", frame[10:])["metadata"] == [{"key": "k", "value": "v"}]
    [(stream, kind, _flags, body)] = wire.FrameReader().feed(wire.response(5, b"x", 5, "gone"))
    assert (stream, kind) == (5, wire.RESPONSE)
    assert wire.decode("ttrpc.Response", body) == {"status": {"code": 5, "message": "gone", "details": []}, "payload": b"x"}


@given(st.lists(st.binary(max_size=50), max_size=6), st.data())
def test_frames_come_whole_however_the_bytes_are_cut(bodies, data):
    stream = b"".join(wire.frame(number, 1, body) for number, body in enumerate(bodies))
    reader, got = wire.FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += list(reader.feed(stream[:size]))
        stream = stream[size:]
    assert got == [(number, 1, 0, body) for number, body in enumerate(bodies)]
    assert not reader.partial


def test_a_frame_too_long_is_told_at_once_and_its_bytes_are_dropped():
    reader = wire.FrameReader()
    head = struct.pack(">IIBB", wire.MAX_DATA + 1, 7, 1, 0)
    assert list(reader.feed(head)) == [(7, 1, 0, None)]
    for _ in range(wire.MAX_DATA // 65536):
        assert list(reader.feed(b"x" * 65536)) == []
        assert len(reader._buffer) == 0
    assert list(reader.feed(b"x" + wire.frame(9, 1, b""))) == [(9, 1, 0, b"")]


def test_what_follows_a_frame_too_long_is_read():
    reader = wire.FrameReader()
    long = struct.pack(">IIBB", wire.MAX_DATA + 1, 1, 1, 0) + bytes(wire.MAX_DATA + 1)
    assert list(reader.feed(long + wire.frame(3, 1, b"ok"))) == [(1, 1, 0, None), (3, 1, 0, b"ok")]


def test_a_frame_too_long_is_not_made():
    with pytest.raises(ValueError, match="exceed maximum message size"):
        wire.frame(1, 1, bytes(wire.MAX_DATA + 1))


def test_half_a_frame_is_partial():
    reader = wire.FrameReader()
    assert list(reader.feed(b"\x00\x00")) == []
    assert reader.partial
