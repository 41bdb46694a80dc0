"""The runtime as a plugin: launcher, events socket, records of the tasks that outlived the last daemon, the verbs on top.

Order of start: bundles are scanned (no shim is asked yet), the events socket listens, then every shim found is tended in the
background; the daemon goes on starting meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydock.base import errors
from pydock.core import events, plugin, tasks
from pydock_plugins.runtime import bundle, inspector, intake, server, tending
from pydock_plugins.runtime import launcher as launchers
from pydock_plugins.runtime.manager import Manager
from pydock_plugins.runtime.records import Phase, Process, Record
from pydock_plugins.runtime.registry import Parts, Registry

LONGEST_SOCKET = 106
PART_SECONDS = 1.0


@dataclass(frozen=True)
class RuntimeConfig(plugin.Config):
    """How tasks are run."""

    runtime: str = plugin.option("auto", 'OCI runtime: a name, a path, or "auto" for the fastest that works here')
    runtime_root: str = plugin.option("", "directory of the OCI runtime's own state, \"\" for one below the daemon's")
    debug: bool = plugin.option(False, "let shims log in their bundles what they do")


@plugin.plugin("io.containerd.runtime.v2", "task", platforms=("linux/amd64",))
async def task(
    cfg: RuntimeConfig, daemon: plugin.Daemon, state: plugin.PluginState, exchange: events.Exchange, supervisor: plugin.Supervisor
) -> AsyncIterator[tuple[tasks.Runtime, tasks.Inspector]]:
    """Shims under this daemon, for all namespaces."""
    records = Registry()
    bundles = bundle.Bundles(state)
    incoming = intake.Intake(records, exchange)
    handle = daemon.early.get("launcher")
    launcher = launchers.Launcher(handle if isinstance(handle, launchers.Handle) else None)
    async with launcher, plugin.background() as spawn:

        def keep(name: str, loop: Callable[[], Awaitable[None]]) -> None:
            spawn(supervisor.keep(name, loop), name=name)

        care = tending.Tending(records, incoming, keep)
        found = adopted(bundles, records)
        sockets = socket_folder(daemon.state)
        async with server.serve(daemon.ttrpc_address, incoming.handlers()):
            for record in found:
                care.begin(record)
            strays = unclaimed(sockets, found)
            keep("sweep sockets", lambda: tending.sweep(strays))
            parts = Parts(
                bundles=bundles,
                launcher=launcher,
                sockets=sockets,
                events_address=str(daemon.ttrpc_address),
                runtime=cfg.runtime,
                runtime_root=cfg.runtime_root or str(daemon.state / "runtime"),
                debug=cfg.debug,
                records=records,
            )
            yield Manager(parts, incoming, care), inspector.Inspector(launcher, cfg.runtime)
            await leave(records)


def adopted(bundles: bundle.Bundles, records: Registry) -> list[Record]:
    """Return a record for every bundle there is; what is known of it without its shim is what it was."""
    found = []
    for place in bundles.scan():
        record = Record(place, Phase.LOADING)
        record.processes[""] = Process("", tasks.Stdio(), tasks.Status.UNKNOWN)
        records.add(record)
        found.append(record)
    return found


def unclaimed(sockets: Path, found: Sequence[Record]) -> list[Path]:
    """Return the sockets that no bundle names."""
    named = {record.bundle.read_text("address").removeprefix("unix://") for record in found}
    return [path for path in sorted(sockets.iterdir()) if str(path) not in named]


async def leave(records: Registry) -> None:
    """Part from every shim without ending one; who waits for a task learns that the daemon stops.

    Shims of tasks that were just deleted are given a moment to be gone, so that a stopped daemon leaves nothing of theirs.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PART_SECONDS):
            for record in records.all():
                if record.farewell is not None:
                    await record.left.wait()
    for record in records.all():
        record.detach()
    await asyncio.sleep(0)  # the transports close in the loop's next turn


def socket_folder(state: Path) -> Path:
    """Return the directory of the shims' sockets, made 0700.  Raises InvalidArgument when paths in it would be too long."""
    folder = state / "s"
    if len(os.fsencode(folder / "0123456789abcdef")) > LONGEST_SOCKET:
        raise errors.InvalidArgument(f"the state directory {state} is too long a path for shim sockets below it")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
