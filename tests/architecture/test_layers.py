"""Who may import whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

MAY_IMPORT: dict[str, frozenset[str]] = {
    part: frozenset({part, *allowed.split()})
    for part, allowed in {
        "pydock": "",
        "base": "",
        "oci": "base",
        "core": "base oci",
        "store": "base oci core",
        "pydock_plugins": "base oci core pydock_shim.wire",
        "domain": "base oci core",
        "services": "base oci core domain _proto pydock_shim.wire",
        "rest": "base oci core domain",
        "cri": "base oci core domain _proto",
        "client": "base oci core _proto",
        "cli": "base oci core client _proto",
        "testing": "base oci core client",
        "daemon": "base oci core store domain services rest cri pydock_plugins",
        "pydock_shim": "",
    }.items()
}

# What a process that lives as long as a container may load: small, and in no need of a thread or an event loop.
SHIM_MAY_IMPORT = frozenset(
    [
        *("__future__", "array", "collections", "ctypes", "errno", "fcntl", "gc", "json", "os", "posixpath", "pwd", "select"),
        *("signal", "socket", "stat", "struct", "sys", "termios", "time"),
        *("_json", "_signal", "_socket"),  # the C halves alone: their Python halves cost each shim private pages
    ]
)


def ours(name: str) -> str | None:
    """Return the layer of an imported name of ours, None for one of others."""
    names = name.split(".")
    if names[0] == "pydock":
        return names[1] if len(names) > 1 else "pydock"
    if names[0] in ("pydock_plugins", "pydock_shim"):
        return names[0]
    return None


def wrong(sources: Sequence[Any]) -> Iterator[str]:
    """Yield each import that crosses a border."""
    for source in sources:
        allowed = MAY_IMPORT[source.part]
        for line, name in source.imports():
            part = ours(name)
            if part is None or part in allowed:
                continue
            if part == "pydock_shim" and "pydock_shim.wire" in allowed and f"{name}.".startswith("pydock_shim.wire."):
                continue
            yield f"{source.path}:{line}: {source.part} may not import {name}"


def test_every_import_stays_within_what_its_layer_may_know(shipped: Sequence[Any]) -> None:
    assert list(wrong(shipped)) == []


def test_every_folder_has_a_layer(shipped: Sequence[Any]) -> None:
    assert sorted({source.part for source in shipped} - set(MAY_IMPORT)) == []


def test_the_shim_imports_the_allow_list_of_the_standard_library_and_itself(shipped: Sequence[Any]) -> None:
    found = [
        f"{source.path}:{line}: {name}"
        for source in shipped
        if source.part == "pydock_shim"
        for line, name in source.loads()
        if name.split(".")[0] not in SHIM_MAY_IMPORT | {"pydock_shim"}
    ]
    assert found == []


def test_nothing_that_is_shipped_needs_the_development_tools(shipped: Sequence[Any]) -> None:
    found = [
        f"{source.path}:{line}: {name}"
        for source in shipped
        if source.part != "testing"
        for line, name in source.imports()
        if name.split(".")[0] in ("pytest", "hypothesis", "grpc_tools", "mypy", "_pytest")
    ]
    assert found == []
