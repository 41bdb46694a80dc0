"""``pctr tasks exec`` and its short form ``pctr exec``."""

from __future__ import annotations

import contextlib
import copy
import os
import secrets
from collections.abc import Iterator
from typing import Any

import click

from pydock.base import errors
from pydock.cli import console, hostside, signals
from pydock.cli.relay import Relay, Target
from pydock.cli.run import force_delete
from pydock.cli.session import Session, pass_session
from pydock.client import containers, fifos, rootfs, snapshots, tasks
from pydock.client.connection import Connection
from pydock.client.tasks import Stdio
from pydock.oci import spec

_CLEAN_UP = 30.0


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--exec-id", default="", help="Its id (default: chosen).")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-d", "--detach", is_flag=True, help="Leave it running; drops its output but with --fifo-dir or --log-uri.")
@click.option("--cwd", default="", help="Working directory (default: the container's).")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="User name or id, group name or id.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Environment value.")
@click.option("--privileged", is_flag=True, help="All capabilities we have ourselves.")
@click.option("--fifo-dir", default="", help="Where to make the FIFOs.")
@click.option("--log-uri", default="", help="Send output there.")
@click.argument("container")
@click.argument("command", nargs=-1, required=True)
@pass_session
def exec_command(session: Session, /, container: str, command: tuple[str, ...], **flags: Any) -> int:
    """Run one more process in a container; the exit code is the process's."""
    process = _process(session.conn, container, command, flags)
    with signals.orderly():
        return _run(session.conn, container, process, flags)


def _process(conn: Connection, identifier: str, command: tuple[str, ...], flags: dict[str, Any]) -> dict[str, Any]:
    """Return the process object: the container's own with what the flags change."""
    container = containers.get(conn, identifier)
    made: spec.Spec = {"process": copy.deepcopy(containers.spec(container).get("process") or {})}
    process: dict[str, Any] = made["process"]
    process.setdefault("env", [])
    process.pop("consoleSize", None)
    process["terminal"] = False
    spec.arguments(made, command)
    if flags["user"]:
        ids = _ids(conn, container, flags["user"])
        spec.user(made, ids.uid, ids.gid, ids.groups)
    if flags["cwd"]:
        spec.working_directory(made, flags["cwd"])
    if flags["tty"]:
        spec.terminal(made, *(console.size() or (0, 0)))
    spec.add_env(made, flags["env"])
    if flags["privileged"]:
        process["capabilities"] = {kind: hostside.capabilities() for kind in ("bounding", "effective", "permitted")}
    return process


def _ids(conn: Connection, container: containers.Container, user: str) -> Any:
    if container.snapshot_key:
        return rootfs.ids(snapshots.mounts(conn, container.snapshotter, container.snapshot_key), user)
    path = str(containers.spec(container).get("root", {}).get("path", ""))
    if not path.startswith("/"):
        raise errors.FailedPrecondition(f"the root file system of {container.id} is not known, so --user cannot be looked up")
    root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return rootfs.resolve(root, user)
    finally:
        os.close(root)


def _run(conn: Connection, container: str, process: dict[str, Any], flags: dict[str, Any]) -> int:
    exec_id = flags["exec_id"] or f"exec-{secrets.token_hex(6)}"
    detach, terminal = flags["detach"], bool(process["terminal"])
    with _streams(flags, terminal) as ours, console.raw() if terminal and not detach else contextlib.nullcontext():
        tasks.add_exec(conn, container, exec_id, process, ours.stdio)
        try:
            ended = None if detach else tasks.wait(conn, container, exec_id)
            tasks.start(conn, container, exec_id)
            return 0 if ended is None else Relay(Target(conn, container, exec_id), ours).run(ended)
        except BaseException:
            with signals.shielded(), contextlib.suppress(errors.PydockError):
                force_delete(conn.patient().within(_CLEAN_UP), container, exec_id)
            raise


@contextlib.contextmanager
def _streams(flags: dict[str, Any], terminal: bool) -> Iterator[fifos.Fifos]:
    if flags["log_uri"]:
        yield fifos.Fifos(Stdio(stdout=flags["log_uri"], stderr="" if terminal else flags["log_uri"], terminal=terminal))
    elif flags["detach"] and not flags["fifo_dir"]:
        # Nobody could find its FIFOs again, or would remove them.
        yield fifos.Fifos(Stdio(terminal=terminal))
    else:
        with fifos.made(flags["fifo_dir"], terminal=terminal, keep=flags["detach"]) as ours:
            yield ours
