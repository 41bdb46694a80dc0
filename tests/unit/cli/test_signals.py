"""Signals by name, and commands that clean up after one."""

from __future__ import annotations

import os
import signal

import pytest

from pydock.base import errors
from pydock.cli import signals


@pytest.mark.parametrize(("text", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("sigusr1", 10), ("RTMIN", 34), ("SIGRTMIN+3", 37)])
def test_signals_are_known_by_name_and_number(text: str, number: int) -> None:
    assert signals.parse(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-9", "SIGNOTHING", "SIG", "9.0", "٩", "RTMIN+99", "1000000000000"])
def test_what_is_no_signal_is_an_error(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        signals.parse(text)


def test_a_signal_ends_an_orderly_block_as_an_exception_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, signals.orderly():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_shielded_block_is_not_ended() -> None:
    done = False
    with signals.orderly(), signals.shielded():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        done = True
    assert done
