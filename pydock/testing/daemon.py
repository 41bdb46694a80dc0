"""Runs real daemons for tests: a ``pydockd`` process of its own on directories of its own.

Vocabulary: a *place* is a directory (on tmpfs where there is one) that holds root, state and log of one daemon over its restarts;
*ready* is what the daemon itself says through a pipe, so nothing here sleeps or polls.
Invariant: ``kill9`` and ``restart`` keep the place; leaving ``running`` stops the daemon and removes the place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

START_SECONDS = 20
STOP_SECONDS = 15
TMPFS = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
MARK = "PYDOCK_TEST_PLACE"


class DaemonFailed(Exception):
    """The daemon did not become ready, or did not stop; the text holds the end of its log."""


class Daemon:
    """One daemon at one place; ``start`` it as often as it was stopped or killed."""

    def __init__(self, place: Path, *, config: str = "", flags: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        """``config`` is TOML written to ``config.toml``; ``flags`` and ``env`` are added to the command."""
        self.place = place
        self.root = place / "root"
        self.state = place / "state"
        self.address = self.state / "pydock.sock"
        self.log_path = place / "log"
        self.log_level = "debug"
        self.log_target: IO[bytes] | None = None
        self.config_path = place / "config.toml"
        self.flags = tuple(flags)
        self.env = dict(env or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.config_path.write_text(config)

    @property
    def ttrpc_address(self) -> Path:
        """Return the path of the ttrpc events socket."""
        return Path(f"{self.address}.ttrpc")

    @property
    def pid(self) -> int:
        """Return the pid of the running daemon. Raises DaemonFailed where there is none."""
        if self.process is None:
            raise DaemonFailed("the daemon does not run")
        return self.process.pid

    def command(self) -> list[str]:
        """Return the argv that starts it."""
        places = ["--config", str(self.config_path), "--root", str(self.root), "--state", str(self.state)]
        level = ["--log-level", self.log_level] if self.log_level else []
        return [sys.executable, "-m", "pydock.daemon.main", *places, *level, *self.flags]

    def start(self) -> None:
        """Start it and return when it is ready. Raises DaemonFailed with its log."""
        reader, writer = os.pipe()
        environment = {**os.environ, MARK: str(self.place), **self.env, "PYDOCK_READY_FD": str(writer)}
        with self.log_path.open("ab") as file:
            log = self.log_target or file
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=(writer,), cwd="/"
            )
        os.close(writer)
        try:
            if not _says_ready(reader):
                self.process.kill()
                status = self.process.wait()
                self.process = None
                raise DaemonFailed(f"pydockd ended with {status} before it was ready:\n{self.log_tail()}")
        finally:
            os.close(reader)

    def stop(self) -> int:
        """Stop it by SIGTERM and return its exit status; 0 where it does not run. Raises DaemonFailed if it takes too long."""
        return self._end(signal.SIGTERM)

    def kill9(self) -> None:
        """Kill it as a crash would; what it started goes on."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start it again, after stopping it where it still runs."""
        self.stop()
        self.start()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise DaemonFailed(f"pydockd did not stop in {STOP_SECONDS} s:\n{self.log_tail()}") from None
        finally:
            self.process = None

    def log(self) -> str:
        """Return everything it logged at this place."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines it logged."""
        return "\n".join(self.log().splitlines()[-lines:])


def _says_ready(reader: int) -> bool:
    import select

    readable, _, _ = select.select([reader], [], [], START_SECONDS)
    return bool(readable) and os.read(reader, 16).startswith(b"ready")


@contextlib.contextmanager
def place(prefix: str = "pydock-test-") -> Iterator[Path]:
    """Yield a fresh directory on tmpfs, removed with everything mounted in it when the body is done."""
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=TMPFS if TMPFS.is_dir() else None))
    try:
        yield made
    finally:
        for point in reversed(mount_points(made)):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        shutil.rmtree(made, ignore_errors=True)


def mount_points(below: Path) -> list[str]:
    """Return the mount points below a directory, outer first."""
    rows = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [row[4] for row in rows if row[4].startswith(f"{below}/")]


@contextlib.contextmanager
def running(*, config: str = "", flags: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """Yield a daemon that is ready; stop it and remove its place when the body is done."""
    with place() as directory:
        daemon = Daemon(directory, config=config, flags=flags, env=env)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            end_strays(directory)


def strays(directory: Path) -> list[int]:
    """Return the pids of processes that carry the mark of a place in their environment: shims, the launcher, the daemon."""
    mark = f"{MARK}={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end_strays(directory: Path) -> None:
    """Kill what a daemon left running at its place, as shims are meant to."""
    for pid in strays(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
