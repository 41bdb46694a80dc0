"""Table of the built-in plugins: adding one is adding a line.

Vocabulary: ``PLUGINS`` maps the uri of a plugin to the module that registers it; a module is imported only when one of its plugins is
enabled. ``EARLY`` maps a name to ``module:function``, called with root and state before grpc is imported; its result is found in
``plugin.Daemon.early`` under that name. Plugins of others come by the entry point group ``pydock.plugins`` (name: uri, value: module).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import cast

from pydock.base import errors
from pydock.core import plugin

GROUP = "pydock.plugins"

EARLY: dict[str, str] = {
    "launcher": "pydock_plugins.runtime.launcher:start_early",
}

PLUGINS: dict[str, str] = {
    "io.pydock.mounts.v1.kernel": "pydock_plugins.mounts.kernel",
    "io.containerd.mount-manager.v1.bolt": "pydock_plugins.mounts.manager",
    "io.containerd.snapshotter.v1.overlayfs": "pydock_plugins.snapshots.overlay",
    "io.containerd.snapshotter.v1.native": "pydock_plugins.snapshots.native",
    "io.containerd.content.v1.content": "pydock_plugins.content.local",
    "io.containerd.event.v1.exchange": "pydock.domain.events",
    "io.containerd.streaming.v1.manager": "pydock.domain.streams",
    "io.containerd.internal.v1.event-packer": "pydock.services.packer",
    "io.containerd.metadata.v1.bolt": "pydock.store.plugins",
    "io.containerd.differ.v1.walking": "pydock_plugins.diff.plugin",
    "io.pydock.compare.v1.walking": "pydock_plugins.diff.compare",
    "io.pydock.remotes.v1.registry": "pydock_plugins.remotes.registry",
    "io.pydock.unpack.v1.layers": "pydock.domain.unpack",
    "io.containerd.transfer.v1.local": "pydock.domain.transfers",
    "io.containerd.runtime.v2.task": "pydock_plugins.runtime.plugin",
    "io.containerd.tracing.processor.v1.otlp": "pydock.services.tracing",
    "io.pydock.offer.v1.snapshots": "pydock.services.raw_snapshots",
    "io.pydock.metrics.v1.sources": "pydock.services.metrics.server",
    "io.pydock.metrics.v1.http": "pydock.services.metrics.server",
    "io.containerd.grpc.v1.containers": "pydock.services.containers",
    "io.containerd.grpc.v1.content": "pydock.services.content",
    "io.containerd.grpc.v1.events": "pydock.services.events",
    "io.containerd.grpc.v1.images": "pydock.services.images",
    "io.containerd.grpc.v1.introspection": "pydock.services.introspection",
    "io.containerd.grpc.v1.leases": "pydock.services.leases",
    "io.containerd.grpc.v1.mounts": "pydock.services.mounts",
    "io.containerd.grpc.v1.namespaces": "pydock.services.namespaces",
    "io.containerd.grpc.v1.sandboxes": "pydock.services.sandboxes",
    "io.containerd.grpc.v1.sandbox-controllers": "pydock.services.sandboxes",
    "io.containerd.grpc.v1.snapshots": "pydock.services.snapshots",
    "io.containerd.grpc.v1.streaming": "pydock.services.streaming",
    "io.containerd.grpc.v1.tasks": "pydock.services.tasks",
    "io.containerd.grpc.v1.diff": "pydock.services.diff",
    "io.containerd.grpc.v1.transfer": "pydock.services.transfer",
    "io.containerd.grpc.v1.version": "pydock.services.version",
    "io.containerd.grpc.v1.healthcheck": "pydock.services.health",
}


class BadModule(errors.InvalidArgument):
    """A module does not hold the plugin that the table, or an entry point, says."""


def known() -> dict[str, str]:
    """Return the module of every plugin, built in or installed beside, by uri. Raises BadModule where two claim a uri."""
    modules = dict(PLUGINS)
    for uri, module in installed():
        if modules.setdefault(uri, module) != module:
            raise BadModule(f"plugin {uri} is provided by {modules[uri]} and by {module}")
    return modules


def installed() -> Iterator[tuple[str, str]]:
    """Yield uri and module of plugins that other packages install.

    The packages' metadata is first looked through for the group's name: ``importlib.metadata`` costs 20 ms that most never need.
    """
    if not any(_mentions_group(Path(folder)) for folder in sys.path if folder.endswith("-packages")):
        return
    from importlib import metadata

    for point in sorted(metadata.entry_points(group=GROUP), key=lambda one: one.name):
        yield point.name, point.value


def _mentions_group(packages: Path) -> bool:
    needle = f"[{GROUP}]".encode()
    return any(needle in path.read_bytes() for path in packages.glob("*-info/entry_points.txt"))


def load(modules: Mapping[str, str], disabled: Collection[str] = ()) -> list[plugin.Registration]:
    """Import the modules of all plugins that are not ``disabled`` and return their registrations. Raises BadModule."""
    found: list[plugin.Registration] = []
    for uri, module in modules.items():
        if uri not in disabled:
            found.append(_registration(uri, module))
    return found


def _registration(uri: str, module: str) -> plugin.Registration:
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise BadModule(f"plugin {uri}: module {module} cannot be imported: {error}") from error
    for value in vars(loaded).values():
        if isinstance(value, plugin.Registration) and value.uri == uri:
            return value
    raise BadModule(f"plugin {uri}: module {module} does not register it")


def run_early(root: Path, state: Path) -> dict[str, object]:
    """Call every early maker and return what they made, by name."""
    made: dict[str, object] = {}
    for name, target in EARLY.items():
        module, _, function = target.partition(":")
        make = cast("Callable[[Path, Path], object]", getattr(importlib.import_module(module), function))
        made[name] = make(root, state)
    return made
