"""``pctr events``."""

from __future__ import annotations

import json

import click

from pydock.cli import text
from pydock.cli.session import Session, pass_session
from pydock.client import anys
from pydock.client import events as api


@click.command()
@click.option("--count", type=int, default=0, help="End after so many (0: never).")
@click.argument("filters", nargs=-1)
@pass_session
def events(session: Session, count: int, filters: tuple[str, ...]) -> None:
    """Print events as they happen: time, namespace, topic and content, of all namespaces."""
    for number, envelope in enumerate(api.subscribe(session.conn, filters), 1):
        when, content = text.moment(envelope.timestamp.ToNanoseconds()), anys.plain(envelope.event)
        if session.as_json:
            click.echo(json.dumps({"timestamp": when, "namespace": envelope.namespace, "topic": envelope.topic, "event": content}))
        else:
            click.echo(text.safe(f"{when} {envelope.namespace} {envelope.topic} {json.dumps(content)}"))
        if number == count:
            return
