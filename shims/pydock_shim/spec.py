"""The few facts the shim needs of a container's ``config.json``, found without building it in memory.

A parsed spec with a seccomp profile is a hundred kilobytes of small objects that a forked shim would keep dirty for life.  So the bytes
are searched for keys; where a key turns up more than once, or in a shape not expected, the file is parsed after all.
"""

from __future__ import annotations

import os

from pydock_shim import std

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 16 << 20  # bytes of a config.json
_SPACE = b" \t\r\n"


class Facts:
    """``hooks``: some are set.  ``own_pids``: it has a pid namespace of its own.  ``shared``: mounts are to propagate to the host.

    ``minor_at`` is where in the file the minor number of an ``ociVersion`` above 1.0 stands, 0 for 1.0.
    """

    __slots__ = ("hooks", "minor_at", "own_pids", "shared")

    def __init__(self, hooks: bool, own_pids: bool, shared: bool) -> None:
        self.hooks, self.own_pids, self.shared = hooks, own_pids, shared
        self.minor_at = 0


def read(path: str) -> Facts:
    """Facts about the spec at ``path``.  ``OSError``; ``ValueError`` if it is no JSON object or too long."""
    with open(path, "rb", buffering=0) as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise ValueError(f"{path} is longer than {LIMIT} bytes")
    facts = scan(data) or parse(data)
    facts.minor_at = _minor_at(data)
    return facts


def pin_version(path: str, minor_at: int) -> None:
    """Make the spec one of version 1.0: crun before 1.9 refuses any other, though later minor versions only add what it may ignore."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, b"0", minor_at)
    finally:
        os.close(fd)


def _minor_at(data: bytes) -> int:
    key = data.find(b'"ociVersion"')
    at = data.find(b'"', key + 12) + 1 if key >= 0 else 0
    is_later = at and data[at : at + 2] == b"1." and data[at + 2 : at + 3] in b"123456789" and data[at + 3 : at + 4] == b"."
    return at + 2 if is_later else 0


def scan(data: bytes) -> Facts | None:
    """The facts by searching; None where that could mislead."""
    if b"\\u" in data:
        return None  # a key may be spelt in escapes
    shared = b'shared"' in data  # "shared" or "rshared", wherever: only then it is worth a parse
    hooks = b'"hooks"' in data
    namespaces = _value(data, b'"namespaces"', b"[", b"]")
    if shared or hooks or namespaces is None:
        return None
    types = [entry.get("type") if isinstance(entry, dict) else None for entry in namespaces]
    # A namespace with a path is joined, not made; whoever shares it is not killed by the end of our init.
    own = any(isinstance(entry, dict) and entry.get("type") == "pid" and not entry.get("path") for entry in namespaces)
    return Facts(False, own and types.count("pid") == 1, False)


def parse(data: bytes) -> Facts:
    """The same facts the long way."""
    spec: Any = std.loads(data)
    if not isinstance(spec, dict):
        raise ValueError("config.json is not an object")
    linux = spec.get("linux") or {}
    own = any(one.get("type") == "pid" and not one.get("path") for one in linux.get("namespaces") or ())
    words = {word for mount in spec.get("mounts") or () for word in mount.get("options") or ()}
    words.add(linux.get("rootfsPropagation") or "")
    return Facts(any((spec.get("hooks") or {}).values()), own, bool(words & {"shared", "rshared"}))


def _value(data: bytes, key: bytes, first: bytes, last: bytes) -> list[Any] | None:
    """The one value of ``key`` in all of the file, if it is a list without lists in it."""
    found: list[Any] | None = None
    at = data.find(key)
    while at >= 0:
        rest = at + len(key)
        while data[rest : rest + 1] in _SPACE and rest < len(data):
            rest += 1
        if data[rest : rest + 1] == b":":
            if found is not None:
                return None
            begin = rest + 1
            while data[begin : begin + 1] in _SPACE and begin < len(data):
                begin += 1
            end = data.find(last, begin)
            if data[begin : begin + 1] != first or end < 0:
                return None
            try:
                found = std.loads(data[begin : end + 1])
            except ValueError:
                return None
        at = data.find(key, rest)
    return found
