"""The unpack helper: a zygote that has imported everything, and the child it forks for each layer.

Vocabulary: the *zygote* is exec'd by the daemon with one end of a socket pair; it forks on request and reports each child's end. A *child*
takes one request, shuts itself in the target directory (``sandbox``), unpacks, answers and ends.
Invariants: the zygote has one thread and keeps no state of a layer; nothing is imported or executed in a child; when the daemon's end of
the socket closes, the zygote kills its children and ends. Messages: ``wire``.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final

from pydock.base import errors, syscalls
from pydock_plugins.diff import apply, confine, inflate, limits, lowers, sandbox, stream, wire

_PROGRESS: Final = 32 * limits.MIB
_LOWEST_FREE: Final = 3
_TOP: Final = 1 << 20


def main(argv: Sequence[str]) -> None:
    """Run the zygote on the socket whose descriptor is the first argument."""
    control = socket.socket(fileno=int(argv[0]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _warm()
    sandbox.empty_root()
    gc.collect()
    gc.freeze()
    gc.disable()
    _Zygote(control).run()


def _warm() -> None:
    """Make the lazy parts of libraries happen now: a sealed child cannot open a file of theirs."""
    b"x".decode("utf-8", "backslashreplace").encode("unicode_escape")
    json.loads('{"a": [1.5, null]}')
    list(inflate.pieces(lambda: b"", 1))


class _Zygote:
    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.children: dict[int, tuple[int, int]] = {}

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd != self.control.fileno():
                    self._ended(poll, fd)
                elif not self._requested(poll):
                    return self._leave()

    def _requested(self, poll: select.poll) -> bool:
        message, fds = wire.receive(self.control, 1)
        if message is None:
            return False
        pid = os.fork()
        if pid == 0:
            _child(socket.socket(fileno=fds[0]))
        os.close(fds[0])
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = (pid, message["id"])
        poll.register(pidfd, select.POLLIN)
        wire.send(self.control, {"id": message["id"], "pid": pid}, [pidfd])
        return True

    def _ended(self, poll: select.poll, pidfd: int) -> None:
        pid, request = self.children.pop(pidfd)
        poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        try:
            wire.send(self.control, {"id": request, "exit": status})
        except (BrokenPipeError, ConnectionResetError):
            self._leave()

    def _leave(self) -> None:
        for pidfd, (pid, _) in self.children.items():
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)
        os._exit(0)


def _child(sock: socket.socket) -> None:
    """One layer, then the end of the process, whatever happens."""
    try:
        _serve(sock)
    except errors.PydockError as error:
        _answer(sock, type(error).__name__, error.detail)
    except MemoryError:
        _answer(sock, "ResourceExhausted", "layer needs more memory than an unpack helper may have")
    except BaseException as error:  # noqa: BLE001 - the edge of the process: the daemon is told, then it ends
        _answer(sock, "Internal", f"unpack helper: {type(error).__name__}: {error}"[:2000])
    finally:
        os._exit(0)


def _answer(sock: socket.socket, kind: str, detail: str) -> None:
    wire.send(sock, {"error": {"type": kind, "detail": detail}})


def _serve(sock: socket.socket) -> None:
    os.closerange(_LOWEST_FREE, sock.fileno())
    os.closerange(sock.fileno() + 1, _TOP)
    request, fds = wire.receive(sock, 3)
    if request is None:
        return
    syscalls.set_name(b"pydock-unpack")
    bounds = limits.Limits(**request["limits"])
    blob = stream.Blob(fds[0], request["available"], final=request["final"], wait=_feed(fds[2:]))
    root = sandbox.enter(fds[1], bounds.bytes)
    os.close(fds[1])
    overlay = request["mode"] == apply.OVERLAY
    sandbox.drop(root, confine.OVERLAY_CAPABILITIES if overlay else confine.FILE_CAPABILITIES)
    below = lowers.Lowers(lambda: _lowers(sock)) if overlay and request["below"] else None
    layer = stream.Stream(blob, bounds)
    # Never joined: after an error it may wait for a blob that does not grow, and the process ends anyway.
    ahead = stream.Ahead(layer)
    ahead.start()
    sandbox.seal()
    pull = _reporting(ahead, sock)
    entries = apply.apply(pull, apply.Target(root, request["mode"], below), bounds)
    while pull():
        pass
    if request["sync"]:
        syscalls.syncfs(os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root))
    wire.send(sock, {"result": {"size": layer.size, "diff_id": layer.diff_id, "entries": entries}})


def _reporting(ahead: stream.Ahead, sock: socket.socket) -> Callable[[], bytes]:
    """``ahead.pull``, telling the daemon now and then how many bytes are unpacked, so that it sees a helper that is stuck."""
    done = told = 0

    def pull() -> bytes:
        nonlocal done, told
        piece = ahead.pull()
        done += len(piece)
        if done - told >= _PROGRESS:
            told = done
            wire.send(sock, {"progress": done})
        return piece

    return pull


def _feed(fds: Sequence[int]) -> stream.Wait | None:
    """How to wait for more of a blob that is still being fetched; None for a whole one."""
    if not fds:
        return None
    feed = socket.socket(fileno=fds[0])

    def wait(beyond: int) -> tuple[int, bool]:
        available, final = beyond, False
        while available <= beyond and not final:
            message, _ = wire.receive(feed)
            if message is None:
                raise errors.Canceled("layer blob stopped arriving")
            available, final = message["available"], message["final"]
        return available, final

    return wait


def _lowers(sock: socket.socket) -> list[int]:
    """Ask the daemon for the layers below; it answers when they are unpacked."""
    wire.send(sock, {"need": "lowers"})
    found: list[int] = []
    while True:
        message, fds = wire.receive(sock, wire.MAX_FDS)
        if message is None:
            raise errors.Canceled("layers below were not given")
        if len(fds) != message["lowers"]:
            raise errors.ResourceExhausted("unpack helper has no room for the descriptors of the layers below")
        found += fds
        if not message["more"]:
            return found


if __name__ == "__main__":
    main(sys.argv[1:])
