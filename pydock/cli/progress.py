"""What a transfer does, as bars on a terminal and as lines elsewhere.

Vocabulary: a *whole* report has no name and says what the transfer as such does; the others are about one object, with bytes
done and total.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import click

from pydock.cli import text

if TYPE_CHECKING:
    from pydock.client.transfer import Progress

_SHORT_DIGEST = 12
_THERE = frozenset({"exists", "already exists"})
_DONE = frozenset({"complete", "done", "extracted", *_THERE})


class Watcher(Protocol):
    """Takes reports, on a thread of the transfer."""

    def __call__(self, report: Progress, /) -> None:
        """Take one report."""


class Lines:
    """One line for each change of an object's state, and the bytes of all objects for the end."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._bytes: dict[str, int] = {}

    def __call__(self, report: Progress) -> None:
        """Print what is new."""
        if report.total > 0 and report.event not in _THERE:
            self._bytes[report.name] = max(report.progress, self._bytes.get(report.name, 0))
        if self._states.get(report.name) != report.event:
            self._states[report.name] = report.event
            self.told(report)

    def told(self, report: Progress) -> None:
        """Print one line."""
        line = f"{_short(report.name)}: {report.event}" if report.name else report.event
        size = f" ({text.size(report.total)})" if report.name and report.total > 0 else ""
        click.echo(text.safe(line) + size, err=True)

    @property
    def total(self) -> int:
        """The bytes of all objects so far."""
        return sum(self._bytes.values())


class Silent(Lines):
    """Counts and prints nothing."""

    def told(self, report: Progress) -> None:
        """Print nothing."""


class Bars(Lines):
    """One bar an object."""

    def __init__(self, bars: Any) -> None:
        super().__init__()
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def __call__(self, report: Progress) -> None:
        """Move the bar of the report's object."""
        super().__call__(report)
        if not report.name:
            self._bars.console.print(text.safe(report.event), markup=False, highlight=False)
            return
        if report.name not in self._tasks:
            depth = "  " * bool(report.parents)
            self._tasks[report.name] = self._bars.add_task(depth + text.safe(_short(report.name)), total=None, state="")
        total = report.total if report.total > 0 else None
        done = total if report.event in _DONE else report.progress
        self._bars.update(self._tasks[report.name], completed=done or 0, total=total or done, state=text.safe(report.event))

    def told(self, report: Progress) -> None:
        """Print nothing: the bar says it."""


def _short(name: str) -> str:
    """Return "layer (0123456789ab)" for "layer-sha256:0123..."; other names as they are."""
    kind, dash, digest = name.partition("-")
    algorithm, colon, encoded = digest.partition(":")
    if not (dash and colon and algorithm.isalnum()):
        return name
    return f"{kind} ({encoded[:_SHORT_DIGEST]})"


@contextlib.contextmanager
def shown(title: str, *, quiet: bool = False) -> Iterator[Watcher]:
    """Give a watcher for the block and sum up at its end, unless ``quiet`` or there was an error."""
    began = time.monotonic()
    if quiet:
        yield Silent()
        return
    if not sys.stderr.isatty():
        lines = Lines()
        yield lines
        _sum_up(title, lines, began)
        return
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    columns = (
        progress.TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        progress.TextColumn("{task.fields[state]}", table_column=Column(no_wrap=True)),
        progress.BarColumn(bar_width=16),
        progress.DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as display:
        bars = Bars(display)
        yield bars
    _sum_up(title, bars, began)


def _sum_up(title: str, lines: Lines, began: float) -> None:
    elapsed = max(time.monotonic() - began, 0.001)
    rate = f", {text.size(lines.total)}, {text.size(int(lines.total / elapsed))}/s" if lines.total else ""
    click.echo(f"{title}: done in {elapsed:.1f} s{rate}", err=True)
