"""Mounting a container's root file system: containerd's Mount messages turned into mount(2) calls.

A mount is a dict ``{"type", "source", "target", "options"}``; options are fstab words: known flags become bits, the rest is data for
the file system.  The calls are made by the forked child that becomes the OCI runtime, in its own mount namespace where that is right,
so it may change its working directory freely.

Long overlay options: mount(2) takes at most a page.  First the lower directories are made relative to their common parent; if that is
still too long they go in one by one with fsconfig(2) ``lowerdir+`` (kernel 6.8).
"""

from __future__ import annotations

import os

from pydock_shim import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PAGE = 4096
_PROPAGATION = linux.MS_SHARED | linux.MS_PRIVATE | linux.MS_SLAVE | linux.MS_UNBINDABLE

# word -> (bits to clear, bits to set)
FLAGS: dict[str, tuple[int, int]] = {
    "async": (linux.MS_SYNCHRONOUS, 0),
    "atime": (linux.MS_NOATIME, 0),
    "bind": (0, linux.MS_BIND),
    "dev": (linux.MS_NODEV, 0),
    "diratime": (linux.MS_NODIRATIME, 0),
    "dirsync": (0, linux.MS_DIRSYNC),
    "exec": (linux.MS_NOEXEC, 0),
    "mand": (0, linux.MS_MANDLOCK),
    "noatime": (0, linux.MS_NOATIME),
    "nodev": (0, linux.MS_NODEV),
    "nodiratime": (0, linux.MS_NODIRATIME),
    "noexec": (0, linux.MS_NOEXEC),
    "nomand": (linux.MS_MANDLOCK, 0),
    "norelatime": (linux.MS_RELATIME, 0),
    "nostrictatime": (linux.MS_STRICTATIME, 0),
    "nosuid": (0, linux.MS_NOSUID),
    "private": (0, linux.MS_PRIVATE),
    "rbind": (0, linux.MS_BIND | linux.MS_REC),
    "relatime": (0, linux.MS_RELATIME),
    "remount": (0, linux.MS_REMOUNT),
    "ro": (0, linux.MS_RDONLY),
    "rprivate": (0, linux.MS_PRIVATE | linux.MS_REC),
    "rshared": (0, linux.MS_SHARED | linux.MS_REC),
    "rslave": (0, linux.MS_SLAVE | linux.MS_REC),
    "rw": (linux.MS_RDONLY, 0),
    "shared": (0, linux.MS_SHARED),
    "slave": (0, linux.MS_SLAVE),
    "strictatime": (0, linux.MS_STRICTATIME),
    "suid": (linux.MS_NOSUID, 0),
    "sync": (0, linux.MS_SYNCHRONOUS),
}


def parse(options: list[str]) -> tuple[int, list[str]]:
    """Flag bits, and the words that are data for the file system.  ``ValueError`` for options the shim cannot honour."""
    flags, data = 0, []
    for word in options:
        if word in FLAGS:
            clear, add = FLAGS[word]
            flags = flags & ~clear | add
        elif word in ("loop", "direct-io") or word.startswith(("uidmap=", "gidmap=", "X-containerd.")):
            raise ValueError(f"mount option {word!r} is not supported")
        elif word != "defaults":
            data.append(word)
    return flags, data


def mount_all(mounts: list[dict[str, Any]], root: str) -> None:
    """Mount all of them, in order, below ``root``.  ``OSError`` or ``ValueError`` as met."""
    for one in mounts:
        target = root
        if one["target"]:
            if ".." in one["target"].split("/"):
                raise ValueError(f"mount target {one['target']!r} leaves the root")
            target = f"{root}/{one['target'].lstrip('/')}"
        _mount(one["type"], one["source"], target, one["options"])


def unmount_all(root: str) -> None:
    """Take down whatever is mounted at ``root``, newest first; where nothing is mounted, nothing is done."""
    for _ in range(128):
        try:
            linux.umount2(root, linux.MNT_DETACH)
        except OSError:
            return


def _mount(kind: str, source: str, target: str, options: list[str]) -> None:
    flags, data = parse(options)
    if kind.startswith(("fuse.", "fuse3.")):
        raise ValueError(f"mount type {kind!r} is not supported")
    plain = flags & ~_PROPAGATION
    text = ",".join(data)
    if not flags & linux.MS_REMOUNT or text:
        if kind == "overlay" and len(text) >= PAGE - 512:
            _mount_long_overlay(source, target, plain, data)
        else:
            linux.mount(source, target, kind or None, plain, text or None)
    if flags & _PROPAGATION:
        linux.mount("none", target, None, flags & (_PROPAGATION | linux.MS_REC))
    if plain & linux.MS_BIND and plain & linux.MS_RDONLY:
        # A bind takes on its flags only when it is mounted again.
        linux.mount("none", target, None, plain & ~linux.MS_REC | linux.MS_REMOUNT)


def relative_lowers(data: list[str]) -> tuple[str, list[str]]:
    """The common parent of an overlay's lower directories, and the options with those made relative to it; ("", data) where none is."""
    lowers = [word for word in data if word.startswith("lowerdir=")]
    directories = lowers[0].removeprefix("lowerdir=").split(":") if lowers else []
    if len(directories) < 2 or not all(directory.startswith("/") for directory in directories):
        return "", data
    parent = os.path.commonpath(directories)
    if parent in directories:
        parent = os.path.dirname(parent)
    if parent in ("", "/"):
        return "", data
    short = "lowerdir=" + ":".join(directory[len(parent) + 1 :] for directory in directories)
    return parent, [short if word.startswith("lowerdir=") else word for word in data]


def _mount_long_overlay(source: str, target: str, flags: int, data: list[str]) -> None:
    parent, short = relative_lowers(data)
    text = ",".join(short)
    if len(text) < PAGE:
        back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.chdir(parent or ".")
        try:
            linux.mount(source, target, "overlay", flags, text)
        finally:
            os.fchdir(back)
            os.close(back)
        return
    settings: list[tuple[str, str | None]] = [("source", source)]
    if flags & linux.MS_RDONLY:
        settings.append(("ro", None))
    for word in data:
        key, has_value, value = word.partition("=")
        if key == "lowerdir":
            settings += [("lowerdir+", directory) for directory in value.split(":")]
        else:
            settings.append((key, value if has_value else None))
    linux.mount_fs("overlay", settings, target)
