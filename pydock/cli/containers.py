"""``pctr containers``."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from pydock.base import errors
from pydock.cli import making, text
from pydock.cli.session import Column, Session, pass_session
from pydock.client import anys, fifos, snapshots, tasks
from pydock.client import containers as api


@click.group()
def containers() -> None:
    """Manage containers."""


@containers.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print only the ids.")
@click.argument("filters", nargs=-1)
@pass_session
def list_containers(session: Session, quiet: bool, filters: tuple[str, ...]) -> None:
    """List containers."""
    found = api.listing(session.conn, filters)
    if quiet:
        session.lines(each.id for each in found)
        return
    records = [{"id": each.id, "image": each.image or "-", "runtime": each.runtime.name, "labels": dict(each.labels)} for each in found]
    session.listing([Column("CONTAINER", "id"), Column("IMAGE", "image"), Column("RUNTIME", "runtime")], records, 4)


@containers.command(context_settings={"allow_interspersed_args": False})
@making.container_options
@click.argument("words", nargs=-1, metavar="IMAGE|ROOTFS ID [COMMAND] [ARG]...")
@pass_session
def create(session: Session, /, words: tuple[str, ...], **flags: Any) -> None:
    """Make a container and do not start it."""
    making.make(session.conn, flags, words)


@containers.command()
@click.option("--spec", "only_spec", is_flag=True, help="Show only the runtime spec.")
@click.argument("identifier", metavar="ID")
@pass_session
def info(session: Session, identifier: str, only_spec: bool) -> None:
    """Show a container with its runtime spec, as JSON."""
    found = api.get(session.conn, identifier)
    if only_spec:
        session.document(api.spec(found))
        return
    session.document({
        "ID": found.id, "Labels": dict(found.labels), "Image": found.image,
        "Runtime": {"Name": found.runtime.name, "Options": anys.plain(found.runtime.options)},
        "SnapshotKey": found.snapshot_key, "Snapshotter": found.snapshotter,
        "CreatedAt": text.moment(found.created_at.ToNanoseconds()), "UpdatedAt": text.moment(found.updated_at.ToNanoseconds()),
        "Extensions": {key: anys.plain(value) for key, value in found.extensions.items()}, "SandboxID": found.sandbox,
        "Spec": api.spec(found),
    })  # fmt: skip


@containers.command("rm")
@click.option("--keep-snapshot", is_flag=True, help="Leave the snapshot.")
@click.argument("ids", nargs=-1, required=True)
@pass_session
def remove(session: Session, keep_snapshot: bool, ids: tuple[str, ...]) -> None:
    """Remove containers whose task has ended, each with its snapshot."""

    def one(identifier: str) -> None:
        container = api.get(session.conn, identifier)
        _forget_ended_task(session, identifier)
        api.delete(session.conn, identifier)
        if container.snapshot_key and not keep_snapshot:
            with contextlib.suppress(errors.NotFound):
                snapshots.remove(session.conn, container.snapshotter, container.snapshot_key)

    session.each(ids, one, quiet=True)


def _forget_ended_task(session: Session, identifier: str) -> None:
    try:
        process = tasks.get(session.conn, identifier)
    except errors.NotFound:
        return
    if process.status not in (tasks.STOPPED, tasks.CREATED):
        raise errors.FailedPrecondition(f"cannot delete a non stopped container: {identifier} is {tasks.STATES[process.status].lower()}")
    with contextlib.suppress(errors.NotFound):
        tasks.delete(session.conn, identifier)
    fifos.discard(tasks.stdio(process))


@containers.command()
@click.argument("identifier", metavar="ID")
@click.argument("labels", nargs=-1)
@pass_session
def label(session: Session, identifier: str, labels: tuple[str, ...]) -> None:
    """Set labels of a container ("key=value"; "key=" clears one) and print all."""
    found = api.label(session.conn, identifier, text.pairs(labels)) if labels else api.get(session.conn, identifier)
    session.lines([text.labels(found.labels)])
