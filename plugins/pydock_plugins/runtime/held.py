"""Processes held by pidfd: started with only the descriptors named, identified by start time, never signalled by a bare number.

Vocabulary: *start ticks* is field 22 of /proc/<pid>/stat, the one thing that tells a process from a later one with the same number;
a *held* process is a pidfd whose process had the start ticks expected when it was opened.
Invariants: stdlib only (the launcher is started with this before anything heavy is imported); no Python code runs between fork and
exec (posix_spawn), so it is safe in a process with threads.
Sources: pidfd_open(2), proc(5), posix_spawn(3).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Mapping, Sequence

CHILD_ENV = ("PATH", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR")
CHILD_ENV_PREFIX = "PYDOCK_"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def start_ticks(pid: int) -> int:
    """Return the start time of ``pid`` in clock ticks since boot, 0 when there is no such process.

    Raises OSError when that cannot be told.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        text = os.read(fd, 4096)
    except ProcessLookupError:
        return 0
    finally:
        os.close(fd)
    return int(text.rpartition(b")")[2].split()[19])


def hold(pid: int, ticks: int) -> int:
    """Return a pidfd of ``pid`` if it still is the process that began at ``ticks``, else -1.

    Raises OSError when out of descriptors: that is not knowing, and a process must not be taken for dead by it.
    """
    if pid <= 0:
        return -1
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    try:
        same = start_ticks(pid) == ticks and is_alive(pidfd)
    except OSError:
        os.close(pidfd)
        raise
    if same:
        return pidfd
    os.close(pidfd)
    return -1


def is_alive(pidfd: int) -> bool:
    """Tell whether the held process has not exited; a zombie counts as exited."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def kill(pidfd: int, number: int = signal.SIGKILL) -> None:
    """Signal the held process; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def reap(pidfd: int) -> int:
    """Return the exit code of a child that is dead, -signal when it was killed; 0 when somebody else reaped it."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return 0
    if result is None:
        return 0
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def end(pidfd: int) -> None:
    """Kill a child and wait for its end, which a kill makes short."""
    kill(pidfd)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)


def spawn(argv: Sequence[str], fds: Mapping[int, int]) -> tuple[int, int]:
    """Start ``argv`` in a session of its own; ``fds`` maps the child's descriptors to ours.  Returns (pid, pidfd).

    The child gets /dev/null as stdin and stdout, our stderr, few environment variables and default signal handling.
    """
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    actions.extend((os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in sorted(fds.items()))
    _keep_to_ourselves()
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        environment(),
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2],
    )
    return pid, os.pidfd_open(pid)


def _keep_to_ourselves() -> None:
    """Mark what we inherited open (from a shell, a service manager) as not to be inherited further: shims outlive us."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        with contextlib.suppress(OSError):
            if fd > 2 and os.get_inheritable(fd):
                os.set_inheritable(fd, False)


def environment() -> dict[str, str]:
    """Return the environment of a child: a search path, the locale and what begins with ``PYDOCK_``."""
    kept = {name: value for name, value in os.environ.items() if name in CHILD_ENV or name.startswith(CHILD_ENV_PREFIX)}
    kept.setdefault("PATH", DEFAULT_PATH)
    return kept
