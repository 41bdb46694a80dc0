"""What a worker knows, packed so that the next one can go on: containers, connections with their unanswered Waits, descriptors.

Only a worker with nothing under way sleeps: no call but Waits, no exec, no terminal, no logger, no event still to be sent, no client still
awaited, nothing half read or half written.  All else is plain values.
"""

from __future__ import annotations

import os

from pydock_shim import cgroup, engine_oci, process, std, stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pydock_shim import shim

STATES = ("running", "paused")


def pack(one: shim.Shim) -> tuple[bytes, list[int], list[int]] | None:
    """The state, the descriptors to watch, and those only to keep; None if this worker may not sleep."""
    if one.loop.busy or one.server.busy or not one.events.empty.done:
        return None
    watched: list[int] = []
    kept: list[int] = []
    containers, connections = [], []
    for connection in one.server.connections:
        if connection.unsent or connection.reader.partial:
            return None
        waits = [[stream, message["id"], message["exec_id"]] for stream, message in connection.waits.items()]
        connections.append([connection.last_stream, waits])
        watched.append(connection.fd)
    for container in one.task.containers.values():
        packed = _pack_container(container, watched, kept)
        if packed is None:
            return None
        containers.append(packed)
    if one.task.watcher.fd >= 0:
        watched.append(one.task.watcher.fd)
    return std.dumps({"containers": containers, "connections": connections, "watched": len(watched)}), watched, kept


def restore(one: shim.Shim, state: bytes, fds: list[int]) -> None:
    """Go on where ``state`` was packed."""
    known = std.loads(state)
    connections, kept = known["connections"], fds[known["watched"] :]
    for packed in known["containers"]:
        _restore_container(one, packed, kept)
    for fd in fds[len(connections) : known["watched"]]:
        os.close(fd)  # of the kernel's out-of-memory events: there is a new one
    for (last_stream, waits), fd in zip(connections, fds, strict=False):
        connection = one.server.adopt(std.stream_socket(fd), last_stream)
        for stream, id, exec_id in waits:
            one.server.handle(connection, stream, "Wait", {"id": id, "exec_id": exec_id}, 0)


def _pack_container(container: process.Container, watched: list[int], kept: list[int]) -> dict[str, Any] | None:
    init, engine, group = container.init, container.engine, container.cgroup
    if init.state not in STATES or init.starting is not None or container.execs or init.streams is None or group is None:
        return None
    streams = init.streams.pack(kept)
    if streams is None:
        return None
    watched += [group.oom_fd] if group.oom_fd >= 0 else []
    return {
        "id": container.id,
        "bundle": container.bundle,
        "runtime": [engine.path, engine.root, engine.native, engine.in_host_namespace, engine.systemd_cgroup],
        "cgroup": [group.version, group.paths],
        "shares_pids": container.shares_pids,
        "oom_told": container.oom_told,
        "init": [init.state, init.pid, init.start_ticks, *init.paths],
        "streams": streams,
    }


def _restore_container(one: shim.Shim, packed: dict[str, Any], kept: list[int]) -> None:
    state, pid, ticks, stdin, stdout, stderr = packed["init"]
    path, root, native, in_host_namespace, systemd = packed["runtime"]
    engine = engine_oci.Engine(one.loop, one.task.host, path, root, packed["bundle"])
    engine.native, engine.in_host_namespace, engine.systemd_cgroup = native, in_host_namespace, systemd
    engine.oom_score = one.terms.oom_score
    request = {"terminal": False, "stdin": stdin, "stdout": stdout, "stderr": stderr}
    container = process.Container(packed["id"], packed["bundle"], engine, request)
    container.shares_pids, container.oom_told = packed["shares_pids"], packed["oom_told"]
    container.cgroup = cgroup.Cgroup.of(*packed["cgroup"])
    container.init.state = state
    container.init.streams = stdio.Streams(one.loop, (stdin, stdout, stderr), (one.terms.namespace, container.id))
    container.init.streams.restore([kept[index] for index in packed["streams"]["fds"]], packed["streams"]["stdin"])
    gone = container.init.adopt(one.loop, pid)
    container.init.start_ticks = ticks
    one.task.containers[container.id] = container
    one.task.watch_oom(container)
    one.task.ends.follow(container.init, gone)
    one.task.ends.look_for_oom(container)
