"""What every command shares: where the daemon is, which namespace is meant, and how to print."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from pydock.base import errors
from pydock.cli import text

if TYPE_CHECKING:
    from pydock.client.connection import Connection


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its title, the record's key, and how the value is shown."""

    title: str
    key: str
    show: Callable[[Any], str] = str


@dataclass
class Session:
    """One invocation. The connection opens when it is first asked for and closes with the session; times are in s."""

    address: str
    namespace: str
    as_json: bool = False
    timeout: float = 0
    connect_timeout: float = 0
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    @functools.cached_property
    def conn(self) -> Connection:
        """The connection to the daemon. Raises Unavailable."""
        # grpc takes most of the start-up time; --help and wrong flags do without.
        from pydock.client import connection

        context = connection.connect(self.address, self.namespace, timeout=self.timeout, connect_timeout=self.connect_timeout)
        return self._open.enter_context(context)

    def close(self) -> None:
        """Close what is open."""
        self._open.close()

    def listing(self, columns: Sequence[Column], records: Iterable[Mapping[str, Any]], gap: int = 1) -> None:
        """Print records as a table, or as a JSON list of all their fields."""
        if self.as_json:
            self.document(list(records))
            return
        rows = [[text.safe(column.show(record[column.key])) for column in columns] for record in records]
        click.echo(text.table([column.title for column in columns], rows, gap), nl=False)

    def document(self, value: Any) -> None:
        """Print a value as JSON."""
        click.echo(json.dumps(value, indent=4, ensure_ascii=True, default=str))

    def lines(self, values: Iterable[str]) -> None:
        """Print one value a line, or a JSON list of them."""
        if self.as_json:
            self.document(list(values))
            return
        for value in values:
            click.echo(text.safe(value))

    def each(self, names: Iterable[str], act: Callable[[str], object], *, quiet: bool = False) -> None:
        """Do something to each name and print those done. Failures are told as they come; the first makes the command fail."""
        failed: list[errors.PydockError] = []
        for name in names:
            try:
                act(name)
            except errors.PydockError as error:
                failed.append(error)
                if len(failed) > 1:
                    click.echo(f"pctr: {error}", err=True)
            else:
                if not quiet:
                    click.echo(text.safe(name))
        if failed:
            raise failed[0]


pass_session = click.make_pass_decorator(Session)
