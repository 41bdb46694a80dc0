"""What of this host goes into a container's spec: its cgroup version, devices and the capabilities we have ourselves."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydock.oci import defaults

# Not given to privileged containers: they get their own of these.
_OWN_DEVICES = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"})
_DEEPEST = 8


def unified_cgroups() -> bool:
    """Tell whether cgroup v2 is all there is."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def capabilities() -> list[str]:
    """Return the names of the capabilities this process has (proc(5), CapEff)."""
    status = Path("/proc/self/status").read_text()
    mask = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    return [name for number, name in enumerate(defaults.ALL_CAPABILITIES) if mask & (1 << number)]


def devices(path: str = "/dev") -> list[dict[str, Any]]:
    """Return the device at ``path``, or all below it, as runtime-spec objects. Raises OSError when it is not there."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        return list(_walk(path, 0))
    return [_device(path, os.stat(path))]


def _walk(directory: str, depth: int) -> Iterator[dict[str, Any]]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _OWN_DEVICES and depth < _DEEPEST:
                    yield from _walk(entry.path, depth + 1)
                continue
            status = entry.stat(follow_symlinks=False)
            if entry.name not in _OWN_DEVICES and (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
                yield _device(entry.path, status)


def _device(path: str, status: os.stat_result) -> dict[str, Any]:
    kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
    return {
        "path": path, "type": kind, "major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode), "uid": status.st_uid, "gid": status.st_gid,
    }  # fmt: skip
