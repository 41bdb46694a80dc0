"""``pctr tasks``: what runs."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from pydock.base import errors
from pydock.cli import console, execs, signals, text
from pydock.cli import run as running
from pydock.cli.relay import Relay, Target
from pydock.cli.session import Column, Session, pass_session
from pydock.client import anys, containers, fifos, snapshots
from pydock.client import tasks as api


@click.group()
def tasks() -> None:
    """Manage tasks."""


tasks.add_command(execs.exec_command)


@tasks.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print only the container ids.")
@pass_session
def list_tasks(session: Session, quiet: bool) -> None:
    """List tasks."""
    found = api.listing(session.conn)
    if quiet:
        session.lines(each.container_id or each.id for each in found)
        return
    records = [{"task": each.container_id or each.id, "pid": each.pid, "status": api.STATES.get(each.status, "UNKNOWN")} for each in found]
    session.listing([Column("TASK", "task"), Column("PID", "pid"), Column("STATUS", "status")], records, 4)


@tasks.command()
@running.task_options
@click.argument("identifier", metavar="CONTAINER")
@pass_session
def start(session: Session, /, identifier: str, **flags: Any) -> int:
    """Start a container that was made before; the exit code is its process's."""
    container = containers.get(session.conn, identifier)
    mounts = snapshots.mounts(session.conn, container.snapshotter, container.snapshot_key) if container.snapshot_key else ()
    with signals.orderly():
        return running.start(session.conn, container, mounts, flags)


@tasks.command()
@click.argument("identifier", metavar="CONTAINER")
@pass_session
def attach(session: Session, identifier: str) -> int:
    """Connect to the streams of a running container; the exit code is its process's."""
    process = api.get(session.conn, identifier)
    stdio = api.stdio(process)
    if not stdio.stdout.startswith("/"):
        raise errors.FailedPrecondition(f"the output of {identifier} does not go to FIFOs")
    ended = api.wait(session.conn, identifier)
    with fifos.reopened(stdio) as ours, console.raw() if stdio.terminal else contextlib.nullcontext():
        code = Relay(Target(session.conn, identifier), ours).run(ended)
    fifos.discard(stdio)
    return code


@tasks.command()
@click.option("-s", "--signal", "wanted", default="", help="Signal (default: the image's stop signal, else SIGTERM).")
@click.option("--exec-id", default="", help="Send it to this process.")
@click.option("-a", "--all", "everyone", is_flag=True, help="Send it to all processes in the container.")
@click.argument("identifier", metavar="CONTAINER")
@pass_session
def kill(session: Session, wanted: str, exec_id: str, everyone: bool, identifier: str) -> None:
    """Send a signal."""
    if everyone and exec_id:
        raise click.UsageError("use either --all or --exec-id")
    if not wanted:
        wanted = containers.get(session.conn, identifier).labels.get(containers.STOP_SIGNAL_LABEL, "") or "SIGTERM"
    api.kill(session.conn, identifier, signals.parse(wanted), exec_id, everyone=everyone)


@tasks.command()
@click.argument("identifier", metavar="CONTAINER")
@pass_session
def pause(session: Session, identifier: str) -> None:
    """Freeze a container."""
    api.pause(session.conn, identifier)


@tasks.command()
@click.argument("identifier", metavar="CONTAINER")
@pass_session
def resume(session: Session, identifier: str) -> None:
    """Let a frozen container go on."""
    api.resume(session.conn, identifier)


@tasks.command()
@click.argument("identifier", metavar="CONTAINER")
@pass_session
def ps(session: Session, identifier: str) -> None:
    """List the processes of a container."""
    records = [{"pid": each.pid, "info": anys.plain(each.info)} for each in api.pids(session.conn, identifier)]
    session.listing([Column("PID", "pid"), Column("INFO", "info", lambda value: str(value) if value else "-")], records, 4)


@tasks.command("rm")
@click.option("-f", "--force", is_flag=True, help="Kill it first.")
@click.option("--exec-id", default="", help="Remove only this process.")
@click.argument("identifiers", metavar="CONTAINER...", nargs=-1, required=True)
@pass_session
def remove(session: Session, force: bool, exec_id: str, identifiers: tuple[str, ...]) -> int:
    """Remove ended tasks; with one, the exit code is its exit status."""
    statuses: list[int] = []

    def one(identifier: str) -> None:
        process = api.get(session.conn, identifier, exec_id)
        answer = running.force_delete(session.conn, identifier, exec_id) if force else api.delete(session.conn, identifier, exec_id)
        fifos.discard(api.stdio(process))
        statuses.append(answer.exit_status)

    session.each(identifiers, one, quiet=True)
    return statuses[0] if len(identifiers) == 1 and not force else 0


@tasks.command()
@click.option("--exec-id", default="", help="Wait for this process.")
@click.argument("identifier", metavar="CONTAINER")
@pass_session
def wait(session: Session, exec_id: str, identifier: str) -> None:
    """Wait for a process's end and print its exit status."""
    answer = api.wait(session.conn, identifier, exec_id).result()
    if session.as_json:
        session.document({"exit_status": answer.exit_status, "exited_at": text.moment(answer.exited_at.ToNanoseconds())})
    else:
        session.lines([str(answer.exit_status)])


@tasks.command()
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.argument("identifier", metavar="CONTAINER")
@pass_session
def metrics(session: Session, shape: str, identifier: str) -> None:
    """Show one reading of a container's resource figures."""
    found = api.metrics(session.conn, [f'id=="{identifier}"'])
    if not found:
        raise errors.NotFound(f"metrics of {identifier}")
    values = anys.plain(found[0].data)
    if shape == "json" or session.as_json:
        session.document(values)
        return
    when = text.moment(found[0].timestamp.ToNanoseconds())
    session.listing([Column("ID", "id"), Column("TIMESTAMP", "when")], [{"id": found[0].id, "when": when}], 4)
    click.echo()
    session.listing([Column("METRIC", "metric"), Column("VALUE", "value")], list(_flat("", values)), 4)


def _flat(prefix: str, value: Any) -> Any:
    """Yield {metric, value} of every number in nested figures."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, inner)
    elif isinstance(value, list) and not all(isinstance(each, dict) for each in value):
        yield {"metric": prefix, "value": " ".join(map(str, value))}
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(f"{prefix}.{number}", inner)
    else:
        yield {"metric": prefix, "value": value}
