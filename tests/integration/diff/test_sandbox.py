"""What a sealed helper cannot do, tried in a process that is sealed for real."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pydock.base import safefs, syscalls
from pydock_plugins.diff import confine, sandbox

pytestmark = pytest.mark.root

_LIBC = ctypes.CDLL(None, use_errno=True)


def raw_setuid(uid: int) -> None:
    """The bare system call: the C library's function ends a process whose threads it cannot all change."""
    if _LIBC.syscall({"x86_64": 105}.get(os.uname().machine, 146), uid) < 0:
        raise OSError(ctypes.get_errno(), "setuid")


def sealed(folder: Path, attempt: Callable[[int], object], capabilities: int = confine.OVERLAY_CAPABILITIES) -> str:
    """What came of ``attempt(root descriptor)`` in a sealed child: "done", the name of the OSError's errno text, or the signal."""
    with safefs.opened(safefs.open_root(folder)) as root:
        tree = syscalls.clone_tree(root, attributes=sandbox.TREE_ATTRIBUTES)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sandbox.empty_root()
            top = sandbox.enter(tree, 1 << 20)
            os.close(tree)
            sandbox.drop(top, capabilities)
            sandbox.seal()
            attempt(top)
            os.write(writing, b"done")
        except OSError as error:
            os.write(writing, os.strerror(error.errno or 0).encode())
        except (ImportError, ValueError, AssertionError) as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.close(tree)
    with safefs.opened(reading):
        said = os.read(reading, 4096).decode()
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said


def write_file(top: int) -> None:
    os.close(os.open(b"f", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=top))
    os.mkdir(b"d", dir_fd=top)
    os.symlink(b"t", b"s", dir_fd=top)
    os.link(b"f", b"d/g", src_dir_fd=top, dst_dir_fd=top)
    os.mknod(b"n", 0o020000 | 0o600, os.makedev(1, 3), dir_fd=top)
    os.chown(b"f", 5, 6, dir_fd=top)
    safefs.chmod(top, b"f", 0o4755)
    safefs.set_xattr(top, b"d", b"trusted.overlay.opaque", b"y")
    assert sorted(safefs.names(top, b".")) == [b"d", b"f", b"n", b"s"]
    safefs.remove(top, b"d")


def test_it_can_do_its_work(tmp_path: Path) -> None:
    assert sealed(tmp_path, write_file) == "done"
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o4755


def test_it_sees_no_other_path(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "beside").write_text("secret")
    for path in ("/etc/passwd", "/proc/self/status", "../beside", "/../beside", "/sys", "/dev/null"):
        assert sealed(tmp_path / "in", lambda _, path=path: os.open(path, os.O_RDONLY)) == "No such file or directory"
    assert sealed(tmp_path / "in", lambda top: os.open("../../beside", os.O_RDONLY, dir_fd=top)) == "No such file or directory"


def test_the_kernel_follows_no_link_there(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    assert sealed(tmp_path, lambda top: os.open("link", os.O_RDONLY, dir_fd=top)) == "Too many levels of symbolic links"


DEADLY: dict[str, Callable[[int], object]] = {
    "execute": lambda _: os.execv("/bin/true", ["true"]),
    "fork": lambda _: os.fork(),
    "socket": lambda _: socket.socket(socket.AF_UNIX),
    "unshare": lambda _: syscalls.unshare(syscalls.CLONE_NEWNS),
    "mount": lambda _: syscalls.mount(b"none", b"/", b"tmpfs", 0),
    "umount": lambda _: syscalls.umount(b"/", syscalls.MNT_DETACH),
    "chroot": lambda _: os.chroot("/"),
    "setns": lambda top: _LIBC.setns(top, 0),
    "ptrace": lambda _: _LIBC.ptrace(0, 0, 0, 0),
    "pivot_root": lambda _: syscalls.pivot_root(b".", b"."),
    "open_tree": lambda top: syscalls.clone_tree(top),
}


@pytest.mark.parametrize("name", DEADLY)
def test_what_only_an_attacker_tries_ends_it(name: str, tmp_path: Path) -> None:
    assert sealed(tmp_path, DEADLY[name]) == "SIGSYS"


DENIED: dict[str, Callable[[int], object]] = {
    "kill": lambda _: os.kill(os.getppid(), 0),
    "chdir": lambda _: os.chdir("/"),
    "rename": lambda top: os.rename("f", "g", src_dir_fd=top, dst_dir_fd=top),
    "setuid": lambda _: raw_setuid(5),
    "priority": lambda _: os.nice(-5),
    "hostname": lambda _: socket.sethostname("x"),
    "clock": lambda _: time.clock_settime(time.CLOCK_REALTIME, 0),
}


@pytest.mark.parametrize("name", DENIED)
def test_what_it_does_not_need_is_refused(name: str, tmp_path: Path) -> None:
    assert sealed(tmp_path, DENIED[name]) == "Operation not permitted"


def test_it_cannot_map_executable_memory(tmp_path: Path) -> None:
    def attempt(_: int) -> None:
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)

    assert sealed(tmp_path, attempt) == "Operation not permitted"


def test_without_overlay_it_may_not_set_trusted_attributes(tmp_path: Path) -> None:
    def attempt(top: int) -> None:
        safefs.set_xattr(top, b".", b"trusted.overlay.opaque", b"y")

    assert sealed(tmp_path, attempt) == "done"
    assert sealed(tmp_path, attempt, confine.FILE_CAPABILITIES) == "Operation not permitted"


def test_a_lower_layer_is_read_only_and_leads_nowhere(tmp_path: Path) -> None:
    lower, beside = tmp_path / "lower", tmp_path / "beside"
    lower.mkdir()
    (lower / "f").write_text("x")
    beside.write_text("secret")
    with safefs.opened(safefs.open_root(lower)) as root:
        tree = syscalls.clone_tree(root, attributes=sandbox.LOWER_ATTRIBUTES)
    with safefs.opened(tree):
        with pytest.raises(OSError, match="Read-only"):
            os.open("f", os.O_WRONLY, dir_fd=tree)
        with pytest.raises(FileNotFoundError):
            os.open("../beside", os.O_RDONLY, dir_fd=tree)


def test_every_architecture_with_a_table_has_a_filter() -> None:
    for machine in ("x86_64", "aarch64", "riscv64"):
        assert len(confine.program(machine)) % 8 == 0
    with pytest.raises(KeyError):
        confine.program("pdp11")
