"""A container's cgroup: where it is, who is in it, what was killed in it, and its removal.

``paths`` maps a controller to the directory on a v1 host (or a hybrid one), "" to the only directory on a v2 host.
"""

from __future__ import annotations

import os
import select

from pydock_shim import linux, notify
from pydock_shim.failpoint import failpoint
from pydock_shim.std import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydock_shim import host, loop

TREES = ("pids", "memory", "devices", "freezer", "systemd")  # v1 hierarchies to ask for processes, the first there is


class Cgroup:
    """The cgroup ``pid`` is in; empty ``paths`` where nothing of it can be found."""

    def __init__(self, where: host.Host, pid: int) -> None:
        self.version = 2 if where.unified_only else 1
        self.paths: dict[str, str] = {}
        self.oom_fd = -1
        try:
            text = linux.read_text(f"/proc/{pid}/cgroup")
        except OSError:
            return
        for line in text.splitlines():
            _number, controllers, path = line.split(":", 2)
            if self.version == 2 and not controllers and where.v2:
                self.paths[""] = _join(where.v2, path)
            elif self.version == 1:
                for controller in controllers.removeprefix("name=").split(","):
                    if controller in where.v1:
                        self.paths[controller] = _join(where.v1[controller], path)

    @classmethod
    def of(cls, version: int, paths: dict[str, str]) -> Cgroup:
        """One that is known already."""
        group = cls.__new__(cls)
        group.version, group.paths, group.oom_fd = version, paths, -1
        return group

    def tree(self) -> str:
        """The directory whose ``cgroup.procs`` tells the members; "" if there is none."""
        if self.version == 2:
            return self.paths.get("", "")
        return next((self.paths[name] for name in TREES if name in self.paths), "")

    def pids(self) -> list[int]:
        """Who is in the cgroup or below, in the order of the kernel."""
        found: list[int] = []
        root = self.tree()
        for directory in _walk(root) if root else ():
            try:
                found += map(int, linux.read_text(directory + "/cgroup.procs", 1 << 20).split())
            except OSError:
                continue
        return found

    def signal_all(self, number: int) -> bool:
        """Send a signal to every member; whether there was one.

        A pid read from ``cgroup.procs`` may be another process by now: all are held by pidfds first, and only who is listed then is hit.
        """
        held: dict[int, int] = {}
        try:
            for pid in self.pids():
                try:
                    held[pid] = os.pidfd_open(pid)
                except OSError:
                    continue
            members = held.keys() & set(self.pids()) if held else set()
            for pid in members:
                try:
                    signal.pidfd_send_signal(held[pid], number)
                except ProcessLookupError:
                    continue
            return bool(members)
        finally:
            for fd in held.values():
                os.close(fd)

    # out of memory

    def watch_oom(self, main: loop.Loop, watcher: notify.Watcher, call: Callable[[], None]) -> None:
        """Call ``call`` whenever something was killed here for want of memory; where that cannot be told, never."""
        if self.version == 2 and "" in self.paths:
            try:
                watcher.add(self.paths[""] + "/memory.events", linux.IN_MODIFY, call)
            except OSError as error:
                main.log(f"out-of-memory events: {error}")
        elif "memory" in self.paths:
            self._watch_oom_v1(main, call)

    def _watch_oom_v1(self, main: loop.Loop, call: Callable[[], None]) -> None:
        directory = self.paths["memory"]
        try:
            control = os.open(directory + "/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            main.log(f"out-of-memory events: {error}")
            return
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            linux.write_file(directory + "/cgroup.event_control", f"{event} {control}".encode(), 0)
        except OSError as error:
            main.log(f"out-of-memory events: {error}")
            os.close(event)
            return
        finally:
            os.close(control)
        self.oom_fd = event

        def ready(_: int) -> None:
            # The removal of the cgroup makes it ready as well; ``oom_kills`` tells the difference.
            os.eventfd_read(event)
            call()

        main.watch(event, select.EPOLLIN, ready)

    def unwatch_oom(self, main: loop.Loop) -> None:
        if self.oom_fd >= 0:
            main.forget(self.oom_fd)
            os.close(self.oom_fd)
            self.oom_fd = -1

    def oom_kills(self) -> int:
        """How many processes were killed here for want of memory."""
        name = self.paths.get("", "") + "/memory.events" if self.version == 2 else self.paths.get("memory", "") + "/memory.oom_control"
        return read_keys(name).get("oom_kill", 0)

    # freezing and removal

    def thaw(self) -> None:
        """Let a frozen cgroup run (a frozen process cannot even be killed on v1)."""
        name = self.paths.get("", "") + "/cgroup.freeze" if self.version == 2 else self.paths.get("freezer", "") + "/freezer.state"
        try:
            linux.write_file(name, b"0" if self.version == 2 else b"THAWED", 0)
        except OSError:
            pass

    def remove(self) -> bool:
        """Remove it from every hierarchy; whether all of it is gone."""
        gone = True
        for root in dict.fromkeys(self.paths.values()):
            for directory in reversed(list(_walk(root))):
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    pass
                except OSError:
                    gone = False
        failpoint("shim.removed")
        return gone


def read_keys(path: str) -> dict[str, int]:
    """A file of ``name number`` lines; {} where it cannot be read."""
    found: dict[str, int] = {}
    try:
        text = linux.read_text(path)
    except OSError:
        return found
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if number.isdigit():
            found[name] = int(number)
    return found


def _join(where: tuple[str, str], path: str) -> str:
    """The directory of cgroup ``path`` in a mount that shows the hierarchy from ``root`` on."""
    mount_point, root = where
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return mount_point + path.rstrip("/")


def _walk(root: str) -> Iterator[str]:
    """``root`` and the directories below it, parents first."""
    yield root
    try:
        with os.scandir(root) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for path in below:
        yield from _walk(path)
