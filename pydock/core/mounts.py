"""Mounts: what a snapshot hands to whoever mounts it, valid for a plain mount(2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount: ``type`` ("overlay", "bind", ...), ``source``, ``options`` as in fstab; ``target`` below the root, "" for the root."""

    type: str
    source: str
    target: str = ""
    options: Sequence[str] = ()


def directories(mounts: Sequence[Mount]) -> tuple[str, Sequence[str]] | None:
    """Return the directory that writes to ``mounts`` go to, and those below it, topmost first; None where that is not so simple."""
    if len(mounts) != 1:
        return None
    if mounts[0].type != "overlay":
        return mounts[0].source, ()
    options = dict(option.partition("=")[::2] for option in mounts[0].options)
    lowers = re.findall(r"(?:[^:\\]|\\.)+", options.get("lowerdir", ""))
    return options.get("upperdir", ""), [re.sub(r"\\(.)", r"\1", lower) for lower in lowers]


class Mounter(Protocol):
    """The kernel's mount table."""

    async def mount_all(self, mounts: Sequence[Mount], target: Path) -> None: ...
    async def unmount_all(self, target: Path) -> None:
        """Unmount until nothing is mounted at ``target``; not mounted is fine."""

    def mounted(self, mounts: Sequence[Mount]) -> AbstractAsyncContextManager[Path]:
        """The mounts at a private temporary directory for the time of the block."""
