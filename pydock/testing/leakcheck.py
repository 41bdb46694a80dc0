"""LEAKCHECK: what a host holds of pydock, as values that must be the same before and after.

Vocabulary: a *snapshot* is taken of one place (see ``testing.daemon``): mounts, named network namespaces, cgroup directories, sockets
and FIFOs, temporary files, marked processes, and the descriptors of the daemon by what they point to.
Use: ``with leakcheck.unchanged(daemon): ...``. A difference is raised as ``Leaked`` naming every item that came or went.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydock.testing import daemon as harness

CGROUPS = Path("/sys/fs/cgroup")
NETNS = (Path("/run/netns"), Path("/run/pydock/netns"))
TEMPORARY = re.compile(r"(^\.tmp-|^tmp|\.tmp$|^\.[0-9a-f]{6}$)")
SETTLE_SECONDS = 5.0
SETTLE_STEP = 0.02


class Leaked(AssertionError):
    """The host is not as it was; the text lists what came (+) and what went (-)."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One look at the host; every field is a sorted tuple of readable names."""

    mounts: tuple[str, ...]
    netns: tuple[str, ...]
    cgroups: tuple[str, ...]
    sockets: tuple[str, ...]
    temporaries: tuple[str, ...]
    processes: tuple[str, ...]
    descriptors: tuple[str, ...]

    def difference(self, after: Snapshot) -> str:
        """Return what ``after`` has more (+) and less (-), one item a line; empty where nothing."""
        lines = []
        for field in dataclasses.fields(self):
            old, new = collections.Counter(getattr(self, field.name)), collections.Counter(getattr(after, field.name))
            lines += [f"+ {field.name}: {item}" for item in (new - old).elements()]
            lines += [f"- {field.name}: {item}" for item in (old - new).elements()]
        return "\n".join(lines)


def take(watched: harness.Daemon) -> Snapshot:
    """Return a snapshot of the place of a daemon, running or not."""
    return Snapshot(
        mounts=tuple(sorted(harness.mount_points(watched.place))),
        netns=tuple(sorted(str(path) for folder in NETNS if folder.is_dir() for path in folder.iterdir())),
        cgroups=tuple(sorted(_cgroups())),
        sockets=tuple(sorted(_special(watched.state))),
        temporaries=tuple(sorted(_temporaries(watched.place))),
        processes=tuple(sorted(_processes(watched))),
        descriptors=tuple(sorted(_descriptors(watched))),
    )


@contextlib.contextmanager
def unchanged(watched: harness.Daemon) -> Iterator[None]:
    """Raise Leaked unless the host, within five seconds after the body, is as it was before.

    The wait is for what the kernel and other processes finish on their own after an answer: reaping, lazy unmounts.
    """
    before = take(watched)
    yield
    settle(lambda: _told(before.difference(take(watched))))


def _told(difference: str) -> str:
    return f"the host is not as it was:\n{difference}" if difference else ""


def settle(difference: Callable[[], str], seconds: float = SETTLE_SECONDS) -> None:
    """Wait until ``difference`` returns nothing. Raises Leaked with what it still returns after ``seconds``."""
    end = time.monotonic() + seconds
    while text := difference():
        if time.monotonic() >= end:
            raise Leaked(text)
        time.sleep(SETTLE_STEP)


def _cgroups() -> Iterator[str]:
    """Yield all but the empty ones at the top: the parent of a namespace's containers stays for the next, as under runc and crun."""
    for directory, folders, _ in os.walk(CGROUPS):
        name = directory.removeprefix(str(CGROUPS))
        if folders or name.count("/") != 2:
            yield name


def _special(below: Path) -> Iterator[str]:
    for directory, _, names in os.walk(below):
        for name in names:
            path = Path(directory) / name
            with contextlib.suppress(OSError):
                mode = path.lstat().st_mode
                if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
                    yield str(path)


def _temporaries(below: Path) -> Iterator[str]:
    for directory, folders, names in os.walk(below):
        if "/fs/" in f"{directory}/":  # the inside of a snapshot is the image's business
            folders.clear()
            continue
        for name in (*names, *folders):
            if TEMPORARY.search(name):
                yield f"{directory}/{name}"


def _processes(watched: harness.Daemon) -> Iterator[str]:
    for pid in harness.strays(watched.place):
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            yield f"{'zombie ' if state == 'Z' else ''}{command}"


def _descriptors(watched: harness.Daemon) -> Iterator[str]:
    """Yield what each descriptor of the daemon points to; connections of clients are counted, not told apart."""
    if watched.process is None:
        return
    folder = Path(f"/proc/{watched.process.pid}/fd")
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            yield re.sub(r"\[\d+\]", "[]", str(entry.readlink()))
