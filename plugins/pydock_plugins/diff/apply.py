"""Put the entries of one layer archive into a directory, exactly as OCI layers and containerd mean it.

Vocabulary: *overlay* mode writes an overlay upper directory (whiteouts become marks), *plain* mode a directory holding all layers
(whiteouts remove); a *place* is the directory and the one name an entry goes to.
Invariants: nothing outside the root is read, made, linked, changed or removed; a name is made with an exclusive call first and only what
is in the way is removed; owner before mode (chown clears set-id bits), data before attributes (a write clears capabilities), times of
directories last; overlayfs's own marks in an archive (``trusted.*``, ``user.overlay.*``, device 0:0) are dropped. A plain small file
takes four system calls.
Sources: OCI image spec layer.md; containerd pkg/archive.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydock.base import safefs
from pydock_plugins.diff import copyup, headers, limits, lowers, tape, tree, whiteouts

CREATE: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL: Final = 0o7000
_MAX_ID: Final = 0xFFFF_FFFE
_MAX_TIME: Final = (1 << 63) - 1
_MAX_MAJOR: Final = 0xFFF
_MAX_MINOR: Final = 0xF_FFFF
_DEVICES: Final = {headers.CHAR: stat.S_IFCHR, headers.BLOCKDEV: stat.S_IFBLK}

OVERLAY: Final = "overlay"
PLAIN: Final = "plain"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a layer goes: the root's descriptor, the mode, and how to get the layers below (overlay mode only)."""

    root: int
    mode: str
    below: lowers.Lowers | None = None


def apply(source: Callable[[], bytes], target: Target, bounds: limits.Limits) -> int:
    """Unpack the archive whose pieces ``source`` returns into ``target`` and return the number of entries.

    The caller goes on pulling ``source`` to its end. The umask of the process must be 0.
    """
    layer = _Layer(target, bounds)
    try:
        return layer.run(headers.Reader(tape.Tape(source), bounds))
    finally:
        layer.tree.close()


