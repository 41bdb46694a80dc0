"""MODEL: what a history of operations allows to be there, whatever crashed in between.

Vocabulary: a *key* is (kind, namespace, name), its kind one of image, blob, snapshot, container, task and exec (named "task/exec"); a
*state* is a word: ``absent``, ``there``, and for tasks, execs and snapshots the status or kind in small letters. An operation *moves* a
key from the states it may be in to one state; while it is under way, and for ever if nobody heard that it was done, both are allowed.
Invariants checked beside the states: every blob has the bytes its digest says; an image has all it refers to; a task that runs has one
init and one that does not has no process; no subscriber hears of one exit twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydock.base import errors
from pydock.client import anys, connection, containers, content, events, images, snapshots, tasks

ABSENT, THERE = "absent", "there"
SNAPSHOTTER = "overlayfs"
WORDS = {number: name.lower() for number, name in tasks.STATES.items()}
KINDS = {number: name.lower() for number, name in snapshots.KINDS.items()}

Key = tuple[str, str, str]
Exit = tuple[str, str, str, int]  # namespace, container, process ("" is the init), pid


class Broken(AssertionError):
    """What is there is not what the history allows; the text has a line for each difference."""


class History:
    """What each key that an operation named may be."""

    def __init__(self) -> None:
        self.allowed: dict[Key, frozenset[str]] = {}

    def of(self, key: Key) -> frozenset[str]:
        """Return the states a key may be in."""
        return self.allowed.get(key, frozenset({ABSENT}))

    @contextlib.contextmanager
    def moving(self, key: Key, target: str, *between: str) -> Iterator[None]:
        """Note that the body moves ``key`` to ``target``, perhaps through ``between``; where it raises, nobody knows how far it came."""
        self.allowed[key] = self.of(key) | {target, *between}
        yield
        self.allowed[key] = frozenset({target})

    def may_be(self, key: Key, *states: str) -> None:
        """Allow further states: something beside the history happened to the key."""
        self.allowed[key] = self.of(key) | set(states)

    def shim_died(self, ns: str, id: str) -> None:
        """Note that the shim of a task died: what ran has stopped, what was being made may never have been."""
        for key in list(self.allowed):
            kind, space, name = key
            if space == ns and kind == "task" and name == id:
                self.allowed[key] = frozenset({"stopped"}) | (self.of(key) & {ABSENT})
            elif space == ns and kind == "exec" and name.startswith(f"{id}/"):
                self.allowed[key] = frozenset({"stopped", ABSENT})

    def check(self, conn: connection.Connection) -> None:
        """Compare with what is in the connection's namespace. Raises Broken."""
        wanted = [key for key in self.allowed if key[1] == conn.namespace]
        seen = observe(conn, [key for key in wanted if key[0] == "exec"])
        wrong = []
        for key in sorted({*seen, *wanted}):
            state = seen.get(key, ABSENT)
            if key[0] in ("blob", "snapshot") and key not in self.allowed:
                continue  # what an image or a pull brought along
            if state not in self.of(key):
                wrong.append(f"{' '.join(key)} is {state}, not {' or '.join(sorted(self.of(key)))}")
        wrong += [*damaged(conn), *incomplete(conn)]
        if wrong:
            raise Broken("\n".join(wrong))


def observe(conn: connection.Connection, execs: list[Key]) -> dict[Key, str]:
    """Return the state of everything in the connection's namespace, and of the execs named."""
    ns = conn.namespace
    found: dict[Key, str] = {("image", ns, image.name): THERE for image in images.listing(conn)}
    found |= {("blob", ns, blob.digest): THERE for blob in content.listing(conn)}
    found |= {("snapshot", ns, one.name): KINDS[one.kind] for one in snapshots.listing(conn, SNAPSHOTTER)}
    found |= {("container", ns, one.id): THERE for one in containers.listing(conn)}
    found |= {("task", ns, one.id): WORDS[one.status] for one in tasks.listing(conn)}
    for key in execs:
        with contextlib.suppress(errors.NotFound):
            id, _, exec_id = key[2].partition("/")
            found[key] = WORDS[tasks.get(conn, id, exec_id).status]
    return found


