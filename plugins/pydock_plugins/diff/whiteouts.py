"""What a ``.wh.`` name does to the layers below: removed from a plain directory, marked in an overlay upper directory.

Vocabulary: a *whiteout* ``.wh.NAME`` hides NAME of lower layers; an *opaque* marker ``.wh..wh..opq`` hides all of its directory's lower
content; other ``.wh..wh.`` names are AUFS's own book-keeping and are dropped.
Invariants: a whiteout acts on lower layers only, never on what the same layer holds, before or after it; each directory is emptied at most
once per layer, so markers cannot make unpacking superlinear. Source: OCI image spec, layer.md "Whiteouts"; kernel Documentation
filesystems/overlayfs "whiteouts and opaque directories".
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final

from pydock.base import safefs
from pydock_plugins.diff import limits, lowers, tree

PREFIX: Final = b".wh."
META: Final = b".wh..wh."
OPAQUE: Final = b".wh..wh..opq"
OPAQUE_XATTR: Final = b"trusted.overlay.opaque"


def hidden_name(base: bytes, whole: bytes) -> bytes:
    """The name the whiteout ``base`` hides; InvalidArgument where that would be the directory itself or its parent."""
    name = base[len(PREFIX) :]
    if name in (b"", b".", b".."):
        raise limits.invalid(whole, "whiteout of no name, . or ..")
    return name


class Plain:
    """Whiteouts for a directory that holds all layers in one: what they hide is removed."""

    def __init__(self, target: tree.Tree) -> None:
        self.tree = target

    def hide(self, where: tree.Dir, name: bytes, _uid: int, _gid: int) -> None:
        """Remove ``name`` of lower layers from ``where``."""
        if where.fresh:
            return
        if where.mine(name):
            if name in where.kids:
                self.opaque(where.kids[name])
            return
        with contextlib.suppress(FileNotFoundError):
            self.tree.remove(where, name)

    def opaque(self, where: tree.Dir) -> None:
        """Remove all that is not of this layer from ``where`` and from the directories it shares with lower layers."""
        todo = [where]
        while todo:
            node = todo.pop()
            if node.fresh:
                continue
            node.fresh = True
            for name in safefs.names(self.tree.fd(node), b"."):
                if not node.mine(name):
                    self.tree.remove(node, name)
                elif name in node.kids:
                    todo.append(node.kids[name])
            node.ours = None

    def replaced(self, where: tree.Dir, name: bytes, kid: tree.Dir | None) -> None:
        """An entry took the place of ``name``; nothing to note in a plain directory."""

    def finish(self) -> None:
        """All entries are in."""


class Overlay:
    """Whiteouts for an overlay upper directory: a character device 0:0, or the opaque attribute on a directory.

    A device where there is nothing to hide is not just useless: in a directory that no lower layer has, overlayfs lists it. So there is
    none on the lowest layer (``below`` None) and in an opaque directory, and ``finish`` takes out those of directories new in this layer.
    """

    def __init__(self, target: tree.Tree, below: lowers.Lowers | None) -> None:
        self.tree, self.below = target, below
        self._plain = Plain(target)
        self._marked: dict[tree.Dir, None] = {}

    def hide(self, where: tree.Dir, name: bytes, uid: int, gid: int) -> None:
        """Put a whiteout in the place of ``name``, unless this layer has that name: then a directory is made opaque."""
        kid = where.kids.get(name)
        if where.mine(name):
            if kid is not None:
                self.opaque(kid)
            return
        if where.opaque or (where.gone is not None and name in where.gone):
            return
        if self.below is None:
            self._plain.hide(where, name, uid, gid)
            return
        fd = self.tree.fd(where)
        try:
            os.mknod(name, stat.S_IFCHR, dir_fd=fd)
        except FileExistsError:
            if where.fresh:  # made by this layer, like everything in here
                if kid is not None:
                    self.opaque(kid)
                return
            self.tree.remove(where, name)
            fd = self.tree.fd(where)
            os.mknod(name, stat.S_IFCHR, dir_fd=fd)
        if uid or gid or not where.exact:
            os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        if where.gone is None:
            where.gone = set()
            self._marked[where] = None
        where.gone.add(name)

    def opaque(self, where: tree.Dir) -> None:
        """Mark ``where`` opaque and take out what an earlier archive left in it, and whiteouts that are of no use now."""
        if where.opaque:
            return
        where.opaque = True
        self._plain.opaque(where)
        self._unmark(where)
        if where.parent is not None and self.below is not None:
            safefs.set_xattr(self.tree.fd(where.parent), where.name, OPAQUE_XATTR, b"y")

    def _unmark(self, where: tree.Dir) -> None:
        gone, where.gone = where.gone or (), None
        for name in gone:
            os.unlink(name, dir_fd=self.tree.fd(where))

    def replaced(self, where: tree.Dir, name: bytes, kid: tree.Dir | None) -> None:
        """An entry took the place of the whiteout ``name``: a directory must not let the lower one show through."""
        if where.gone is not None and name in where.gone:
            where.gone.discard(name)
            if kid is not None:
                self.opaque(kid)

    def finish(self) -> None:
        """Take out whiteouts in directories that are not merged with lower ones; then hide every lower name if the root is opaque.

        overlayfs does not read the opaque mark on its own root.
        """
        if self.below is None:
            return
        for where in self._marked:
            if where.gone and not where.dead and not self._is_merged(where):
                self._unmark(where)
        root = self.tree.root
        if root.opaque:
            root.opaque = False
            for name in self.below.root_names():
                self.hide(root, name, 0, 0)

    def _is_merged(self, where: tree.Dir) -> bool:
        parts = where.parts()
        found = None if self.below is None or self.tree.hidden(parts) else self.below.directory(parts or [b"."])
        if found is None:
            return False
        os.close(found)
        return True
