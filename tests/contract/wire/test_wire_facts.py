"""The generated messages and services are those of the protocols they stand for, fact by fact.

A fact is one field (number, type, repeated, optional, oneof), one enum value, one method (request, response, streaming), or the mere
existence of a message without fields. The files in ``facts`` list them; they are data about the wire, not made from our sources.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.rpc import status_pb2

import pydock._proto

Section = dict[str, dict[str, Any]]

FACTS = Path(__file__).parent / "facts"
# How many facts each file states: an emptied or cut file must not pass as "all hold".
COUNTS = {"cgroups-v1-metrics": 99, "cgroups-v2-metrics": 95, "containerd-api": 911, "grpc-health": 8, "ttrpc": 13}
SECTIONS = ("enums", "messages", "services")
MISSING = object()


def generated_files() -> list[descriptor_pb2.FileDescriptorProto]:
    """Import every generated module and return what its descriptor says, and google.rpc.Status, which is an installed package's."""
    names = [m.name for m in pkgutil.walk_packages(pydock._proto.__path__, "pydock._proto.") if m.name.endswith("_pb2")]
    modules = [importlib.import_module(name) for name in names] + [status_pb2]
    return [descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb) for module in modules]


def type_of(field: descriptor_pb2.FieldDescriptorProto) -> str:
    """The field's type in the words of the facts: a full message or enum name, or a scalar's name."""
    return field.type_name.lstrip(".") or descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def field_fact(message: descriptor_pb2.DescriptorProto, field: descriptor_pb2.FieldDescriptorProto) -> dict[str, Any]:
    """What the descriptor says of one field, in the form of the facts."""
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    entry = entries.get(field.type_name.rsplit(".", 1)[-1])
    if entry is not None:
        key, value = entry.field
        return {"number": field.number, "type": f"map<{type_of(key)}, {type_of(value)}>"}
    fact: dict[str, Any] = {"number": field.number, "type": type_of(field)}
    if field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED:
        fact["repeated"] = True
    if field.proto3_optional:
        fact["optional"] = True
    elif field.HasField("oneof_index"):
        fact["oneof"] = message.oneof_decl[field.oneof_index].name
    return fact


def add_message(found: dict[str, Section], scope: str, message: descriptor_pb2.DescriptorProto) -> None:
    """Put a message and what is nested in it into ``found``."""
    name = f"{scope}.{message.name}"
    found["messages"][name] = {field.name: field_fact(message, field) for field in message.field}
    for enum in message.enum_type:
        found["enums"][f"{name}.{enum.name}"] = {value.name: value.number for value in enum.value}
    for nested in message.nested_type:
        if not nested.options.map_entry:
            add_message(found, name, nested)


def method_fact(method: descriptor_pb2.MethodDescriptorProto) -> dict[str, Any]:
    """What the descriptor says of one method, in the form of the facts."""
    fact: dict[str, Any] = {"request": method.input_type.lstrip("."), "response": method.output_type.lstrip(".")}
    streams = {"client_streaming": method.client_streaming, "server_streaming": method.server_streaming}
    return fact | {side: True for side, streaming in streams.items() if streaming}


@cache
def generated() -> dict[str, Section]:
    """All that the generated code says, in the form of the facts."""
    found: dict[str, Section] = {section: {} for section in SECTIONS}
    for file in generated_files():
        for enum in file.enum_type:
            found["enums"][f"{file.package}.{enum.name}"] = {value.name: value.number for value in enum.value}
        for message in file.message_type:
            add_message(found, file.package, message)
        for service in file.service:
            found["services"][f"{file.package}.{service.name}"] = {method.name: method_fact(method) for method in service.method}
    return found


def load(name: str) -> dict[str, Section]:
    """Read the facts file called ``name``."""
    facts: dict[str, Section] = json.loads((FACTS / f"{name}.json").read_text())
    return facts


def facts_in(table: dict[str, Section]) -> Iterator[tuple[str, str, str | None, Any]]:
    """Yield (section, owner, member, fact); the member is None for a message without fields."""
    for section in SECTIONS:
        for owner, members in sorted(table[section].items()):
            if not members:
                yield section, owner, None, None
            for member, fact in members.items():
                yield section, owner, member, fact


def deviations(want: dict[str, Section], have: dict[str, Section]) -> list[str]:
    """One line for each fact of ``want`` that ``have`` lacks or has differently."""
    lines = []
    for section, owner, member, fact in facts_in(want):
        if member is None:
            if owner not in have[section]:
                lines.append(f"{section} {owner}: missing")
            continue
        got = have[section].get(owner, {}).get(member, MISSING)
        if got != fact:
            lines.append(f"{section} {owner}.{member}: want {fact}, have {'nothing' if got is MISSING else got}")
    return lines


@pytest.mark.parametrize("name", COUNTS)
def test_every_wire_fact_holds_in_the_generated_code(name: str) -> None:
    lines = deviations(load(name), generated())
    if lines:
        pytest.fail("\n".join([f"{len(lines)} of {COUNTS[name]} facts of {name} do not hold:", *lines]), pytrace=False)


@pytest.mark.parametrize("name", COUNTS)
def test_a_facts_file_states_as_many_facts_as_it_should(name: str) -> None:
    assert sum(1 for _ in facts_in(load(name))) == COUNTS[name]


def test_no_facts_file_is_left_unread() -> None:
    assert sorted(path.stem for path in FACTS.iterdir()) == sorted(COUNTS)


@pytest.mark.parametrize(
    ("section", "owner", "member", "wrong"),
    [
        ("messages", "ttrpc.Request", "payload", {"number": 3, "type": "string"}),
        ("messages", "ttrpc.Request", "metadata", {"number": 5, "type": "ttrpc.KeyValue"}),
        ("messages", "containerd.services.images.v1.DeleteImageRequest", "target", {"number": 3, "type": "containerd.types.Descriptor"}),
        ("messages", "containerd.types.Mount", "extra", {"number": 5, "type": "string"}),
        ("enums", "containerd.services.snapshots.v1.Kind", "VIEW", 2),
        (
            "services",
            "containerd.services.events.v1.Events",
            "Subscribe",
            {"request": "containerd.services.events.v1.SubscribeRequest", "response": "containerd.types.Envelope"},
        ),
        ("messages", "containerd.Nothing", None, None),
    ],
)
def test_a_fact_that_does_not_hold_is_named(section: str, owner: str, member: str | None, wrong: object) -> None:
    want: dict[str, Section] = {name: {} for name in SECTIONS}
    want[section][owner] = {} if member is None else {member: wrong}
    (line,) = deviations(want, generated())
    assert line.startswith(f"{section} {owner}" + (f".{member}: want" if member else ": missing"))
