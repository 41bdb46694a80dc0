"""``pctr namespaces``."""

from __future__ import annotations

import click

from pydock.cli import text
from pydock.cli.session import Column, Session, pass_session
from pydock.client import namespaces as api


@click.group()
def namespaces() -> None:
    """Manage namespaces."""


@namespaces.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print only the names.")
@pass_session
def list_namespaces(session: Session, quiet: bool) -> None:
    """List namespaces."""
    found = api.listing(session.conn)
    if quiet:
        session.lines(each.name for each in found)
        return
    records = [{"name": each.name, "labels": dict(each.labels)} for each in found]
    session.listing([Column("NAME", "name"), Column("LABELS", "labels", lambda value: text.labels(value) if value else "")], records, 4)


@namespaces.command()
@click.argument("name")
@click.argument("labels", nargs=-1)
@pass_session
def create(session: Session, name: str, labels: tuple[str, ...]) -> None:
    """Make a namespace, with labels ("key=value")."""
    api.create(session.conn, name, text.pairs(labels))


@namespaces.command("rm")
@click.argument("names", nargs=-1, required=True)
@pass_session
def remove(session: Session, names: tuple[str, ...]) -> None:
    """Remove empty namespaces."""
    session.each(names, lambda name: api.delete(session.conn, name))


@namespaces.command()
@click.argument("name")
@click.argument("labels", nargs=-1, required=True)
@pass_session
def label(session: Session, name: str, labels: tuple[str, ...]) -> None:
    """Set labels of a namespace ("key=value"; "key=" clears one)."""
    api.label(session.conn, name, text.pairs(labels))
