"""Exit events, exactly once: what is known to be published, kept beside the bundle.

How an exit travels: the shim writes a fsynced exit record, then forwards TaskExit to the daemon and keeps it until it is acknowledged;
after a lost connection it sends again whatever was not.  The daemon, per event and in one callback of the loop: looks whether it was
published, publishes, notes it in ``published``, acknowledges.  So

- an exit while the daemon is down is published when the shim comes back to it, once;
- a daemon killed after the note and before the acknowledgement gets the event again and drops it;
- a daemon killed between publishing and the note (some microseconds; its subscribers die with it) publishes again to the subscribers of
  the next one: told twice is better than never, and none of them heard the first;
- a shim that dies before it could forward leaves its exit record, and one killed leaves none: the daemon publishes in its stead
  (``aftermath``) under the same key, so a late duplicate is dropped.

The key of an exit is (exec id, pid, time of exit in ns): exec ids and pids may come again within one task, all three do not.
The file is on tmpfs with the bundle and dies with it; it needs no fsync, since what kills the kernel kills the processes too.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

LOG = logging.getLogger(__name__)

Key = tuple[str, int, int]
LARGEST = 1 << 24


class Published:
    """The exits of one task that were published."""

    def __init__(self, path: Path, fresh: bool) -> None:
        """``fresh``: the bundle is new and holds no file, which saves looking."""
        self._path = path
        self._keys: set[Key] | None = set() if fresh else None

    def __contains__(self, key: Key) -> bool:
        return key in self._load()

    def add(self, key: Key) -> None:
        """Note ``key``; a bundle that is gone needs no note, and a full disk is no reason to withhold an event."""
        self._load().add(key)
        exec_id, pid, moment = key
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            LOG.error("%s: %s; the next daemon may publish this exit again", self._path, error)
            return
        try:
            os.write(fd, f"{pid} {moment} {exec_id}\n".encode())
        except OSError as error:
            LOG.error("%s: %s; the next daemon may publish this exit again", self._path, error)
        finally:
            os.close(fd)

    def _load(self) -> set[Key]:
        if self._keys is None:
            self._keys = set(_read(self._path))
        return self._keys


def _read(path: Path) -> list[Key]:
    try:
        with path.open("rb") as stream:
            lines = stream.read(LARGEST).decode("utf-8", "replace").split("\n")
    except OSError:
        return []
    keys: list[Key] = []
    for line in lines:
        pid, _, rest = line.partition(" ")
        moment, space, exec_id = rest.partition(" ")
        if space and pid.isdecimal() and moment.isdecimal():
            keys.append((exec_id, int(pid), int(moment)))
    return keys
