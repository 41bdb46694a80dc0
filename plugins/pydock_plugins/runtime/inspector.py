"""What a runtime says of itself, for ``ctr plugins inspect-runtime``: the shim's version and the OCI runtime's own features document.

A runtime that has no ``features`` command (crun before 1.9) is described without one; that is no error, as with containerd.
Source: the OCI runtime spec, features.md.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from pydock.base import errors, version
from pydock.core import containers, tasks
from pydock_plugins.runtime import aftermath, held, options
from pydock_plugins.runtime.launcher import Launcher, Lost, Refused

FEATURES = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
SECONDS = 10.0
LARGEST = 1 << 20
DEFAULT_NAME = "io.containerd.runc.v2"


@dataclass(frozen=True)
class Inspector:
    """Implements ``tasks.Inspector``; ``configured`` is the runtime of the configuration, by name, path or "auto"."""

    launcher: Launcher
    configured: str

    async def inspect(self, path: str, options_: containers.Any | None) -> tasks.RuntimeInfo:
        """Describe runtime ``path`` (a runtime name or a shim's path). Raises InvalidArgument, Unimplemented, Unavailable."""
        choice = options.choose(path, "", options_)
        binary = await self._binary(self.configured if choice.runtime == options.AUTO else choice.runtime)
        return tasks.RuntimeInfo(
            name=path or DEFAULT_NAME,
            version=tasks.RuntimeVersion(version.VERSION, os.path.basename(binary)),
            options=options_,
            features=await _features(binary),
        )

    async def _binary(self, runtime: str) -> str:
        if runtime == options.AUTO:
            runtime = await self._default()
        found = shutil.which(runtime, path=held.environment()["PATH"])
        if found is None:
            raise errors.NotFound(f"OCI runtime {runtime}")
        return found

    async def _default(self) -> str:
        try:
            hello = await self.launcher.answer(self.launcher.post({"op": "hello"}))
        except (Lost, Refused) as error:
            raise errors.Unavailable(f"which OCI runtime works here is not known: {error}") from error
        return str(hello["default"])


async def _features(binary: str) -> containers.Any | None:
    printed = await _printed((binary, "features"))
    try:
        known = isinstance(json.loads(printed), dict)
    except ValueError:
        known = False
    return containers.Any(FEATURES, printed) if known else None


async def _printed(argv: Sequence[str]) -> bytes:
    """Return what a command prints, nothing when it fails or takes too long."""
    with tempfile.TemporaryFile() as out:
        _, pidfd = held.spawn(argv, {1: out.fileno(), 2: out.fileno()})
        try:
            if not await aftermath.ends(pidfd, SECONDS):
                held.end(pidfd)
                return b""
            return b"" if held.reap(pidfd) else os.pread(out.fileno(), LARGEST, 0)
        finally:
            os.close(pidfd)
