"""The OCI runtime (crun, runc or one like them) as the shim uses it: forked, never waited for in line, its last error made ours.

A call is a routine: fork, arrange the child, exec, wait for its exit through the loop, read its log.  The child of ``create`` also
mounts the container's root file system, in a mount namespace of its own, so that nothing is ever mounted on the host: the mounts live
as long as the container's namespace and need no unmounting.  That namespace is copied from the host's at the time of the call and
receives later mounts of the host (slave), never the other way round.  A container that asks for *shared* propagation needs the host's
own mounts to be its peers: then everything is done in the host's namespace, as containerd does it.

With crun and no hooks, ``start`` and ``delete`` are done here: to start is to write one byte to ``exec.fifo`` and unlink it; to delete
is to remove cgroups and the state directory (crun's status.c and container.c do these steps and nothing else).  Each saves an exec.
"""

from __future__ import annotations

import errno
import os

from pydock_shim import linux, loop, rootfs, std, wire
from pydock_shim.failpoint import failpoint
from pydock_shim.std import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pydock_shim import host

QUICK = 30.0  # seconds, for calls that only touch a process or a file
SLOW = 600.0  # seconds, for calls that may run hooks or wait for a file system
OPTIONS_URL = "containerd.runc.v1.Options"


class RuntimeFailed(loop.RpcError):
    """The runtime said no; ``said`` is its own last error."""

    def __init__(self, said: str) -> None:
        super().__init__(wire.UNKNOWN, said)
        self.said = said


class Engine:
    """One container's runtime: which program, its state root, its log."""

    def __init__(self, main: loop.Loop, where: host.Host, path: str, root: str, bundle: str) -> None:
        self.loop, self.host, self.path, self.root, self.bundle = main, where, path, root, bundle
        self.crun = os.path.basename(path) == "crun"
        self.cover = where.cover if self.crun else ""
        self.in_host_namespace = False  # shared propagation was asked for
        self.native = self.crun  # start and delete are done here
        self.systemd_cgroup = False
        self.create_flags: list[str] = []
        self.log = bundle + "/log.json"
        self.oom_score = ""  # what the runtime's processes start from, if not the shim's own

    def argv(self, *words: str) -> list[str]:
        line = [self.path, "--root", self.root, "--log", self.log, "--log-format", "json"]
        if self.systemd_cgroup:
            line.append("--systemd-cgroup")
        return [*line, *words]

    def state_dir(self, id: str) -> str:
        return f"{self.root}/{id}"

    # calls

    def create(self, id: str, mounts: list[dict[str, Any]], fds: Sequence[int], console: str) -> loop.Routine:
        """Create container ``id``; its pid.  The init's pid file is ``init.pid`` in the bundle."""
        words = ["create", "--bundle", self.bundle, "--pid-file", self.bundle + "/init.pid", *self.create_flags]
        if console:
            words += ["--console-socket", console]
        root = self.bundle + "/rootfs"
        if mounts:
            os.makedirs(root, 0o711, exist_ok=True)
            if self.in_host_namespace:
                rootfs.mount_all(mounts, root)
                mounts = []
        failpoint("shim.create")
        yield from self._run(self.argv(*words, id), fds, mounts, SLOW)
        failpoint("shim.created")
        return self._pid("init.pid")

    def exec(self, id: str, name: str, fds: Sequence[int], console: str) -> loop.Routine:
        """Start the process of ``NAME.process.json`` in container ``id``; its pid."""
        words = ["exec", "--detach", "--process", f"{self.bundle}/{name}.process.json", "--pid-file", f"{self.bundle}/{name}.pid"]
        if console:
            words += ["--console-socket", console]
        failpoint("shim.exec")
        yield from self._run(self.argv(*words, id), fds, [], SLOW)
        failpoint("shim.execed")
        return self._pid(name + ".pid")

    def start(self, id: str) -> loop.Routine:
        """Let a created container run."""
        failpoint("shim.start")
        if self.native:
            self._start_here(id)
        else:
            yield from self._run(self.argv("start", id), (), [], SLOW)
        failpoint("shim.started")

    def call(self, *words: str) -> loop.Routine:
        """Any other command, without streams."""
        yield from self._run(self.argv(*words), (), [], QUICK)

    def _start_here(self, id: str) -> None:
        path = self.state_dir(id) + "/exec.fifo"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                raise RuntimeFailed(f"container `{id}` is not running") from error
            raise
        try:
            os.unlink(path)
            os.write(fd, b"0")
        finally:
            os.close(fd)

    def _pid(self, name: str) -> int:
        path = f"{self.bundle}/{name}"
        try:
            pid = int(linux.read_text(path))
            os.unlink(path)
        except (OSError, ValueError) as error:
            raise RuntimeFailed("failed to retrieve OCI runtime container pid") from error
        return pid

    # the child

    def _run(self, argv: list[str], fds: Sequence[int], mounts: list[dict[str, Any]], seconds: float) -> loop.Routine:
        try:
            offset = os.stat(self.log).st_size
        except OSError:
            offset = 0
        pid = os.fork()
        if pid == 0:
            self._child(argv, fds, mounts)
        gone = self.loop.child(pid)
        if not (yield self.loop.within(seconds, gone)):
            os.kill(pid, signal.SIGKILL)  # not yet reaped, so the pid is its own
            yield gone
            raise loop.RpcError(wire.DEADLINE_EXCEEDED, f"{os.path.basename(self.path)} did not answer within {seconds:g} seconds")
        status = (yield gone).status
        if status:
            raise RuntimeFailed(self._last_error(offset) or f"{os.path.basename(self.path)} ended with status {status}")

    def _child(self, argv: list[str], fds: Sequence[int], mounts: list[dict[str, Any]]) -> None:
        """In the forked child: never returns."""
        doing = ""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            for target, fd in enumerate(fds):
                os.dup2(fd, target)
            if self.oom_score:
                linux.write_file("/proc/self/oom_score_adj", self.oom_score.encode(), 0)
            doing = "failed to mount rootfs component: " if mounts else ""
            self._enter_namespace(mounts)
            doing = ""
            os.chdir(self.bundle)
            os.execve(self.host.program(self.path), argv, os.environ)  # noqa: S606
        except (OSError, ValueError) as error:
            self._complain(f"{doing}{error}")
        finally:
            os._exit(125)

    def _enter_namespace(self, mounts: list[dict[str, Any]]) -> None:
        if self.in_host_namespace or not (mounts or self.cover):
            return
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_SLAVE)
        if self.cover:
            linux.mount("none", self.cover, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, "size=64k")
        if mounts:
            rootfs.mount_all(mounts, self.bundle + "/rootfs")

    def _complain(self, text: str) -> None:
        line = std.dumps({"level": "error", "msg": text}) + b"\n"
        linux.write_file(self.log, line, os.O_CREAT | os.O_APPEND)

    def _last_error(self, offset: int) -> str:
        """The runtime's last error in what it logged since ``offset``."""
        try:
            fd = os.open(self.log, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            text = os.pread(fd, 1 << 16, offset).decode("utf-8", "replace")
        finally:
            os.close(fd)
        last = ""
        for line in text.splitlines():
            try:
                entry = std.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("level") == "error":
                last = str(entry.get("msg", "")).strip()
        return last
