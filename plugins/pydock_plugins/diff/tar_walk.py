"""What changed from one file tree to another, as the entries of an OCI layer.

Vocabulary: the *upper* tree is the state after, the *lower* one the state before; a *mark* is overlayfs's own word in an upper directory
(a 0:0 device or an attribute that hides a lower name, an attribute that makes a directory opaque); a *whiteout* is the layer's word for it.
There are two ways, with equal results: `Marks` reads an overlay upper directory alone, `Pairs` goes through both trees side by side.

Left out, since no layer can hold them: sockets (one in the place of something else hides it), names that begin with ``.wh.``, 0:0 devices,
overlayfs's attributes and those that belong to a host (``trusted.*`` and ``security.*`` but capabilities).
Invariants: the trees may be hostile and alive: directories are opened from their root without following a link, a file is looked at before
it is opened and read through the descriptor that was looked at; what vanishes meanwhile is left out; a file that shrinks ends in zeros.
At most four descriptors are open, and memory holds one directory's names and a record for each name with several links.
Order: of each directory itself, whiteouts, files, then directories, each by name; so equal trees give equal layers.
Source: OCI image spec, layer.md; Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydock.base import errors, safefs
from pydock_plugins.diff import headers, lowers, pax, tar_write, whiteouts

CHUNK: Final = 1 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_ZEROS: Final = bytes(CHUNK)
_KINDS: Final = {
    stat.S_IFREG: headers.REGULAR, stat.S_IFDIR: headers.DIRECTORY, stat.S_IFLNK: headers.SYMLINK, stat.S_IFCHR: headers.CHAR,
    stat.S_IFBLK: headers.BLOCKDEV, stat.S_IFIFO: headers.FIFO,
}  # fmt: skip
_KEPT: Final = (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")

Xattrs = tuple[tuple[bytes, bytes], ...]
Emit = Callable[[bytes], None]


class Redirected(Exception):
    """An overlay upper directory refers to a lower one by name (redirect_dir, metacopy): only the mounted view shows its files."""


class Tree:
    """A tree to be read, by the descriptor of its root."""

    def __init__(self, root: int) -> None:
        self.root = root

    def directory(self, path: bytes) -> int | None:
        """A descriptor of the directory ``path``, for reading; None where there is none (any more)."""
        if len(path) > safefs.PATH_MAX - 1:
            raise errors.FailedPrecondition(f"path {safefs.show(path)} is too long for a layer")
        with _vanishing():
            return safefs.open_no_links(self.root, path or b".", _DIRECTORY)
        return None


@dataclass(slots=True)
class Found:
    """An entry as it was seen; ``link`` is where a symbolic link leads, ``keys`` are of all attributes, ``xattrs`` those a layer holds."""

    name: bytes
    status: os.stat_result
    keys: Sequence[bytes] = ()
    xattrs: Xattrs = ()
    link: bytes = b""

    @property
    def is_directory(self) -> bool:
        """Tell a directory."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def inode(self) -> tuple[int, int]:
        """What hard links share."""
        return self.status.st_dev, self.status.st_ino


@dataclass(slots=True)
class Folder:
    """A directory of the upper tree on the way; ``entry`` waits to be written until something below it is, None when it is written."""

    path: bytes
    above: Folder | None = None
    entry: tar_write.Entry | None = None

    def at(self, name: bytes) -> bytes:
        """The path of ``name`` in here."""
        return self.path + b"/" + name if self.path else name


