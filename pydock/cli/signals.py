"""Signals: by name or number as ``kill`` takes them, and what they may not do to a command that has something to clean up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from pydock.base import errors

Handler = Callable[[int, FrameType | None], None]

_LARGEST = 64


def parse(text: str) -> int:
    """Return the number of "SIGTERM", "term", "RTMIN+3" or "15". Raises InvalidArgument."""
    if text.isascii() and text.isdigit() and 0 < int(text[:4]) <= _LARGEST:
        return int(text)
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if base == "RTMIN" and (not plus or (offset.isascii() and offset.isdigit() and int(offset[:4]) <= signal.SIGRTMAX - signal.SIGRTMIN)):
        return signal.SIGRTMIN + int(offset or 0)
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        raise errors.InvalidArgument(f"unknown signal {text!r}") from None


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as an exception does, so that what it began is cleaned up; the exit code tells the signal."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    with _handled(end, signal.SIGTERM, signal.SIGHUP):
        yield


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Take no notice of what would end this command for the block, which must be bounded in time."""

    def nothing(number: int, frame: FrameType | None) -> None:
        """The clean-up goes on."""

    with _handled(nothing, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        yield


@contextlib.contextmanager
def _handled(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
