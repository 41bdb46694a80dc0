"""Every path below the daemon's root and state directories, drawn once.

``root`` survives a reboot (0700)::

    meta.db, meta.db-wal                              records of all namespaces (see store.schema)
    pydock.lock                                       held by the one daemon of this root (see daemon.claim)
    io.containerd.content.v1.content/                 blobs/<algorithm>/<hex>, ingest/
    io.containerd.snapshotter.v1.<name>/              index.db, snapshots/<number>/{fs,work}
    <plugin uri>/                                     of any other plugin, 0700

``state`` is emptied by a boot (0711)::

    pydock.sock, pydock.sock.ttrpc                    the listeners
    pydock.lock                                       held by the one daemon of this state
    io.containerd.runtime.v2.task/<namespace>/<id>/   a task's bundle: config.json, rootfs/, exit.json ...
    s/<hash>                                          shim sockets, 0600 in a 0700 directory
    <plugin uri>/                                     of any other plugin, 0711

Plugins get their own directory handed in and know nothing of the others; these names are for those who look at the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydock.base import names


@dataclass(frozen=True)
class Root:
    """Paths that survive a reboot."""

    path: Path

    @property
    def database(self) -> Path:
        """Return the file of `store.schema`."""
        return self.path / "meta.db"

    @property
    def content(self) -> Path:
        """Return the directory of blobs and ingests."""
        return self.plugin("io.containerd.content.v1.content")

    def snapshotter(self, name: str) -> Path:
        """Return the directory of a snapshotter. Raises InvalidArgument for what is no identifier."""
        return self.plugin(f"io.containerd.snapshotter.v1.{names.identifier(name)}")

    def plugin(self, uri: str) -> Path:
        """Return the directory of a plugin."""
        return self.path / uri


@dataclass(frozen=True)
class State:
    """Paths that a boot empties."""

    path: Path

    @property
    def sockets(self) -> Path:
        """Return the directory of shim sockets."""
        return self.path / "s"

    def bundle(self, ns: str, id: str) -> Path:
        """Return a task's bundle. Raises InvalidArgument for what is no identifier."""
        return self.path / "io.containerd.runtime.v2.task" / names.identifier(ns) / names.identifier(id)
