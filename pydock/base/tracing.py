"""Spans: what took how long on behalf of what, told to a recorder where one is set, and free where none is.

Vocabulary: a *trace* is all that one request caused, over processes; a *span* is one step of it, its *parent* the step it is part of.  Both
have random ids, passed on as W3C's ``traceparent`` (https://www.w3.org/TR/trace-context/).  The current span is a context variable, so the
tasks a step starts belong to it.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


@dataclass(slots=True)
class Span:
    """One step; ids in hex (32 and 16 digits, "" for no parent), times in ns since the epoch, ``error`` "" when all went well."""

    name: str
    trace: str
    id: str
    parent: str = ""
    serves: bool = False
    start: int = 0
    end: int = 0
    attributes: dict[str, str] = field(default_factory=dict)
    error: str = ""


Recorder = Callable[[Span], None]

_recorder: Recorder | None = None
_current: contextvars.ContextVar[tuple[str, str]] = contextvars.ContextVar("span", default=("", ""))


def record(recorder: Recorder | None) -> None:
    """Give every span that ends to ``recorder``, on the thread it ends on; None turns tracing off."""
    global _recorder
    _recorder = recorder


@contextlib.contextmanager
def span(name: str, attributes: Mapping[str, str] = {}, *, traceparent: str | None = None) -> Iterator[Span | None]:
    """Time the body as part of the current span, or of the one of a client's ``traceparent`` header. Yields None while tracing is off."""
    recorder = _recorder
    if recorder is None:
        yield None
        return
    trace, parent = _current.get() if traceparent is None else parsed(traceparent)
    made = Span(name, trace or secrets.token_hex(16), secrets.token_hex(8), parent, traceparent is not None, time.time_ns())
    made.attributes.update(attributes)
    token = _current.set((made.trace, made.id))
    try:
        yield made
    except BaseException as error:
        made.error = made.error or str(error) or type(error).__name__
        raise
    finally:
        _current.reset(token)
        made.end = time.time_ns()
        recorder(made)


def parsed(traceparent: str) -> tuple[str, str]:
    """Return trace and span id of the header, empty ones for a header that is none."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or not found[1].strip("0") or not found[2].strip("0") or traceparent.startswith("ff"):
        return "", ""
    return found[1], found[2]


def traced(name: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Make each call of a coroutine function a span; off, it costs one comparison."""

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(function)
        async def inside(*args: P.args, **kwargs: P.kwargs) -> T:
            if _recorder is None:
                return await function(*args, **kwargs)
            with span(name):
                return await function(*args, **kwargs)

        return inside

    return decorate