def damaged(conn: connection.Connection) -> Iterator[str]:
    """Yield each blob of the namespace whose bytes are not those its digest and size say."""
    for blob in content.listing(conn):
        hasher, size = hashlib.sha256(), 0
        for chunk in content.chunks(conn, blob.digest):
            hasher.update(chunk)
            size += len(chunk)
        if f"sha256:{hasher.hexdigest()}" != blob.digest or size != blob.size:
            yield f"blob {blob.digest} of {blob.size} bytes has {size} others"


def incomplete(conn: connection.Connection) -> Iterator[str]:
    """Yield each document or layer that an image of the namespace refers to and that is not there."""
    there = {blob.digest for blob in content.listing(conn)}
    for image in images.listing(conn):
        digests = [image.target.digest]
        for digest in digests:
            if digest not in there:
                yield f"image {image.name} has no {digest}"
                continue
            digests += _children(conn, digest)


def _children(conn: connection.Connection, digest: str) -> list[str]:
    data = content.read(conn, digest, most=64 << 20)
    if not data.startswith(b'{"schemaVersion"'):
        return []
    document: dict[str, Any] = json.loads(data)
    parts = [*document.get("manifests", ()), *document.get("layers", ()), *([document["config"]] if "config" in document else ())]
    return [str(part["digest"]) for part in parts]


def processes(cgroup: str) -> set[int]:
    """Return the pids in a cgroup (a path below each hierarchy) and below it."""
    found: set[int] = set()
    for top in Path("/sys/fs/cgroup").glob(f"*/{cgroup.lstrip('/')}"):
        for path in [top / "cgroup.procs", *top.glob("**/cgroup.procs")]:
            with contextlib.suppress(OSError):
                found.update(map(int, path.read_text().split()))
    return found


def astray(conn: connection.Connection, id: str, cgroup: str) -> str:
    """Say what is wrong with the processes of a task, "" where nothing is: one init where it is created or runs, no process else."""
    pids = processes(cgroup)
    try:
        task = tasks.get(conn, id)
    except errors.NotFound:
        return f"no task {id}, but processes {sorted(pids)}" if pids else ""
    if WORDS[task.status] == "stopped":
        return f"task {id} has stopped, but there are {sorted(pids)}" if pids else ""
    inits = [pid for pid in pids if _parent(pid) not in pids and _is_first(pid)]
    return "" if inits == [task.pid] else f"task {id} is {WORDS[task.status]} as {task.pid}, but its inits are {inits}"


def _is_first(pid: int) -> bool:
    """Tell whether a process is number 1 in a pid namespace of its own."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return line.split()[-1] == "1"
    return False


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


class Ears:
    """Hears the exits of one daemon's life after the other; ``listen`` again after each start."""

    def __init__(self) -> None:
        self.heard: list[Exit] = []
        self._threads: list[threading.Thread] = []

    def listen(self, address: str) -> None:
        """Listen to the daemon at ``address`` until it ends; returns when it is certain that nothing is missed from now on."""
        ready = threading.Event()
        thread = threading.Thread(target=self._run, args=(address, ready), daemon=True)
        thread.start()
        ready.wait(5)
        self._threads.append(thread)

    def _run(self, address: str, ready: threading.Event) -> None:
        with contextlib.suppress(errors.PydockError), connection.connect(address, "") as conn:
            stream = events.subscribe(conn, ['topic=="/tasks/exit"'])
            # There is no answer to a subscription; one that was sent on this channel precedes the call below on it.
            threading.Thread(target=self._confirm, args=(conn, ready), daemon=True).start()
            for envelope in stream:
                found = anys.plain(envelope.event)
                process = "" if found["id"] == found["container_id"] else found["id"]
                self.heard.append((envelope.namespace, found["container_id"], process, found["pid"]))

    def _confirm(self, conn: connection.Connection, ready: threading.Event) -> None:
        with contextlib.suppress(errors.PydockError):
            images.listing(conn.within(5))
        ready.set()

    def twice(self) -> list[Exit]:
        """Return what was heard more than once."""
        return [one for one, count in Counter(self.heard).items() if count > 1]
