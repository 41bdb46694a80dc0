"""The C halves of a few standard modules, without their Python halves.

``signal``, ``socket`` and ``json`` pull in ``enum``, ``selectors`` and ``re``: 1.5 MB of objects, and every use of one of their
enumerations dirties some hundred kilobytes in each shim.  What is used here of ``_signal`` and ``_socket`` has the same names there as in
the public modules; this file adds the few things that have not.
"""

from __future__ import annotations

import _json
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from typing import Any
else:
    import _signal as signal
    import _socket as socket


__all__ = ["accept", "dumps", "loads", "receive_fd", "receive_fds", "send_fd", "send_fds", "signal", "socket", "stream_socket"]


class _Reading:
    """What the C scanner asks of its context; NaN and its kind are refused as RFC 8259 has it."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012

    @staticmethod
    def parse_constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")


_INT = struct.Struct("=i")
_scan: Any = _json.make_scanner(_Reading())  # type: ignore[arg-type]
_quote = _json.encode_basestring_ascii


def loads(data: str | bytes) -> Any:
    """The value in a JSON text.  ``ValueError``."""
    text = data.decode() if isinstance(data, bytes) else data
    text = text.strip(" \t\r\n")
    try:
        value, end = _scan(text, 0)
    except StopIteration as stop:
        raise ValueError(f"no JSON value at character {stop.value}") from None
    except RecursionError:
        raise ValueError("JSON is nested too deep") from None
    if end != len(text):
        raise ValueError(f"JSON goes on after its end, at character {end}")
    return value


def dumps(value: Any) -> bytes:
    """JSON of dicts with text keys, lists, text, numbers, booleans and None."""
    return _dump(value).encode()


def _dump(value: Any) -> str:
    if isinstance(value, str):
        text: str = _quote(value)
        return text
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{_quote(key)}:{_dump(item)}" for key, item in value.items()]) + "}"
    return "[" + ",".join([_dump(item) for item in value]) + "]"


def stream_socket(fd: int | None = None) -> socket.socket:
    """A new non-blocking unix stream socket, or the one that is ``fd``."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    one.setblocking(False)
    return one


def accept(listener: socket.socket) -> socket.socket:
    """The next client, non-blocking.  ``BlockingIOError`` when there is none."""
    fd, _address = listener._accept()  # type: ignore[attr-defined]
    return stream_socket(fd)


def send_fd(peer: socket.socket, data: bytes, fd: int) -> None:
    """Send ``data`` and a descriptor with it."""
    peer.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _INT.pack(fd))])


def receive_fds(peer: socket.socket, most: int, limit: int) -> tuple[bytes, list[int]]:
    """Up to ``limit`` bytes and ``most`` descriptors that are there now.  ``BlockingIOError`` when nothing is."""
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    data, ancillary, _flags, _address = peer.recvmsg(limit, socket.CMSG_LEN(_INT.size * most), flags)
    found: list[int] = []
    for level, kind, packed in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found += [fd for (fd,) in _INT.iter_unpack(packed[: len(packed) // _INT.size * _INT.size])]
    return data, found


def send_fds(peer: socket.socket, data: bytes, fds: list[int]) -> None:
    """Send ``data`` and descriptors with it."""
    packed = b"".join([_INT.pack(fd) for fd in fds])
    peer.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)] if fds else [])


def receive_fd(peer: socket.socket) -> tuple[bytes, int]:
    """Data, and the descriptor sent with it by SCM_RIGHTS, -1 if none came.  ``OSError``."""
    data, ancillary, _flags, _address = peer.recvmsg(8192, socket.CMSG_LEN(_INT.size), socket.MSG_CMSG_CLOEXEC)
    for level, kind, packed in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(packed) >= _INT.size:
            return data, _INT.unpack(packed[: _INT.size])[0]
    return data, -1