class _Layer:
    def __init__(self, target: Target, bounds: limits.Limits) -> None:
        self.bounds = bounds
        self.below = target.below
        self.tree = tree.Tree(target.root, bounds, self._implied)
        self.whiteouts: whiteouts.Plain | whiteouts.Overlay = whiteouts.Plain(self.tree)
        if target.mode == OVERLAY:
            self.whiteouts = whiteouts.Overlay(self.tree, self.below)
        self.tape: tape.Tape
        self.makers: dict[bytes, Callable[[headers.Entry, tree.Dir, bytes], None]] = {
            headers.REGULAR: self._regular,
            headers.DIRECTORY: self._directory,
            headers.SYMLINK: self._symlink,
            headers.HARDLINK: self._hardlink,
            headers.CHAR: self._device,
            headers.BLOCKDEV: self._device,
            headers.FIFO: self._fifo,
        }

    def run(self, reader: headers.Reader) -> int:
        self.tape = reader.tape
        makers, longest = self.makers, self.bounds.path
        entry: headers.Entry | None = None
        try:
            while (entry := reader.next()) is not None:
                path = clean(entry.name)
                if not path:
                    continue  # the root itself; containerd leaves it as the snapshotter made it
                if len(path) > longest:
                    raise limits.invalid(path, f"path is longer than {longest} bytes")
                entry.name = path
                head, _, base = path.rpartition(b"/")
                where = self.tree.parent(head)
                if base.startswith(whiteouts.PREFIX):
                    self._whiteout(entry, where, base)
                    continue
                make = makers.get(entry.kind)
                if make is None:
                    raise limits.invalid(path, f"unknown entry type {safefs.show(entry.kind)}")
                if not 0 <= entry.uid <= _MAX_ID or not 0 <= entry.gid <= _MAX_ID:
                    raise limits.invalid(path, f"owner {entry.uid}:{entry.gid} is out of range")
                if not 0 <= entry.mtime <= _MAX_TIME:
                    entry.mtime = 0
                make(entry, where, base)
                if not where.fresh:
                    where.own(base)
            entry = None
            self.whiteouts.finish()
            self.tree.set_times()
        except OSError as error:
            raise limits.from_os(entry.name if entry else b"", error) from error
        return reader.count

    def _whiteout(self, entry: headers.Entry, where: tree.Dir, base: bytes) -> None:
        if base == whiteouts.OPAQUE:
            self.whiteouts.opaque(where)
            return
        name = whiteouts.hidden_name(base, entry.name)
        if not base.startswith(whiteouts.META):
            self.whiteouts.hide(where, name, entry.uid, entry.gid)

    def _regular(self, entry: headers.Entry, where: tree.Dir, base: bytes) -> None:
        here = where.fd if where.fd >= 0 else self.tree.fd(where)
        try:
            fd = os.open(base, CREATE, entry.mode & 0o777, dir_fd=here)
        except FileExistsError:
            self.tree.remove(where, base)
            fd = os.open(base, CREATE, entry.mode & 0o777, dir_fd=self.tree.fd(where))
            self.whiteouts.replaced(where, base, None)
        try:
            if entry.size or entry.map is not None:
                self._data(entry, fd)
            if entry.uid or entry.gid or not where.exact:
                os.fchown(fd, entry.uid, entry.gid)
            if entry.xattrs:
                self._xattrs(entry, where, base)
            if entry.mode & _SPECIAL or entry.xattrs or not where.exact:
                os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _data(self, entry: headers.Entry, fd: int) -> None:
        if entry.map is not None:
            self._sparse(entry, fd)
            return
        small = self.tape.small()
        if small is not None:
            written = os.write(fd, small)
            if written != entry.size:
                _write(fd, small[written:])
            return
        for piece in self.tape.pieces():
            _write(fd, piece)

    def _sparse(self, entry: headers.Entry, fd: int) -> None:
        if entry.real_size > self.bounds.bytes:
            raise limits.exhausted(entry.name, f"sparse file of {entry.real_size} bytes")
        for offset, length in entry.map or ():
            os.lseek(fd, offset, os.SEEK_SET)
            left = length
            while left:
                piece = self.tape.upto(left)
                _write(fd, piece)
                left -= len(piece)
        os.ftruncate(fd, entry.real_size)

    def _directory(self, entry: headers.Entry, where: tree.Dir, base: bytes) -> None:
        here = self.tree.fd(where)
        kid, known = where.kids.get(base), where.exact
        try:
            os.mkdir(base, entry.mode & 0o1777, dir_fd=here)
        except FileExistsError:
            if stat.S_ISDIR(safefs.lstat(here, base).st_mode):
                known = False
                if kid is None:
                    kid = self.tree.add(where, base, fresh=False)
                    kid.acl = True  # not looked at: taken for the harder case
            else:
                self.tree.remove(where, base)
                here = self.tree.fd(where)
                os.mkdir(base, entry.mode & 0o1777, dir_fd=here)
        if kid is None or kid.dead:
            kid = self.tree.add(where, base, fresh=True)
            self.whiteouts.replaced(where, base, kid)
        acl = where.acl
        if entry.uid or entry.gid or not known:
            os.chown(base, entry.uid, entry.gid, dir_fd=here, follow_symlinks=False)
        if entry.xattrs:
            self._xattrs(entry, where, base)
            acl = acl or any(key.startswith(b"system.") for key, _ in entry.xattrs)
        if entry.mode & 0o6000 or entry.xattrs or not known:
            safefs.chmod(here, base, entry.mode)
        kid.owner_known(entry.mode, entry.gid, acl=acl or kid.acl)
        self.tree.times[kid] = entry.mtime
        self.tree.remember(entry.name, kid)

    def _symlink(self, entry: headers.Entry, where: tree.Dir, base: bytes) -> None:
        here = self.tree.fd(where)
        try:
            os.symlink(entry.link, base, dir_fd=here)
        except FileExistsError:
            self.tree.remove(where, base)
            here = self.tree.fd(where)
            os.symlink(entry.link, base, dir_fd=here)
            self.whiteouts.replaced(where, base, None)
        self._finish(entry, where, base, here, chmod=False)

    def _finish(self, entry: headers.Entry, where: tree.Dir, base: bytes, here: int, *, chmod: bool = True) -> None:
        """Owner, attributes, mode and time of a new entry that is no regular file."""
        if entry.uid or entry.gid or not where.exact:
            os.chown(base, entry.uid, entry.gid, dir_fd=here, follow_symlinks=False)
        if entry.xattrs:
            self._xattrs(entry, where, base)
        if chmod:
            safefs.chmod(here, base, entry.mode)
        os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=here, follow_symlinks=False)

    def _hardlink(self, entry: headers.Entry, where: tree.Dir, base: bytes) -> None:
        parts = safefs.clean(entry.link)
        if not parts or entry.link.endswith(b"/"):
            raise limits.invalid(entry.name, "hard link to a directory")
        holder = self.tree.find(parts[:-1], create=False)
        name = parts[-1]
        if holder is where and name == base:
            raise limits.invalid(entry.name, "hard link to itself")
        if holder is None or not self._link(holder, name, where, base):
            holder = self._bring_up(entry, parts)
            if not self._link(holder, name, where, base):
                raise limits.invalid(entry.name, f"hard link to {safefs.show(entry.link)}, which is not there")
        here = self.tree.fd(where)
        status = safefs.lstat(here, base)
        if stat.S_ISCHR(status.st_mode) and lowers.is_whiteout(status):
            raise limits.invalid(entry.name, f"hard link to {safefs.show(entry.link)}, which the layer removes")
        self._relabel(entry, where, base, status)

    def _link(self, holder: tree.Dir, name: bytes, where: tree.Dir, base: bytes) -> bool:
        """Link ``base`` to ``name`` in ``holder``; False when that is not there."""
        for _ in range(2):
            source, here = self.tree.pair(holder, where)
            try:
                os.link(name, base, src_dir_fd=source, dst_dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:
                return False
            except FileExistsError:
                self.tree.remove(where, base)
                if holder.dead:
                    return False
                continue
            self.whiteouts.replaced(where, base, None)
            return True
        return False

    def _bring_up(self, entry: headers.Entry, parts: tuple[bytes, ...]) -> tree.Dir:
        """Copy a hard link's target out of the layers below, and return the directory it is in now."""
        found = None if self.below is None or self.tree.hidden(parts) else self.below.entry(parts)
        if found is None:
            raise limits.invalid(entry.name, f"hard link to {safefs.show(entry.link)}, which is not there")
        with safefs.opened(found):
            holder = self.tree.parent(b"/".join(parts[:-1]))
            copyup.entry(found, lambda flags: self._lower(parts, flags), self.tree.fd(holder), parts[-1])
        holder.own(parts[-1])
        return holder

    def _lower(self, parts: tuple[bytes, ...], flags: int) -> int:
        fd = self.below.entry(parts, flags) if self.below else None
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), b"/".join(parts))
        return fd

    def _relabel(self, entry: headers.Entry, where: tree.Dir, base: bytes, status: os.stat_result) -> None:
        """Give a linked file the metadata of this entry where they differ; most often they do not."""
        link = stat.S_ISLNK(status.st_mode)
        moved = (status.st_uid, status.st_gid) != (entry.uid, entry.gid)
        here = self.tree.fd(where)
        if moved:
            os.chown(base, entry.uid, entry.gid, dir_fd=here, follow_symlinks=False)
        if entry.xattrs:
            self._xattrs(entry, where, base)
        if not link and (moved or entry.xattrs or stat.S_IMODE(status.st_mode) != entry.mode):
            safefs.chmod(here, base, entry.mode)
        if status.st_mtime_ns != entry.mtime:
            os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=here, follow_symlinks=False)

    def _device(self, entry: headers.Entry, where: tree.Dir, base: bytes) -> None:
        if not 0 <= entry.major <= _MAX_MAJOR or not 0 <= entry.minor <= _MAX_MINOR:
            raise limits.invalid(entry.name, f"device number {entry.major}:{entry.minor} is out of range")
        if entry.kind == headers.CHAR and entry.major == entry.minor == 0:
            return  # overlayfs's own whiteout: an archive says that with .wh.
        self._node(entry, where, base, _DEVICES[entry.kind])

    def _fifo(self, entry: headers.Entry, where: tree.Dir, base: bytes) -> None:
        self._node(entry, where, base, stat.S_IFIFO)

    def _node(self, entry: headers.Entry, where: tree.Dir, base: bytes, kind: int) -> None:
        device = os.makedev(entry.major, entry.minor)
        here = self.tree.fd(where)
        try:
            os.mknod(base, kind | entry.mode & 0o777, device, dir_fd=here)
        except FileExistsError:
            self.tree.remove(where, base)
            here = self.tree.fd(where)
            os.mknod(base, kind | entry.mode & 0o777, device, dir_fd=here)
            self.whiteouts.replaced(where, base, None)
        self._finish(entry, where, base, here)

    def _xattrs(self, entry: headers.Entry, where: tree.Dir, base: bytes) -> None:
        for key, value in entry.xattrs or ():
            if key.startswith((b"trusted.", b"user.overlay.")):
                continue
            if not key or b"\0" in key:
                raise limits.invalid(entry.name, "extended attribute without a proper name")
            try:
                safefs.set_xattr(self.tree.fd(where), base, key, value)
            except OSError as error:
                # A filesystem or namespace that has none; or user.* on a link, fifo or device, where Linux allows none.
                plain = entry.kind in (headers.REGULAR, headers.DIRECTORY)
                if error.errno != errno.EOPNOTSUPP and (plain or error.errno != errno.EPERM or not key.startswith(b"user.")):
                    raise

    def _implied(self, kid: tree.Dir) -> None:
        """Give a directory the archive does not bring the metadata it has in the layers below."""
        if kid.parent is None:
            return
        self.whiteouts.replaced(kid.parent, kid.name, kid)
        parts = kid.parts()
        found = None if self.below is None or self.tree.hidden(parts) else self.below.directory(parts)
        if found is None:
            return
        with safefs.opened(found):
            status = copyup.directory(found, self.tree.fd(kid.parent), kid.name)
        kid.owner_known(status.st_mode, status.st_gid, acl=True)
        self.tree.times[kid] = status.st_mtime_ns


def clean(name: bytes) -> bytes:
    """``name`` relative to the root without ``.``, ``..`` and doubled or trailing slashes; b"" is the root itself."""
    if name[:2] == b"./":
        name = name[2:]
    if name[-1:] == b"/":
        name = name[:-1]
    if not name or name[0] in b"./" or b"//" in name or b"/." in name or name[-1:] == b"/":
        return b"/".join(safefs.clean(name))
    return name


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
