"""Messages between the daemon, the unpack zygote and its children: JSON objects on sequenced-packet sockets, descriptors beside them.

Vocabulary (who sends what):

======================  =======================================================================================================
daemon to zygote        ``{"id": n}`` + [the child's socket]: fork a child
zygote to daemon        ``{"id": n, "pid": p}`` + [pidfd]; later ``{"id": n, "exit": wait status}``
daemon to child         ``{"mode", "available", "final", "below", "limits", "sync"}`` + [blob, tree] + [feed, when not final];
                        ``{"lowers": n, "more": bool}`` + [n trees], or ``{"error": reason}``
child to daemon         ``{"need": "lowers"}``, ``{"progress": bytes}``, then ``{"result": {...}}`` or ``{"error": {"type", "detail"}}``
daemon to child (feed)  ``{"available": bytes, "final": bool}``
======================  =======================================================================================================

Invariants: a message is at most ``LIMIT`` bytes; what a child says is checked like any other foreign input.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any, Final

from pydock.base import errors

LIMIT: Final = 65_536
MAX_FDS: Final = 128
KIND: Final = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC

Message = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, both blocking and close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, KIND)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message; BlockingIOError when a non-blocking socket is full."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if fds:
        socket.send_fds(sock, [data], list(fds))
    else:
        sock.send(data)


def receive(sock: socket.socket, max_fds: int = 0) -> tuple[Message | None, list[int]]:
    """The next message and its descriptors, None at the end; Internal for what is no message."""
    data, fds, flags, _ = socket.recv_fds(sock, LIMIT, max_fds, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None, fds
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise errors.Internal("unpack helper sent no message") from error
    if not isinstance(message, dict) or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise errors.Internal("unpack helper sent a broken message")
    return message, fds
