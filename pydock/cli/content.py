"""``pctr content``: blobs."""

from __future__ import annotations

import sys
from typing import Any

import click

from pydock.base import errors
from pydock.cli import text, transfers
from pydock.cli.session import Column, Session, pass_session
from pydock.client import content as api


@click.group()
def content() -> None:
    """Manage content."""


content.add_command(transfers.fetch)


@content.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print only the digests.")
@click.argument("filters", nargs=-1)
@pass_session
def list_content(session: Session, quiet: bool, filters: tuple[str, ...]) -> None:
    """List blobs."""
    found = list(api.listing(session.conn, filters))
    if quiet:
        session.lines(each.digest for each in found)
        return
    records = [_record(each) for each in found]
    columns = [
        Column("DIGEST", "digest"), Column("SIZE", "size", text.size), Column("AGE", "created", text.age),
        Column("LABELS", "labels", text.labels),
    ]  # fmt: skip
    session.listing(columns, records)


def _record(each: api.Info) -> dict[str, Any]:
    return {"digest": each.digest, "size": each.size, "created": each.created_at.ToNanoseconds(), "labels": dict(each.labels)}


@content.command()
@click.argument("digest")
@pass_session
def get(session: Session, digest: str) -> None:
    """Write a blob to standard output."""
    for chunk in api.chunks(session.conn, digest):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


@content.command()
@click.argument("digest")
@pass_session
def info(session: Session, digest: str) -> None:
    """Show size, times and labels of a blob, as JSON."""
    found = api.info(session.conn, digest)
    session.document(_record(found) | {"created": text.moment(found.created_at.ToNanoseconds())})


@content.command()
@click.option("--expected-size", type=int, default=0, help="Refuse any other size.")
@click.option("--expected-digest", default="", help="Refuse any other content.")
@click.argument("ref")
@pass_session
def ingest(session: Session, ref: str, expected_size: int, expected_digest: str) -> None:
    """Store standard input as a blob, written under the name REF, and print its digest."""
    session.lines([api.ingest(session.conn, ref, sys.stdin.buffer, size=expected_size, digest=expected_digest)])


@content.command()
@click.argument("pattern", default="")
@pass_session
def active(session: Session, pattern: str) -> None:
    """List writes under way, of the refs that match a regular expression."""
    filters = [f'ref~="{pattern}"'] if pattern else []
    records = [
        {"ref": each.ref, "size": each.offset, "total": each.total, "started": each.started_at.ToNanoseconds(), "expected": each.expected}
        for each in api.statuses(session.conn, filters)
    ]
    columns = [
        Column("REF", "ref"), Column("SIZE", "size", text.size), Column("TOTAL", "total", text.size), Column("AGE", "started", text.age),
    ]  # fmt: skip
    session.listing(columns, records)


@content.command()
@click.argument("refs", nargs=-1, required=True)
@pass_session
def abort(session: Session, refs: tuple[str, ...]) -> None:
    """Drop writes under way."""
    session.each(refs, lambda ref: api.abort(session.conn, ref))


@content.command("rm")
@click.argument("digests", nargs=-1, required=True)
@pass_session
def remove(session: Session, digests: tuple[str, ...]) -> None:
    """Remove blobs, whatever refers to them."""
    session.each(digests, lambda digest: api.delete(session.conn, digest))


@content.command()
@click.argument("digest")
@click.argument("labels", nargs=-1)
@pass_session
def label(session: Session, digest: str, labels: tuple[str, ...]) -> None:
    """Set labels of a blob ("key=value"; "key=" clears one) and print all."""
    found = api.label(session.conn, digest, text.pairs(labels)) if labels else api.info(session.conn, digest)
    session.lines([text.labels(found.labels)])


@content.group()
def prune() -> None:
    """Remove labels that keep content nothing else needs."""


@prune.command()
@click.option("--dry", is_flag=True, help="Only say what would be done.")
@pass_session
def references(session: Session, dry: bool) -> None:
    """Drop the marks by which layers of unpacked images are kept; the collector then takes them."""
    for each in api.listing(session.conn):
        layers = {key: "" for key in each.labels if key.startswith("containerd.io/gc.ref.content.l.")}
        if not layers:
            continue
        click.echo(f"{each.digest}: {', '.join(sorted(layers))}")
        if not dry:
            try:
                api.label(session.conn, each.digest, layers)
            except errors.NotFound:
                continue
