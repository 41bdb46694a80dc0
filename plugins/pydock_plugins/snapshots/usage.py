"""How much disk a tree takes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pydock.core import snapshots

_BLOCK = 512


def measure(tree: Path) -> snapshots.Usage:
    """Return the bytes allocated and the inodes below and including ``tree``; an inode with several names counts once.

    Files that vanish meanwhile are left out.
    """
    top = tree.lstat()
    size, inodes, linked, pending = top.st_blocks * _BLOCK, 1, set(), [os.fspath(tree)]
    while pending:
        with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif status.st_nlink > 1:
                        name = (status.st_dev, status.st_ino)
                        if name in linked:
                            continue
                        linked.add(name)
                    size += status.st_blocks * _BLOCK
                    inodes += 1
    return snapshots.Usage(size, inodes)
