"""The launcher's requests, as ``launcher`` describes them: one datagram in, one answer out."""

from __future__ import annotations

import os

from pydock_shim import linux, server, service, shim, std
from pydock_shim.failpoint import failpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pydock_shim import host
    from pydock_shim.std import socket

OOM_SCORE = -998
NEEDED = ("namespace", "id", "socket", "bundle", "runtime_root")


def handle(where: host.Host, data: bytes, child: int, channel: socket.socket) -> dict[str, Any]:
    """The answer to one request.  ``child`` waits at the other end of ``channel`` to be told that it is a shim, or to see it closed."""
    try:
        request = std.loads(data)
        operation = request["op"]
        if operation == "hello":
            return hello(where)
        if operation == "spawn":
            return {"ok": True, **spawn(request, child, channel)}
    except (ValueError, KeyError, TypeError) as error:
        return {"ok": False, "error": f"malformed request: {error}"}
    except OSError as error:
        return {"ok": False, "error": str(error)}
    return {"ok": False, "error": f"unknown operation {operation!r}"}


def hello(where: host.Host) -> dict[str, Any]:
    """What works here."""
    version = 2 if where.unified_only else 1
    return {"ok": True, "pid": where.launcher, "runtimes": where.runtimes, "default": where.default, "cgroups": version}


def spawn(request: dict[str, Any], child: int, channel: socket.socket) -> dict[str, Any]:
    """Bind the socket, leave the shim's identity in its bundle, send it off; its pid and start ticks."""
    for name in NEEDED:
        if not isinstance(request[name], str) or not request[name]:
            raise ValueError(f"{name} is empty")
    listener = server.listen(request["socket"])
    try:
        failpoint("shim.launched")
        identity = write_identity(request, child)
        score = protect(f"/proc/{child}/oom_score_adj")
        terms = shim.Terms(*[request.get(name) or "" for name in shim.TERMS[:-1]], score)
        std.send_fd(channel, shim.packed(terms), listener.fileno())
    except OSError:
        os.unlink(request["socket"])
        raise
    finally:
        listener.close()
    return identity


def protect(path: str) -> str:
    """Keep the OOM killer off a shim where that is allowed; the score its children are to have, "" if it was not changed."""
    try:
        before = linux.read_text(path).strip()
        if int(before) <= OOM_SCORE:
            return ""
        linux.write_file(path, str(OOM_SCORE).encode(), 0)
    except (OSError, ValueError):
        return ""  # without CAP_SYS_RESOURCE it may only go up
    return before


def write_identity(request: dict[str, Any], pid: int) -> dict[str, Any]:
    """Leave ``address`` and ``shim.json`` in the bundle, by which a daemon finds this shim again; its pid and start ticks."""
    identity = {"pid": pid, "start_ticks": linux.start_ticks(pid)}
    known = {**identity, "version": service.VERSION, "namespace": request["namespace"], "id": request["id"], "socket": request["socket"]}
    linux.replace_file(request["bundle"] + "/address", f"unix://{request['socket']}".encode())
    linux.replace_file(request["bundle"] + "/shim.json", std.dumps(known))
    return identity