class Layer:
    """Writes entries of the tree ``upper`` through ``emit``; no time is later than ``epoch`` (ns), where it is given."""

    def __init__(self, emit: Emit, upper: Tree, epoch: int | None = None) -> None:
        self.emit, self.upper, self.epoch = emit, upper, epoch
        self._written: dict[tuple[int, int], bytes] = {}
        self._unchanged: dict[tuple[int, int], tuple[Folder, bytes]] = {}

    def entry(self, found: Found, path: bytes) -> tar_write.Entry:
        """The header of an entry; its size and link still have to be told."""
        status, mtime = found.status, found.status.st_mtime_ns
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in (headers.CHAR, headers.BLOCKDEV) else (0, 0)
        return tar_write.Entry(
            path + b"/" if found.is_directory else path, kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid,
            mtime if self.epoch is None else min(mtime, self.epoch), link=found.link, device=device, xattrs=found.xattrs,
        )  # fmt: skip

    def put_folder(self, folder: Folder) -> None:
        """Write what waits of a directory and of those above it, outermost first."""
        waiting = []
        step: Folder | None = folder
        while step is not None and step.entry is not None:
            waiting.append(step)
            step = step.above
        for each in reversed(waiting):
            if each.entry is not None:
                self.emit(tar_write.header(each.entry))
            each.entry = None

    def whiteout(self, folder: Folder, name: bytes) -> None:
        """Hide ``name`` of lower layers."""
        self._marker(folder, whiteouts.PREFIX + name)

    def opaque(self, folder: Folder) -> None:
        """Hide all that lower layers have in a directory."""
        self._marker(folder, whiteouts.OPAQUE)

    def _marker(self, folder: Folder, name: bytes) -> None:
        self.put_folder(folder)
        self.emit(tar_write.header(tar_write.Entry(folder.at(name), headers.REGULAR)))

    def unchanged(self, folder: Folder, found: Found) -> None:
        """Note a file that the lower tree has just so: it is written after all if another name of it is new."""
        if found.status.st_nlink < 2:
            return
        if found.inode in self._written:
            self._hardlink(folder, found)
        else:
            self._unchanged.setdefault(found.inode, (folder, found.name))

    def put(self, folder: Folder, dirfd: int, found: Found) -> None:
        """Write anything but a directory."""
        if found.status.st_nlink > 1:
            self._put_first_name(found)
            if found.inode in self._written:
                self._hardlink(folder, found)
                return
            self._written[found.inode] = folder.at(found.name)
        self._whole(folder, dirfd, found)

    def _put_first_name(self, found: Found) -> None:
        folder, name = self._unchanged.pop(found.inode, (None, b""))
        if folder is None or (dirfd := self.upper.directory(folder.path)) is None:
            return
        with safefs.opened(dirfd):
            first = look(dirfd, name)
            if first is not None and first.inode == found.inode:
                self._written[first.inode] = folder.at(name)
                self._whole(folder, dirfd, first)

    def _hardlink(self, folder: Folder, found: Found) -> None:
        self.put_folder(folder)
        entry = self.entry(found, folder.at(found.name))
        link = tar_write.Entry(entry.name, headers.HARDLINK, entry.mode, entry.uid, entry.gid, entry.mtime, link=self._written[found.inode])
        self.emit(tar_write.header(link))

    def _whole(self, folder: Folder, dirfd: int, found: Found) -> None:
        path = folder.at(found.name)
        if not stat.S_ISREG(found.status.st_mode):
            self.put_folder(folder)
            self.emit(tar_write.header(self.entry(found, path)))
            return
        data = open_file(dirfd, found)
        if data is None:
            self._written.pop(found.inode, None)
            return
        self.put_folder(folder)
        with safefs.opened(data):
            self._data(self.entry(found, path), data, os.fstat(data).st_size)

    def _data(self, entry: tar_write.Entry, data: int, size: int) -> None:
        self.emit(tar_write.header(_sized(entry, size)))
        left = size
        while left:
            piece = os.read(data, min(left, CHUNK)) or _ZEROS[:left]
            self.emit(piece)
            left -= len(piece)
        self.emit(tar_write.padding(size))


def _sized(entry: tar_write.Entry, size: int) -> tar_write.Entry:
    return tar_write.Entry(
        entry.name, entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime, size, entry.link, entry.device, entry.xattrs
    )


