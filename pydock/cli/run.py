"""``pctr run``: make a container, run it here, and clean up on every way out."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from pydock.base import durable, errors
from pydock.cli import console, making, signals
from pydock.cli.relay import Relay, Target
from pydock.cli.session import Session, pass_session
from pydock.client import anys, containers, fifos, snapshots, tasks
from pydock.client.connection import Connection
from pydock.client.tasks import Stdio

# A clean-up that hangs must not keep the caller; what is left is then told.
_CLEAN_UP = 30.0

io_options = (
    click.option("--null-io", is_flag=True, help="No input, and drop all output."),
    click.option("--log-uri", default="", help="Send output there (file://, binary://)."),
    click.option("--fifo-dir", default="", help="Where to make the FIFOs."),
    click.option("--pid-file", default="", help="Write the process's pid to this file."),
    click.option("--no-pivot", is_flag=True, help="Do not use pivot_root."),
    click.option("-d", "--detach", is_flag=True, help="Leave it running."),
)


def task_options(command: Any) -> Any:
    """Add the options that say how a task is started."""
    for option in reversed(io_options):
        command = option(command)
    return command


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--rm", is_flag=True, help="Remove the container when it has ended.")
@task_options
@making.container_options
@click.argument("words", nargs=-1, metavar="IMAGE|ROOTFS ID [COMMAND] [ARG]...")
@pass_session
def run(session: Session, /, words: tuple[str, ...], **flags: Any) -> int:
    """Run a container; the exit code is its process's."""
    if flags["rm"] and flags["detach"]:
        raise click.UsageError("flags --detach and --rm cannot be specified together")
    with signals.orderly():
        made = making.make(session.conn, flags, words)
        with _removed(session.conn, made.container) if flags["rm"] else contextlib.nullcontext():
            return start(session.conn, made.container, made.mounts, flags)


@contextlib.contextmanager
def _removed(conn: Connection, container: containers.Container) -> Iterator[None]:
    """Remove the container and its snapshot after the block."""
    try:
        yield
    finally:
        limited = conn.patient().within(_CLEAN_UP)
        with signals.shielded():
            with contextlib.suppress(errors.NotFound):
                containers.delete(limited, container.id)
            if container.snapshot_key:
                with contextlib.suppress(errors.NotFound):
                    snapshots.remove(limited, container.snapshotter, container.snapshot_key)


def start(conn: Connection, container: containers.Container, mounts: Sequence[snapshots.Mount], flags: making.Flags) -> int:
    """Create and start the task of a container; return its exit status, 0 at once when detached."""
    terminal = bool(containers.spec(container).get("process", {}).get("terminal"))
    detach = flags["detach"]
    with _streams(flags, terminal) as ours, console.raw() if terminal and not detach else contextlib.nullcontext():
        pid = tasks.create(conn, container.id, mounts, ours.stdio, _options(container, flags))
        with _forgotten_on_error(conn, container.id):
            ended = None if detach else tasks.wait(conn, container.id)
            if flags["pid_file"]:
                durable.write(Path(flags["pid_file"]), str(pid).encode(), 0o644)
            tasks.start(conn, container.id)
            if ended is None:
                return 0
            return Relay(Target(conn, container.id), ours).run(ended)


def _options(container: containers.Container, flags: making.Flags) -> Any:
    """Return the task's options: only given where they differ from the container's."""
    if not flags["no_pivot"]:
        return None
    options = anys.unpack(container.runtime.options, containers.RuncOptions) or containers.RuncOptions()
    options.no_pivot_root = True
    return anys.pack(options)


@contextlib.contextmanager
def _streams(flags: making.Flags, terminal: bool) -> Iterator[fifos.Fifos]:
    if flags["null_io"]:
        yield fifos.Fifos(Stdio(terminal=terminal))
    elif flags["log_uri"]:
        yield fifos.Fifos(Stdio(stdout=flags["log_uri"], stderr="" if terminal else flags["log_uri"], terminal=terminal))
    else:
        with fifos.made(flags["fifo_dir"], terminal=terminal, keep=flags["detach"]) as ours:
            yield ours


@contextlib.contextmanager
def _forgotten_on_error(conn: Connection, container: str) -> Iterator[None]:
    """Kill and delete the task when the block fails."""
    try:
        yield
    except BaseException:
        with signals.shielded(), contextlib.suppress(errors.PydockError):
            force_delete(conn.patient().within(_CLEAN_UP), container)
        raise


def force_delete(conn: Connection, container: str, exec_id: str = "") -> tasks.DeleteResponse:
    """Kill a process, wait for its end and forget it. Raises NotFound."""
    ended = tasks.wait(conn, container, exec_id)
    with contextlib.suppress(errors.NotFound, errors.FailedPrecondition):
        tasks.kill(conn, container, signal.SIGKILL, exec_id, everyone=not exec_id)
    with contextlib.suppress(errors.NotFound, errors.FailedPrecondition):
        if tasks.get(conn, container, exec_id).status != tasks.CREATED:
            ended.result()
    ended.cancel()
    return tasks.delete(conn, container, exec_id)
