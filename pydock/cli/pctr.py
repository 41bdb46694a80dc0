"""``pctr``: talk to a daemon of the containerd API from a shell.

Invariants: commands load when they are used; every failure is one line "pctr: ..." on stderr and exit code 1 (130 for ctrl-c); the exit
code of ``run`` and ``exec`` is the process's.
"""

from __future__ import annotations

import os
import sys

import click

from pydock.base import errors
from pydock.cli.lazy import LazyGroup
from pydock.cli.session import Session

_SOCKET = "/run/pydock/pydock.sock"
_COMMANDS = {
    "version": ("pydock.cli.system:version", "Print the client and server versions"),
    "info": ("pydock.cli.system:info", "Print what the server says about itself"),
    "plugins": ("pydock.cli.system:plugins", "Show the plugins of the daemon"),
    "events": ("pydock.cli.events:events", "Print events as they happen"),
    "namespaces": ("pydock.cli.namespaces:namespaces", "Manage namespaces"),
    "content": ("pydock.cli.content:content", "Manage content"),
    "images": ("pydock.cli.images:images", "Manage images"),
    "snapshots": ("pydock.cli.snapshots:snapshots", "Manage snapshots"),
    "leases": ("pydock.cli.leases:leases", "Manage leases"),
    "containers": ("pydock.cli.containers:containers", "Manage containers"),
    "tasks": ("pydock.cli.tasks:tasks", "Manage tasks"),
    "run": ("pydock.cli.run:run", "Run a container"),
    "exec": ("pydock.cli.execs:exec_command", "Run one more process in a container"),
}
_ALIASES = {
    "plugin": "plugins", "event": "events", "namespace": "namespaces", "ns": "namespaces", "image": "images", "i": "images",
    "snapshot": "snapshots", "container": "containers", "c": "containers", "task": "tasks", "t": "tasks", "lease": "leases",
}  # fmt: skip


@click.group(cls=LazyGroup, commands_at=_COMMANDS, aliases=_ALIASES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-a", "--address", envvar="CONTAINERD_ADDRESS", default=_SOCKET, show_default=True, help="Socket of the daemon.")
@click.option("-n", "--namespace", envvar="CONTAINERD_NAMESPACE", default="default", show_default=True, help="Namespace of the commands.")
@click.option("--json", "as_json", is_flag=True, help="Print machine-readable JSON.")
@click.option("--timeout", type=float, default=0, help="Most seconds for the whole command (0: no limit).")
@click.option("--connect-timeout", type=float, default=0, help="Most seconds to wait for the daemon (0: no wait).")
@click.pass_context
def root(ctx: click.Context, address: str, namespace: str, as_json: bool, timeout: float, connect_timeout: float) -> None:
    """Debug client of pydockd and of anything else that speaks the containerd API."""
    session = Session(address, namespace, as_json, timeout, connect_timeout)
    ctx.call_on_close(session.close)
    ctx.obj = session


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(_run())


def _run() -> int:
    try:
        code = root.main(prog_name="pctr", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 0
    except click.ClickException as error:
        return _fail(error.format_message())
    except (errors.PydockError, OSError) as error:
        return _fail_on(error)
    except (KeyboardInterrupt, click.Abort):
        return 130
    return code if isinstance(code, int) else 0


def _fail_on(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has enough; the interpreter must not complain about it when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, OSError) and error.strerror:
        name = error.filename if isinstance(error.filename, str) else os.fsdecode(error.filename or b"")
        return _fail(f"{name}: {error.strerror}" if name else error.strerror)
    return _fail(str(error))


def _fail(message: str) -> int:
    click.echo(f"pctr: {message}", err=True)
    return 1
