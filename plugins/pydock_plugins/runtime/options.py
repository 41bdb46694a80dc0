"""Which shim and which OCI runtime a container asks for.

Vocabulary: a *runtime name* (``io.containerd.runc.v2``) names a shim; *options* (containerd.runc.v1.Options) name the OCI runtime it
runs (``binary_name``) and where that keeps its state (``root``).
Invariant: all names of runc and crun shims mean pydock's own shim; an unknown one is refused in the words Go clients know.
Source: containerd's runtime v2 README (the rule from name to ``containerd-shim-<name>-<version>``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from pydock.base import errors, names
from pydock.core import containers
from pydock_shim import wire

OPTIONS = "containerd.runc.v1.Options"
AUTO = "auto"

# runtime name -> the OCI runtime it prefers
OURS = {
    "": AUTO,
    "io.containerd.runc.v2": AUTO,
    "io.containerd.pydock.v1": AUTO,
    "io.containerd.crun.v1": "crun",
    "io.containerd.crun.v2": "crun",
}
_NAME = re.compile(r"io\.containerd\.([a-z0-9-]+)\.(v[0-9]+)", re.ASCII)


@dataclass(frozen=True)
class Choice:
    """What the shim is to run: an OCI runtime's name or path, its state directory ("" for the shim's own), the options as given."""

    runtime: str = AUTO
    root: str = ""
    options: containers.Any | None = None


def choose(runtime: str, path: str, options: containers.Any | None) -> Choice:
    """Return the choice for a container's runtime name, a client's explicit shim path and options.

    Raises InvalidArgument for unknown runtimes and options that are malformed, Unimplemented for a foreign shim binary.
    """
    shim = path or (runtime if runtime.startswith("/") else "")
    if shim:
        preferred = _by_path(shim)
    elif runtime in OURS:
        preferred = OURS[runtime]
    else:
        raise errors.InvalidArgument(f"failed to resolve runtime path: {_unknown(runtime)}")
    fields = decode(options)
    return Choice(_checked(fields.get("binary_name", "")) or preferred, _absolute(fields.get("root", "")), options)


def decode(options: containers.Any | None) -> wire.Message:
    """Return the fields of runc options; {} for none, or for options of another type, which only the shim understands."""
    if options is None or options.type_url.rpartition("/")[2] != OPTIONS:
        return {}
    try:
        return wire.decode(OPTIONS, options.value)
    except ValueError as error:
        raise errors.InvalidArgument(f"runtime options: {error}") from None


def _by_path(path: str) -> str:
    if not os.path.isabs(path) or not os.path.isfile(path):
        raise errors.InvalidArgument(f"failed to resolve runtime path: invalid custom binary path {names.quote(path)}: file does not exist")
    if os.path.basename(path) == "containerd-shim-pydock-v1":
        return AUTO
    raise errors.Unimplemented(f"shim binary {names.quote(path)}")


def _unknown(runtime: str) -> str:
    match = _NAME.fullmatch(runtime)
    if match is None:
        return (
            f"invalid runtime name {runtime}, correct runtime name should be either format like `io.containerd.runc.v2` "
            "or a full path to the binary"
        )
    binary = f"containerd-shim-{match[1]}-{match[2]}"
    return f"runtime {names.quote(runtime)} binary not installed {names.quote(binary)}: file does not exist"


def _checked(binary: str) -> str:
    """A runtime is a bare name, looked up on the search path, or an absolute path."""
    if "\0" in binary or ("/" in binary and not binary.startswith("/")) or binary.startswith("-"):
        raise errors.InvalidArgument(f"runtime binary {names.quote(binary)}")
    return binary


def _absolute(root: str) -> str:
    if root and (not root.startswith("/") or "\0" in root):
        raise errors.InvalidArgument(f"runtime root {names.quote(root)} is not an absolute path")
    return root