@contextlib.contextmanager
def _vanishing() -> Iterator[None]:
    """Bear that something is not there any more, or is something else."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise


def names(dirfd: int) -> list[bytes]:
    """What a directory holds, by name, without what would be taken for a whiteout."""
    return sorted(name for name in safefs.names(dirfd, b".") if not name.startswith(whiteouts.PREFIX))


def look(dirfd: int, name: bytes) -> Found | None:
    """The entry ``name``, None when it is gone; of a directory without its attributes, which come with its descriptor."""
    with _vanishing():
        status = safefs.lstat(dirfd, name)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISSOCK(status.st_mode) or lowers.is_whiteout(status):
            return Found(name, status)
        link = os.readlink(name, dir_fd=dirfd) if stat.S_ISLNK(status.st_mode) else b""
        keys = safefs.list_xattrs(dirfd, name)
        return Found(name, status, keys, _kept(dirfd, name, keys), link)
    return None


def look_inside(path: bytes, dirfd: int) -> Found:
    """The directory ``dirfd`` itself."""
    keys = safefs.list_xattrs(dirfd, b".")
    return Found(path.rpartition(b"/")[2], os.fstat(dirfd), keys, _kept(dirfd, b".", keys))


def _kept(dirfd: int, name: bytes, keys: Sequence[bytes]) -> Xattrs:
    kept = sorted(key for key in keys if key in _KEPT or (key.startswith(b"user.") and not key.startswith(b"user.overlay.")))
    return tuple((key, value) for key in kept if (value := safefs.get_xattr(dirfd, name, key)) is not None)


def open_file(dirfd: int, found: Found) -> int | None:
    """A descriptor to read the regular file that was ``found``; None when the name is that file no more.

    What has taken its place is not opened: opening a FIFO may wait, and opening a device acts on it.
    """
    with _vanishing():
        with safefs.opened(os.open(found.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)) as handle:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != found.inode:
                return None
            return os.open(b"/proc/self/fd/%d" % handle, os.O_RDONLY | os.O_CLOEXEC)
    return None


def hidden(found: Found) -> bool:
    """Tell what a layer cannot hold."""
    return stat.S_ISSOCK(found.status.st_mode) or lowers.is_whiteout(found.status)


class Marks:
    """Writes the layer that the overlay upper directory ``upper`` is; ``prefix`` of overlayfs's attributes, ``below`` the lower ones."""

    def __init__(self, layer: Layer, prefix: bytes = b"trusted.overlay.", below: lowers.Lowers | None = None) -> None:
        self.layer, self.tree, self.prefix, self.below = layer, layer.upper, prefix, below

    def write(self) -> None:
        """Write all entries. Raises Redirected where that is not enough."""
        pending = [Folder(b"")]
        while pending:
            folder = pending.pop()
            dirfd = self.tree.directory(folder.path)
            if dirfd is not None:
                with safefs.opened(dirfd):
                    pending.extend(reversed(self._directory(folder, dirfd)))

    def _directory(self, folder: Folder, dirfd: int) -> list[Folder]:
        here = look_inside(folder.path, dirfd)
        if self.prefix + b"redirect" in here.keys:
            raise Redirected
        if folder.path:
            folder.entry = self.layer.entry(here, folder.path)
            self.layer.put_folder(folder)
        opaque = safefs.get_xattr(dirfd, b".", self.prefix + b"opaque") if self.prefix + b"opaque" in here.keys else None
        if opaque == b"y" and folder.path:
            self.layer.opaque(folder)
        files, folders = [], []
        for name in names(dirfd):
            found = look(dirfd, name)
            if found is None:
                continue
            if found.is_directory:
                folders.append(Folder(folder.at(name), folder))
            elif self._hides(folder, found, by_attribute=opaque == b"x"):
                self.layer.whiteout(folder, name)
            elif not hidden(found):
                files.append(found)
        for found in files:
            self.layer.put(folder, dirfd, found)
        return folders

    def _hides(self, folder: Folder, found: Found, *, by_attribute: bool) -> bool:
        if lowers.is_whiteout(found.status):
            return True
        if stat.S_ISSOCK(found.status.st_mode):
            return self._is_below(folder, found.name)
        if self.prefix + b"metacopy" in found.keys:
            raise Redirected
        return by_attribute and self.prefix + b"whiteout" in found.keys

    def _is_below(self, folder: Folder, name: bytes) -> bool:
        """Tell whether a lower directory has the name: a whiteout of nothing would do no good."""
        fd = None if self.below is None else self.below.entry([*folder.path.split(b"/"), name] if folder.path else [name])
        if fd is None:
            return False
        os.close(fd)
        return True


