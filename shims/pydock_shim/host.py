"""What the shim must know of its host: where cgroup hierarchies are mounted and which OCI runtimes work here.

It is found out once, in the launcher, and shims inherit it by fork.

A *hybrid* host has v1 hierarchies and a v2 one at ``unified``.  crun refuses to run there while a controller sits on the v2 tree; it
works in a private mount namespace where an empty tmpfs covers ``unified`` (an unmounted ``unified`` would do as well, but then crun
makes its v2 directory on the tmpfs below, where nobody ever finds it again).
"""

from __future__ import annotations

import fcntl
import os

from pydock_shim import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RUNTIMES = ("crun", "runc")


class Host:
    """Facts about cgroups: ``v1`` maps a controller to (mount point, root of that mount), ``v2`` is such a pair or None."""

    def __init__(self, mountinfo: str = "/proc/self/mountinfo") -> None:
        self.v1: dict[str, tuple[str, str]] = {}
        self.v2: tuple[str, str] | None = None
        for line in linux.read_text(mountinfo, 1 << 22).splitlines():
            self._take(line)
        self.unified_only = self.v2 is not None and not self.v1
        self.cover = ""  # the mount point crun must not see
        if self.v2 is not None and self.v1 and _controllers(self.v2[0]):
            self.cover = self.v2[0]
        self.runtimes: dict[str, dict[str, Any]] = {}
        self.default = ""
        self._sealed: tuple[str, tuple[int, ...], int] | None = None  # path, identity and descriptor of a copy
        self.launcher = os.getpid()  # this is made in the launcher

    def _take(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            return
        where = (fields[4], fields[3])
        if kind[0] == "cgroup2":
            self.v2 = where
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                if option not in ("rw", "ro", "xattr", "none"):
                    self.v1.setdefault(option.removeprefix("name="), where)

    def probe(self) -> None:
        """Look for runtimes, and settle on one for "auto": crun where it can work, else runc."""
        private = not self.cover or _can_unshare()
        for name in RUNTIMES:
            path = which(name)
            if not path:
                continue
            version = _output([path, "--version"]).partition("\n")[0]
            works = bool(version) and (name != "crun" or private)
            why = "" if works else "refuses hybrid cgroups, and a private mount namespace cannot be made" if version else "does not run"
            self.runtimes[name] = {"path": path, "version": version.rpartition(" ")[2], "works": works, "why": why}
            if works and not self.default:
                self.default = name
        if "crun" in self.runtimes:
            self._seal(self.runtimes["crun"]["path"])

    def _seal(self, path: str) -> None:
        """Hold a program in sealed memory.  crun, found elsewhere, copies itself there at every start (CVE-2019-5736), which costs 3 ms."""
        try:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        copy = os.memfd_create("crun", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            status = os.fstat(source)
            if os.sendfile(copy, source, 0, status.st_size) != status.st_size:
                return
            os.fchmod(copy, 0o755)
            fcntl.fcntl(copy, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
            readable = os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
            self._sealed = (path, _identity(status), readable)
        finally:
            os.close(copy)
            os.close(source)

    def program(self, path: str) -> str | int:
        """What to execute for the program at ``path``: the descriptor of its sealed copy while the file is still the one copied."""
        if self._sealed is None or self._sealed[0] != path or _identity(os.stat(path)) != self._sealed[1]:
            return path
        return self._sealed[2]


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def which(name: str) -> str:
    """The path of program ``name``; "" where there is none."""
    if "/" in name:
        return name if os.access(name, os.X_OK) else ""
    for directory in f"{os.environ.get('PATH', '')}:{SEARCH}".split(":"):
        path = f"{directory}/{name}"
        if directory and os.access(path, os.X_OK):
            return path
    return ""


def _controllers(mount_point: str) -> str:
    try:
        return linux.read_text(mount_point + "/cgroup.controllers").strip()
    except OSError:
        return ""


def _can_unshare() -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            linux.unshare(linux.CLONE_NEWNS)
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _output(argv: list[str]) -> str:
    """What a program prints, "" if it fails.  Only for start-up: it waits."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
    except OSError:
        os.close(reader)
        os.close(writer)
        return ""
    os.close(writer)
    parts = []
    while data := os.read(reader, 4096):
        parts.append(data)
    os.close(reader)
    return b"".join(parts).decode("utf-8", "replace") if os.waitpid(pid, 0)[1] == 0 else ""
