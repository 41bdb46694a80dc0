"""``pctr version``, ``info`` and ``plugins``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pydock.base.version import VERSION
from pydock.cli import text
from pydock.cli.session import Column, Session, pass_session

if TYPE_CHECKING:
    from pydock.client import system


@click.command()
@pass_session
def version(session: Session) -> None:
    """Print the client and server versions."""
    from pydock.client import system

    found, server = system.version(session.conn), system.server(session.conn)
    if session.as_json:
        session.document({
            "client": {"version": VERSION},
            "server": {"version": found.version, "revision": found.revision, "uuid": server.uuid},
        })  # fmt: skip
        return
    click.echo(f"Client:\n  Version:  {VERSION}\n")
    click.echo(f"Server:\n  Version:  {text.safe(found.version)}\n  Revision: {text.safe(found.revision)}")
    click.echo(f"  UUID: {text.safe(server.uuid)}")


@click.command()
@pass_session
def info(session: Session) -> None:
    """Print what the server says about itself, as JSON."""
    from pydock.client import system

    server = system.server(session.conn)
    deprecations = [{"id": each.id, "message": each.message} for each in server.deprecations]
    session.document({"uuid": server.uuid, "pid": server.pid, "pidns": server.pidns, "deprecations": deprecations})


@click.group()
def plugins() -> None:
    """Show the plugins of the daemon."""


@plugins.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print only the ids.")
@click.option("-d", "--detailed", is_flag=True, help="Print everything, as JSON.")
@click.argument("filters", nargs=-1)
@pass_session
def plugins_ls(session: Session, quiet: bool, detailed: bool, filters: tuple[str, ...]) -> None:
    """List plugins with their state."""
    from pydock.client import system

    records = [_record(each) for each in system.plugins(session.conn, filters)]
    if quiet:
        session.lines(record["id"] for record in records)
    elif detailed:
        session.document(records)
    else:
        columns = [Column("TYPE", "type"), Column("ID", "id"), Column("PLATFORMS", "platforms", _listed), Column("STATUS", "status")]
        session.listing(columns, records, 4)


def _record(each: system.Plugin) -> dict[str, Any]:
    problem = each.init_err.message if each.HasField("init_err") else ""
    return {
        "type": each.type,
        "id": each.id,
        "platforms": ["/".join(part for part in (one.os, one.architecture, one.variant) if part) for one in each.platforms],
        "requires": list(each.requires),
        "capabilities": list(each.capabilities),
        "exports": dict(each.exports),
        "status": "ok" if not problem else "skip" if "skip plugin" in problem else "error",
        "error": problem,
    }


def _listed(values: list[str]) -> str:
    return ",".join(values) or "-"