class Pairs:
    """Writes what ``layer.upper`` has otherwise than the tree ``lower``; None stands for an empty one."""

    def __init__(self, layer: Layer, lower: Tree | None) -> None:
        self.layer, self.upper, self.lower = layer, layer.upper, lower

    def write(self) -> None:
        """Write all entries."""
        pending = [(Folder(b""), self.lower)]
        while pending:
            folder, lower = pending.pop()
            dirfd = self.upper.directory(folder.path)
            if dirfd is None:
                continue
            below = None if lower is None else lower.directory(folder.path)
            with contextlib.ExitStack() as stack:
                for fd in (dirfd, below):
                    if fd is not None:
                        stack.callback(os.close, fd)
                pending.extend(reversed(self._directory(folder, dirfd, below)))

    def _directory(self, folder: Folder, dirfd: int, below: int | None) -> list[tuple[Folder, Tree | None]]:
        if folder.path:
            found = look_inside(folder.path, dirfd)
            folder.entry = self.layer.entry(found, folder.path)
            if below is None or differ(look_inside(folder.path, below), found):
                self.layer.put_folder(folder)
        here, before = names(dirfd), [] if below is None else names(below)
        for name in sorted(set(before) - set(here)):
            self.layer.whiteout(folder, name)
        known = set(before)
        folders: list[tuple[Folder, Tree | None]] = []
        for name in here:
            old = look(below, name) if below is not None and name in known else None
            new = look(dirfd, name)
            if new is not None and new.is_directory:
                folders.append((Folder(folder.at(name), folder), self.lower if old is not None and old.is_directory else None))
            else:
                self._file(folder, (dirfd, below), old, new)
        return folders

    def _file(self, folder: Folder, fds: tuple[int, int | None], old: Found | None, new: Found | None) -> None:
        dirfd, below = fds
        if new is None or hidden(new):
            if old is not None and not hidden(old):
                self.layer.whiteout(folder, old.name)
        elif old is None or below is None or differ(old, new) or self._other_data(dirfd, below, old, new):
            self.layer.put(folder, dirfd, new)
        else:
            self.layer.unchanged(folder, new)

    def _other_data(self, dirfd: int, below: int, old: Found, new: Found) -> bool:
        """Tell whether the contents differ of two files that agree in all else.

        Equal times to the nanosecond stand for equal contents; times of whole seconds are made by tools, and stand for nothing.
        """
        if not stat.S_ISREG(new.status.st_mode) or old.inode == new.inode or new.status.st_mtime_ns % pax.SECOND:
            return False
        before, after = open_file(below, old), open_file(dirfd, new)
        with contextlib.ExitStack() as stack:
            for fd in (before, after):
                if fd is not None:
                    stack.callback(os.close, fd)
            if before is None or after is None:
                return True
            while piece := os.read(after, CHUNK):
                self.layer.emit(b"")
                if os.read(before, CHUNK) != piece:
                    return True
            return False


def differ(old: Found, new: Found) -> bool:
    """Tell whether two entries are not the same, contents aside."""
    mine, its = new.status, old.status
    if (mine.st_mode, mine.st_uid, mine.st_gid, mine.st_mtime_ns) != (its.st_mode, its.st_uid, its.st_gid, its.st_mtime_ns):
        return True
    if (new.link, new.xattrs) != (old.link, old.xattrs):
        return True
    if new.is_directory:
        return False
    return (mine.st_size, mine.st_rdev, mine.st_nlink) != (its.st_size, its.st_rdev, its.st_nlink)
