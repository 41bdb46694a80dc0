"""The terminal this command runs in: raw while a container has it, and its size.

Invariant: the terminal's modes are restored on every way out that runs Python code. Source: termios(3), tty_ioctl(4).
"""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator


def attached() -> bool:
    """Tell whether standard input is a terminal."""
    return sys.__stdin__ is not None and os.isatty(0)


@contextlib.contextmanager
def raw() -> Iterator[None]:
    """Take the terminal on standard input out of line editing for the block; nothing happens without a terminal."""
    if not attached():
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def size() -> tuple[int, int] | None:
    """Return (columns, rows) of the terminal, None without one."""
    for fd in (0, 1, 2):
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(fd)
            return (found.columns, found.lines) if found.columns > 0 and found.lines > 0 else None
    return None
