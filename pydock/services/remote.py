"""The other side of a socket that answers containerd's services: calls, with errors as the classes they were.

Invariant: whatever is wrong with the other process is an error of ours with its code: Unavailable where nobody answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from pydock.base import errors

M = TypeVar("M", bound=Message)

LARGEST_MESSAGE = 64 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.default_authority", "localhost"),  # else the escaped socket path, which strict HTTP/2 servers refuse
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_BY_STATUS = {kind.code.value: kind for kind in errors.PydockError.__subclasses__()}


class Remote:
    """One channel to ``address``; it connects by itself when called, and again when the other side was away. Close it at the end."""

    def __init__(self, name: str, address: str, namespace: str) -> None:
        self._name, self._namespace = name, namespace
        self._channel = grpc.aio.insecure_channel(f"unix:{address.removeprefix('unix://')}", options=_OPTIONS)
        self._known: dict[str, Any] = {}

    async def close(self) -> None:
        """End the channel and the calls under way."""
        await self._channel.close(None)

    async def unary(self, path: str, request: Message, reply: type[M], ns: str = "") -> M:
        """Make one call, in the namespace of this remote or in ``ns``. Raises the error of its status."""
        call = self._known.get(path)
        if call is None:
            call = self._known[path] = self._channel.unary_unary(path, request_serializer=_encode, response_deserializer=reply.FromString)
        try:
            answer: M = await call(request, metadata=self._metadata(ns))
        except grpc.aio.AioRpcError as error:
            raise self._translate(error) from None
        return answer

    async def read(self, path: str, request: Message, reply: type[M]) -> AsyncIterator[M]:
        """Make a call with many answers."""
        multi = self._channel.unary_stream(path, request_serializer=_encode, response_deserializer=reply.FromString)
        call: Any = multi(request, metadata=self._metadata(""))
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._translate(error) from None
        finally:
            call.cancel()

    def converse(self, path: str, reply: type[M]) -> Talk:
        """Begin a call with many questions and as many answers."""
        multi: Any = self._channel.stream_stream(path, request_serializer=_encode, response_deserializer=reply.FromString)
        return Talk(self, multi(metadata=self._metadata("")))

    def _metadata(self, ns: str) -> tuple[tuple[str, str], ...]:
        return (("containerd-namespace", ns or self._namespace),)

    def _translate(self, error: grpc.aio.AioRpcError) -> errors.PydockError:
        kind = _BY_STATUS.get(error.code().value[0], errors.Unknown)
        detail = (error.details() or "").removesuffix(kind.text).removesuffix(": ")
        return kind(f"proxy plugin {self._name}: {detail}") if kind is errors.Unavailable and "connect" in detail else kind(detail)


class Talk:
    """Questions and answers by turns."""

    def __init__(self, remote: Remote, call: Any) -> None:
        self._remote, self._call = remote, call

    async def ask(self, request: Message) -> Any:
        """Return the answer to ``request``. Raises the error of the call's status, Unavailable where it just ended."""
        try:
            await self._call.write(request)
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._remote._translate(error) from None
        except (grpc.aio.UsageError, asyncio.InvalidStateError):  # the call ended before the write
            await self._failed()
        except grpc.aio.InternalError as error:
            raise errors.Unavailable(str(error)) from None
        if not isinstance(answer, Message):  # EOF
            await self._failed()
        return answer

    async def end(self) -> None:
        """Say that there are no more questions, and wait for the other side to be done."""
        if not self._call.done():
            await self._call.done_writing()
            await self._call.code()

    def cancel(self) -> None:
        """End it now."""
        self._call.cancel()

    async def _failed(self) -> None:
        code = await self._call.code()
        kind = _BY_STATUS.get(code.value[0], errors.Unavailable)
        raise kind((await self._call.details() or "the call ended").removesuffix(kind.text).removesuffix(": "))


@contextlib.contextmanager
def worded(what: str, *kinds: type[errors.PydockError]) -> Iterator[None]:
    """Raise errors of these kinds in our own words, as failures of ``what``: clients look for them, and every server has its own."""
    try:
        yield
    except kinds as error:
        raise type(error)(what) from None


def _encode(message: Message) -> bytes:
    return message.SerializeToString()
