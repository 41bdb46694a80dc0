"""The FIFOs a process's streams go through, in a directory nobody else can enter.

Vocabulary: a *set* is the directory with up to three FIFOs, "stdin", "stdout" and "stderr" (no stderr with a terminal).
Invariants: the directory is 0700, the FIFOs 0600; our ends never block and never fail for want of the other side, whatever the order in
which the shim opens its own. Source: fifo(7), poll(2) (no hang-up before a first writer).
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydock.client.tasks import Stdio

PREFIX = "pctr-"


@dataclass
class Fifos:
    """Our ends: ``stdin`` to write, ``stdout`` and ``stderr`` to read; -1 where there is none (any more)."""

    stdio: Stdio
    directory: str = ""
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1

    def open(self) -> None:
        """Open our ends."""
        if self.stdio.stdin:
            # Both directions, so that the open needs no reader yet and a write after the reader's end is no SIGPIPE.
            self.stdin = os.open(self.stdio.stdin, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if self.stdio.stdout:
            self.stdout = os.open(self.stdio.stdout, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if self.stdio.stderr:
            self.stderr = os.open(self.stdio.stderr, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        """Close our ends; the FIFOs stay."""
        for name in ("stdin", "stdout", "stderr"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)


@contextlib.contextmanager
def made(parent: str = "", *, terminal: bool = False, stdin: bool = True, keep: bool = False) -> Iterator[Fifos]:
    """Make a set below ``parent`` and open our ends for the block; afterwards the set is removed unless ``keep`` and no error."""
    directory = tempfile.mkdtemp(prefix=PREFIX, dir=parent or None)
    names = ["stdout"] + ["stdin"] * stdin + ["stderr"] * (not terminal)
    paths = {name: os.path.join(directory, name) for name in names}
    fifos = Fifos(Stdio(paths.get("stdin", ""), paths["stdout"], paths.get("stderr", ""), terminal), directory)
    done = False
    try:
        for path in paths.values():
            os.mkfifo(path, 0o600)
        fifos.open()
        yield fifos
        done = True
    finally:
        fifos.close()
        if not (keep and done):
            discard(fifos.stdio)
            with contextlib.suppress(OSError):
                os.rmdir(directory)


@contextlib.contextmanager
def reopened(stdio: Stdio) -> Iterator[Fifos]:
    """Open our ends of a set somebody else made; it stays. Raises OSError."""
    fifos = Fifos(stdio)
    try:
        fifos.open()
        yield fifos
    finally:
        fifos.close()


def discard(stdio: Stdio) -> None:
    """Remove a set by its paths; only FIFOs in a directory of ours are touched, whatever the daemon says the paths are."""
    for path in (stdio.stdin, stdio.stdout, stdio.stderr):
        directory = Path(path).parent
        if not path.startswith("/") or not directory.name.startswith(PREFIX):
            continue
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.lstat(path).st_mode):
                os.unlink(path)
            directory.rmdir()
