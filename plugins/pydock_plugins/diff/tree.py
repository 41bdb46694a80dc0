"""The target directory as one layer sees it: real directories by descriptor, and what of them this layer made.

Vocabulary: a *dir* is a real directory below the root, reached by names only; it is *fresh* when this layer made it (or emptied it by an
opaque whiteout), so nothing of lower layers can be in it; *ours* are the names this layer put into a directory that is not fresh, *gone*
those whose whiteout stands in it; it is *exact* when what is created in it gets the owner and mode asked for (no set-group-id, no default
ACL, group 0).
Invariants: no system call resolves more than one name, or a path of names known to be directories; symbolic links are followed here, inside
the root, as containerd does: absolute ones from the root, ``..`` by its letters, a dangling one is made into directories. Descriptors are
bounded.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Final

from pydock.base import errors, safefs
from pydock_plugins.diff import limits

MAX_OPEN: Final = 448
MAX_PATHS: Final = 50_000
MAX_LINKS: Final = 255
MAX_DEPTH: Final = 2048
_PATH_PIECE: Final = 4000
DEFAULT_ACL: Final = b"system.posix_acl_default"


class Dir:
    """A real directory; ``fd`` is -1 while closed, ``parent`` None for the root."""

    __slots__ = ("acl", "dead", "depth", "exact", "fd", "fresh", "gone", "kids", "name", "opaque", "ours", "parent", "touched")

    def __init__(self, parent: Dir | None, name: bytes, *, fresh: bool) -> None:
        self.parent, self.name, self.fresh = parent, name, fresh
        self.depth: int = parent.depth + 1 if parent else 0
        self.fd = -1
        self.dead = self.touched = self.acl = self.exact = self.opaque = False
        self.kids: dict[bytes, Dir] = {}
        self.ours: set[bytes] | None = None
        self.gone: set[bytes] | None = None

    def owner_known(self, mode: int, gid: int, *, acl: bool) -> None:
        """Note mode, group and default ACL of this directory, which decide what new entries in it inherit."""
        self.acl = acl
        self.exact = not acl and gid == 0 and not mode & stat.S_ISGID

    def own(self, name: bytes) -> None:
        """Note that this layer put ``name`` here."""
        if self.fresh:
            return
        if self.ours is None:
            self.ours = set()
            node: Dir | None = self
            while node is not None and not node.touched:
                node.touched = True
                node = node.parent
        self.ours.add(name)

    def mine(self, name: bytes) -> bool:
        """Whether this layer put ``name`` here, or something below it, into a directory it shares with lower layers."""
        kid = self.kids.get(name)
        return (self.ours is not None and name in self.ours) or (kid is not None and (kid.touched or kid.fresh))

    def parts(self) -> list[bytes]:
        """The names from the root to here."""
        found: list[bytes] = []
        node = self
        while node.parent is not None:
            found.append(node.name)
            node = node.parent
        found.reverse()
        return found


class Tree:
    """Directories below ``root`` (a descriptor the caller keeps open); ``implied`` is told of each parent made unasked."""

    def __init__(self, root: int, bounds: limits.Limits, implied: Callable[[Dir], None]) -> None:
        self.bounds, self._implied = bounds, implied
        self.root = Dir(None, b".", fresh=not safefs.names(root, b"."))
        self.root.fd = root
        self._learn(self.root)
        self.paths: dict[bytes, Dir] = {b"": self.root}
        self.times: dict[Dir, int] = {}
        self.made = 0
        self._open: list[Dir] = []

    def close(self) -> None:
        """Close every descriptor but the root's."""
        for node in self._open:
            if node.fd >= 0:
                os.close(node.fd)
                node.fd = -1
        self._open.clear()

    def fd(self, node: Dir) -> int:
        """A descriptor (O_PATH) of ``node``, valid until another directory is opened."""
        if node.fd >= 0:
            return node.fd
        names: list[bytes] = []
        base = node
        while base.fd < 0 and base.parent is not None:
            names.append(base.name)
            base = base.parent
        names.reverse()
        fd = _descend(base.fd, names)
        self._keep(node, fd)
        return fd

    def pair(self, one: Dir, two: Dir) -> tuple[int, int]:
        """Descriptors of both, valid together."""
        self.fd(one)
        second = self.fd(two)
        return self.fd(one), second

    def _keep(self, node: Dir, fd: int) -> None:
        if len(self._open) >= MAX_OPEN:
            self.close()
        node.fd = fd
        self._open.append(node)

    def parent(self, path: bytes) -> Dir:
        """The directory the clean relative path ``path`` names, made with all its parents where missing."""
        node = self.paths.get(path)
        if node is None:
            node = self.find(path.split(b"/"), create=True)
            if node is None:
                raise errors.Internal("a parent directory was not made")
            self.remember(path, node)
        return node

    def remember(self, path: bytes, node: Dir) -> None:
        """Note that ``path`` leads to ``node``, until a link or a directory goes."""
        if len(self.paths) >= MAX_PATHS:
            self.forget_paths()
        self.paths[path] = node

    def forget_paths(self) -> None:
        """Nothing is known of any path any more: a symbolic link or a directory went."""
        self.paths.clear()
        self.paths[b""] = self.root

    def find(self, parts: Sequence[bytes], *, create: bool) -> Dir | None:
        """Follow ``parts`` from the root. None when something is missing and ``create`` is off.

        InvalidArgument when a name on the way is no directory, or links loop.
        """
        node, todo, hops = self.root, list(reversed(parts)), 0
        while todo:
            name = todo.pop()
            step = node.kids.get(name) or self._step(node, name, create=create)
            if step is None:
                return None
            if isinstance(step, Dir):
                node = step
                continue
            hops += 1
            if hops > MAX_LINKS or len(todo) > 2 * MAX_DEPTH:
                raise limits.invalid(b"/".join(parts), "too many symbolic links on the way")
            base = b"" if step.startswith(b"/") else b"/".join(node.parts()) + b"/"
            todo.extend(reversed(safefs.clean(base + step)))
            node = self.root
        return node

    def _step(self, node: Dir, name: bytes, *, create: bool) -> Dir | bytes | None:
        """The directory ``name`` in ``node``, or where the link of that name points to, or None when it is missing."""
        here = self.fd(node)
        try:
            fd = os.open(name, safefs.DIRECTORY, dir_fd=here)
        except FileNotFoundError:
            return self._imply(node, name) if create else None
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            if create and node.gone is not None and name in node.gone:
                os.unlink(name, dir_fd=here)
                return self._imply(node, name)
            return self._link(here, name)
        kid = self.add(node, name, fresh=False)
        self._keep(kid, fd)
        self._learn(kid)
        return kid

    @staticmethod
    def _link(here: int, name: bytes) -> bytes:
        try:
            return os.readlink(name, dir_fd=here)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from error
            raise

    def _learn(self, node: Dir) -> None:
        status = os.fstat(node.fd)
        node.owner_known(status.st_mode, status.st_gid, acl=safefs.get_xattr(node.fd, b".", DEFAULT_ACL) is not None)

    def _imply(self, node: Dir, name: bytes) -> Dir:
        self.made += 1
        if self.made > self.bounds.entries:
            raise limits.exhausted(name, f"more than {self.bounds.entries} parent directories that are not in the archive")
        fd = self.fd(node)
        os.mkdir(name, 0o755, dir_fd=fd)
        if not node.exact:
            os.chown(name, 0, 0, dir_fd=fd, follow_symlinks=False)
            safefs.chmod(fd, name, 0o755)
        kid = self.add(node, name, fresh=True)
        kid.owner_known(0o755, 0, acl=node.acl)
        node.own(name)
        self._implied(kid)
        return kid

    def add(self, node: Dir, name: bytes, *, fresh: bool) -> Dir:
        """Note the real directory ``name`` in ``node``."""
        if node.depth >= MAX_DEPTH:
            raise limits.invalid(name, f"directories nest deeper than {MAX_DEPTH}")
        kid = node.kids[name] = Dir(node, name, fresh=fresh)
        return kid

    def remove(self, node: Dir, name: bytes) -> None:
        """Remove the entry ``name`` of ``node``, whatever it is; FileNotFoundError when it is not there."""
        kid = node.kids.pop(name, None)
        if kid is not None:
            self._bury(kid)
        self.forget_paths()
        safefs.remove(self.fd(node), name)

    def _bury(self, kid: Dir) -> None:
        dead = [kid]
        while dead:
            node = dead.pop()
            node.dead = True
            self.times.pop(node, None)
            if node.fd >= 0:
                os.close(node.fd)
                node.fd = -1
            dead.extend(node.kids.values())

    def hidden(self, parts: Sequence[bytes]) -> bool:
        """Whether this layer hides ``parts`` of the layers below, by a whiteout or an opaque directory on the way."""
        node: Dir | None = self.root
        for name in parts:
            if node is None:
                return False
            if node.opaque or (node.gone is not None and name in node.gone):
                return True
            node = node.kids.get(name)
        return False

    def set_times(self) -> None:
        """Give the directories the times noted for them; last, since every entry made in one changes its time."""
        for node, when in self.times.items():
            if node.parent is not None:
                os.utime(node.name, ns=(when, when), dir_fd=self.fd(node.parent), follow_symlinks=False)


def _descend(fd: int, names: list[bytes]) -> int:
    """Open the real directory ``names`` below ``fd``, in as few calls as the length of a path allows."""
    if len(names) == 1:
        return os.open(names[0], safefs.DIRECTORY, dir_fd=fd)
    pieces: list[bytes] = []
    for name in names:
        if pieces and len(pieces[-1]) + len(name) < _PATH_PIECE:
            pieces[-1] += b"/" + name
        else:
            pieces.append(name)
    here = fd
    for piece in pieces:
        below = safefs.open_no_links(here, piece, safefs.DIRECTORY)
        if here != fd:
            os.close(here)
        here = below
    return here
