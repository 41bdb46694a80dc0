"""One gRPC channel to a daemon's unix socket, with the namespace, lease and deadline every call carries.

Vocabulary: a *path* is "/package.Service/Method"; a *deadline* is a moment of the monotonic clock shared by all calls of a connection.
Invariants: every failed call raises the PydockError of its status, worded as the daemon worded it; ``grpc.RpcError`` never leaves here.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from pydock.base import errors

M = TypeVar("M", bound=Message)

NAMESPACE_HEADER = "containerd-namespace"
LEASE_HEADER = "containerd-lease"
LARGEST_MESSAGE = 64 << 20
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    # Without it the authority would be the escaped socket path, which strict HTTP/2 servers refuse.
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_BY_STATUS = {kind.code.value: kind for kind in errors.PydockError.__subclasses__()}


@dataclass(frozen=True)
class Connection:
    """A channel bound to a namespace; cheap to copy with other values (`leased`, `within`)."""

    channel: grpc.Channel
    namespace: str
    lease: str = ""
    deadline: float | None = None
    waits: bool = False

    def leased(self, lease: str) -> Connection:
        """Return this connection with ``lease`` protecting what its calls create."""
        return replace(self, lease=lease)

    def within(self, seconds: float) -> Connection:
        """Return this connection with at most ``seconds`` left; for clean-up that must not hang."""
        return replace(self, deadline=time.monotonic() + seconds)

    def patient(self) -> Connection:
        """Return this connection with calls that wait for a daemon that is not there (any more), as long as their deadline lets them."""
        return replace(self, waits=True)

    def unary(self, path: str, request: Message, reply: type[M]) -> M:
        """Make one call. Raises the PydockError of its status."""
        call = self.channel.unary_unary(path, request_serializer=_encode, response_deserializer=reply.FromString)
        try:
            answer: M = call(request, timeout=self._left(), metadata=self._metadata(), wait_for_ready=self.waits)
        except grpc.RpcError as error:
            raise translate(error) from None
        return answer

    def begin(self, path: str, request: Message, reply: type[M]) -> Pending[M]:
        """Start one call and return at once; its ``result`` gives the answer."""
        call = self.channel.unary_unary(path, request_serializer=_encode, response_deserializer=reply.FromString)
        return Pending(call.future(request, timeout=self._left(), metadata=self._metadata(), wait_for_ready=self.waits))

    def read(self, path: str, request: Message, reply: type[M]) -> Iterator[M]:
        """Make a call with many answers; leaving the iteration early cancels it."""
        call = self.channel.unary_stream(path, request_serializer=_encode, response_deserializer=reply.FromString)
        return _drain(call(request, timeout=self._left(), metadata=self._metadata()))

    def converse(self, path: str, requests: Iterable[Message], reply: type[M]) -> Talk[M]:
        """Make a call with many questions and many answers."""
        call = self.channel.stream_stream(path, request_serializer=_encode, response_deserializer=reply.FromString)
        return Talk(call(iter(requests), timeout=self._left(), metadata=self._metadata()))

    def _left(self) -> float | None:
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise errors.DeadlineExceeded()
        return left

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        pairs = [(NAMESPACE_HEADER, self.namespace)] if self.namespace else []
        if self.lease:
            pairs.append((LEASE_HEADER, self.lease))
        return tuple(pairs)


class Pending(Generic[M]):
    """A call under way."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def result(self) -> M:
        """Wait for the answer. Raises the PydockError of the call's status."""
        try:
            answer: M = self._call.result()
        except grpc.RpcError as error:
            raise translate(error) from None
        except grpc.FutureCancelledError:
            raise errors.Canceled() from None
        return answer

    def done(self) -> bool:
        """Tell whether `result` would not wait."""
        return bool(self._call.done())

    def when_done(self, notify: Callable[[], None]) -> None:
        """Call ``notify`` on a thread of grpc when the call ends."""
        self._call.add_done_callback(lambda _: notify())

    def cancel(self) -> None:
        """Give the call up."""
        self._call.cancel()


class Talk(Generic[M]):
    """A call with many questions and many answers: iterate for the answers."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[M]:
        return self

    def __next__(self) -> M:
        try:
            answer: M = next(self._call)
        except grpc.RpcError as error:
            raise translate(error) from None
        return answer

    def cancel(self) -> None:
        """End it now, both ways."""
        self._call.cancel()


def _drain(call: Any) -> Iterator[Any]:
    try:
        yield from call
    except grpc.RpcError as error:
        raise translate(error) from None
    finally:
        call.cancel()


def _encode(message: Message) -> bytes:
    return message.SerializeToString()


def translate(error: grpc.RpcError) -> errors.PydockError:
    """Return the error of a failed call, its text as the daemon sent it (the class's own words are not doubled)."""
    code = error.code() if isinstance(error, grpc.Call) else None
    kind = _BY_STATUS.get(code.value[0], errors.Unknown) if code is not None else errors.Unknown
    details = (error.details() if isinstance(error, grpc.Call) else "") or ""
    return kind("" if details in (kind.text, "Deadline Exceeded") else details.removesuffix(f": {kind.text}"))


@contextlib.contextmanager
def connect(address: str, namespace: str, *, timeout: float = 0, connect_timeout: float = 0) -> Iterator[Connection]:
    """Open a channel to the socket at ``address`` (a path, perhaps with "unix://"); times in s, 0 is no limit.

    Raises Unavailable when there is no socket, or nobody answers on it within ``connect_timeout``.
    """
    path = address.removeprefix("unix://").removeprefix("unix:")
    try:
        os.stat(path)
    except OSError as error:
        raise errors.Unavailable(f"cannot access socket {path}: {os.strerror(error.errno or 0).lower()}") from None
    with grpc.insecure_channel(f"unix:{path}", options=_CHANNEL_OPTIONS) as channel:
        if connect_timeout > 0:
            _wait_ready(channel, path, connect_timeout)
        yield Connection(channel, namespace, deadline=time.monotonic() + timeout if timeout > 0 else None)


def _wait_ready(channel: grpc.Channel, path: str, seconds: float) -> None:
    try:
        grpc.channel_ready_future(channel).result(timeout=seconds)
    except grpc.FutureTimeoutError:
        raise errors.Unavailable(f"nothing answers on {path} within {seconds:g} s") from None
