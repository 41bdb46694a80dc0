"""The launcher: a small process that forks shims for the daemon, which is too big and too threaded to fork itself.

Run by path: ``python3 -I -S -E -OO .../pydock_shim/__main__.py launch --fd N``, where descriptor N is one end of a SOCK_SEQPACKET pair.
One JSON datagram is one request and gets one answer; they are served in turn.

- ``{"op": "hello"}`` -> ``{"ok": true, "pid", "runtimes": {NAME: {"path", "version", "works", "why"}}, "default": NAME, "cgroups": 1|2}``
- ``{"op": "spawn", "namespace", "id", "socket", "bundle", "runtime_root", "events"?, "runtime"?, "group"?, "debug"?}``
  -> ``{"ok": true, "pid", "start_ticks"}`` or ``{"ok": false, "error"}``

``socket`` is the path (at most 106 bytes) to listen on; it accepts connections before the answer is sent.  ``events`` is the path of the
daemon's ttrpc socket.  ``runtime``: "auto", "crun", "runc" or a path.  ``runtime_root``: where OCI runtimes keep state; each namespace
gets a directory of its own below.  A shim is nobody's child (it is forked twice) and lives on when launcher and daemon are gone; the
launcher ends when the daemon's end of the pair is closed.

Memory decides who does what.  Every page that a process writes to stops being shared with the one it was forked from.  So the launcher
only receives, forks and waits; the process between it and the shim forks the shim first, then does all the work of the request (sockets,
files, JSON) and ends; and the shim is told in one short message what it is.
"""

from __future__ import annotations

import gc
import os

from pydock_shim import host, linux, requests, shim, std, warmup
from pydock_shim.std import signal, socket

REQUEST_LIMIT = 1 << 16


def main(fd: int) -> None:
    """Serve requests until the other end is closed."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
    link.setblocking(True)
    os.set_inheritable(fd, False)
    linux.prctl(linux.PR_SET_NAME, shim.NAME)  # inherited by the shims
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shim.settle(fd)
    where = host.Host()
    where.probe()
    places = ("/dev/shm", "/run", os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - memory first: a rehearsal syncs its files
    directory = next(place for place in places if os.access(place, os.W_OK))
    warmup.run(f"{directory}/pydock-rehearsal-{os.getpid()}")
    gc.disable()
    gc.collect()
    gc.freeze()
    while True:
        try:
            data = link.recv(REQUEST_LIMIT)
        except ConnectionResetError:
            return
        if not data:
            return
        middle = os.fork()
        if middle == 0:
            _between(where, link, data)
        os.waitpid(middle, 0)


def _between(where: host.Host, link: socket.socket, data: bytes) -> None:
    """Fork a shim, then read the request, answer it, and tell the shim what it is; never returns."""
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if child == 0:
            ours.close()
            link.close()
            shim.main(where, theirs)
        theirs.close()
        link.send(std.dumps(requests.handle(where, data, child, ours)))
    finally:
        os._exit(0)
