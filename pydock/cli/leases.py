"""``pctr leases``."""

from __future__ import annotations

import click

from pydock.cli import text
from pydock.cli.session import Column, Session, pass_session
from pydock.client import leases as api


@click.group()
def leases() -> None:
    """Manage leases."""


@leases.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print only the ids.")
@click.argument("filters", nargs=-1)
@pass_session
def list_leases(session: Session, quiet: bool, filters: tuple[str, ...]) -> None:
    """List leases."""
    found = api.listing(session.conn, filters)
    if quiet:
        session.lines(each.id for each in found)
        return
    records = [{"id": each.id, "created": each.created_at.ToNanoseconds(), "labels": dict(each.labels)} for each in found]
    columns = [Column("ID", "id"), Column("CREATED AT", "created", text.moment), Column("LABELS", "labels", text.labels)]
    session.listing(columns, records)


@leases.command()
@click.option("--id", "identifier", default="", help="Its id (default: chosen).")
@click.option("-x", "--expires", default="24h", show_default=True, help="When it ends by itself (0: never).")
@click.argument("labels", nargs=-1)
@pass_session
def create(session: Session, identifier: str, expires: str, labels: tuple[str, ...]) -> None:
    """Make a lease, with labels ("key=value"), and print its id."""
    lease = api.create(session.conn, identifier, text.pairs(labels), expires=text.duration(expires))
    session.lines([lease.id])


@leases.command("rm")
@click.option("--sync", is_flag=True, help="Wait until what they alone held is gone.")
@click.argument("ids", nargs=-1, required=True)
@pass_session
def remove(session: Session, sync: bool, ids: tuple[str, ...]) -> None:
    """End leases."""
    session.each(ids, lambda identifier: api.delete(session.conn, identifier, sync=sync))


@leases.command()
@click.argument("identifier", metavar="ID")
@pass_session
def resources(session: Session, identifier: str) -> None:
    """List what a lease holds."""
    records = [{"type": each.type, "id": each.id} for each in api.resources(session.conn, identifier)]
    session.listing([Column("TYPE", "type"), Column("ID", "id")], records)
