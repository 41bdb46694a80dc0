"""Failpoints: named places in the code where a test may crash, fail, delay or stop the process.

Vocabulary: a *plan* says what happens at which point, ``name=term->term;name=term``; a *term* is ``[count*]action``, and with a count it
is used up after so many hits, after which the next one holds (after the last: nothing). *Actions*: ``off``; ``crash`` (SIGKILL of this
process); ``error(ENOSPC)`` (OSError of that errno) or ``error(any text)`` (Unavailable); ``delay(milliseconds)``; ``pause(/path)``
(until that file is there). All but ``off`` and ``error`` stop the whole process, as a stopped machine would.
The plan is the value of ``PYDOCK_FAILPOINTS`` when this module is loaded. ``@/path`` reads it from a file at every hit, so that a running
daemon, its launcher and its shims share one plan with one set of counts; what happened is then appended to ``/path.hits``, a name a line.
Invariants: without the variable a point costs one call of an empty function; every point is in `POINTS`, where a test looks for it.
``pydock_shim.failpoint`` is the same for the shim, which may import nothing from here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import time
from collections.abc import Callable, Mapping

from pydock.base import errors

VARIABLE = "PYDOCK_FAILPOINTS"
PAUSE_STEP = 0.005  # seconds between looks for the file a pause waits for

POINTS: Mapping[str, str] = {
    "pull.resolved": "the reference has a digest, nothing is fetched",
    "pull.mid_blob": "a part of a blob was written",
    "pull.manifest": "a manifest or index is there and keeps what it names",
    "pull.before_name": "all is fetched and unpacked, the image has no name",
    "pull.named": "the image has its name, the client was not told",
    "content.synced": "the bytes are on disk, under the ingest's name",
    "content.renamed": "the bytes have the blob's name, there is no record",
    "content.recorded": "the record is there, the client was not told",
    "content.deleted": "the record of a blob is gone, its bytes are not",
    "unpack.prepared": "a snapshot was prepared for a layer",
    "unpack.mid_tar": "a part of the layer was handed to the helper that unpacks it",
    "unpack.applied": "the tree of a layer is complete and not committed",
    "unpack.committed": "a layer is committed, those above it may not be",
    "snapshot.made": "the snapshotter made a snapshot, there is no record",
    "snapshot.synced": "the files of a snapshot to be committed are on disk",
    "snapshot.committed": "the snapshotter committed, the record says active",
    "snapshot.recorded": "the record of a commit is there, the client was not told",
    "snapshot.forgotten": "the record of a snapshot is gone, its files are not",
    "snapshot.doomed": "the snapshotter forgot a snapshot, its directory is there",
    "gc.marked": "it is known what is to go, nothing went",
    "gc.recorded": "records are gone, files are not",
    "gc.mid_files": "some files are gone, others are not",
    "container.recorded": "the record of a container is there, the client was not told",
    "container.forgotten": "the record of a container is gone, the client was not told",
    "task.bundle": "the bundle of a task was made",
    "task.asked": "the launcher was asked for a shim and has not answered",
    "task.spawned": "there is a shim, nobody is connected to it",
    "task.create": "the shim is about to be asked to create the init",
    "task.created": "there is an init, the client was not told",
    "task.start": "the shim is about to be asked to start a process",
    "task.started": "the process runs, the client was not told",
    "task.exec": "the shim is about to be asked to add a process",
    "task.execed": "the shim knows of the process, the client was not told",
    "task.kill": "the shim is about to be asked to signal a process",
    "task.killed": "the process was signalled, the client was not told",
    "task.delete": "the shim is about to be asked to delete",
    "task.deleted": "the shim deleted the task, its bundle is there",
    "task.parted": "the shim was told to end, its bundle is there",
    "task.buried": "the bundle is gone, the client was not told",
    "exit.published": "an exit was published, that it was is not written down",
    "shim.launched": "a shim was forked and has its socket, its bundle does not name it",
    "shim.create": "the shim is about to run the OCI runtime's create",
    "shim.created": "the OCI runtime made the container, the shim has not taken it in",
    "shim.start": "the shim is about to start the init",
    "shim.started": "the init runs, the shim has not said so",
    "shim.exec": "the shim is about to run the OCI runtime's exec",
    "shim.execed": "the process runs, the shim has not taken it in",
    "shim.ended": "a process ended, it is written nowhere",
    "shim.recorded": "the exit record is on disk, nobody was told",
    "shim.removed": "the cgroups of a deleted container are gone, its state is not",
}

Terms = list[tuple[int, str]]  # how often (-1: for ever) and what
_TERM = re.compile(r"(?:(\d+)\*)?(off|crash|(?:error|delay|pause)\([^()]*\))")


def parse(text: str) -> dict[str, Terms]:
    """Return the terms of every name in a plan. Raises ValueError naming what is wrong with it."""
    plan: dict[str, Terms] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, _, terms = entry.partition("=")
        if name not in POINTS:
            raise ValueError(f"there is no failpoint {name!r}")
        plan[name] = []
        for term in terms.split("->"):
            found = _TERM.fullmatch(term)
            if found is None:
                raise ValueError(f"failpoint {name}: {term!r} is no [count*]off, crash, error(), delay() or pause()")
            plan[name].append((int(found[1]) if found[1] else -1, found[2]))
    return plan


def render(plan: Mapping[str, Terms]) -> str:
    """Return the text of a plan."""
    return ";".join(
        f"{name}={'->'.join(action if count < 0 else f'{count}*{action}' for count, action in terms)}"
        for name, terms in plan.items()
        if terms
    )


def take(plan: Mapping[str, Terms], name: str) -> str:
    """Return what happens at ``name`` now and count it."""
    terms = plan.get(name)
    while terms:
        count, action = terms[0]
        if count < 0:
            return action
        terms[0] = (count - 1, action)
        if terms[0][0] <= 0:
            terms.pop(0)
        if count > 0:
            return action
    return "off"


class Plan:
    """A plan of this process alone, its counts in memory."""

    def __init__(self, text: str) -> None:
        self._plan = parse(text)

    def hit(self, name: str) -> None:
        """Do what the plan says. Raises OSError, Unavailable."""
        act(take(self._plan, name), name)


class SharedPlan:
    """A plan in a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def hit(self, name: str) -> None:
        """Do what the file says now. Raises OSError, Unavailable."""
        act(self._take(name), name)

    def _take(self, name: str) -> str:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # nobody plans anything (any more), or there are no descriptors left, which is what a test wants then
            return "off"
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            plan = parse(os.pread(fd, 1 << 16, 0).decode())
            action = take(plan, name) if name in plan else "off"
            if action != "off":
                self._note(name)
            os.ftruncate(fd, 0)
            os.pwrite(fd, render(plan).encode(), 0)
        finally:
            os.close(fd)
        return action

    def _note(self, name: str) -> None:
        fd = os.open(f"{self._path}.hits", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(fd, f"{name}\n".encode())
        os.close(fd)


def act(action: str, name: str) -> None:
    """Do one action. Raises OSError, Unavailable."""
    kind, _, rest = action.partition("(")
    text = rest.removesuffix(")")
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "delay":
        time.sleep(float(text) / 1000)
    elif kind == "pause":
        while not os.path.exists(text):
            time.sleep(PAUSE_STEP)
    elif kind == "error":
        number = getattr(errno, text, None)
        if isinstance(number, int):
            raise OSError(number, os.strerror(number), f"failpoint {name}")
        raise errors.Unavailable(f"failpoint {name}: {text}")


def _nothing(name: str) -> None:
    """Be off."""


def _chosen(text: str) -> Callable[[str], None]:
    if not text:
        return _nothing
    return SharedPlan(text[1:]).hit if text.startswith("@") else Plan(text).hit


failpoint: Callable[[str], None] = _chosen(os.environ.get(VARIABLE, ""))
