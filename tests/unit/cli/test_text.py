"""How values look."""

from __future__ import annotations

import pytest

from pydock.base import clock, errors
from pydock.cli import text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert text.table(["A", "LONG"], [["wide cell", "x"], ["", "y"]], 2) == "A          LONG\nwide cell  x\n           y\n"


def test_no_control_character_reaches_the_terminal() -> None:
    assert text.safe("plain ü") == "plain ü"
    assert text.safe("a\x1b[31mb\r\n\x9b\u202e") == "a\\x1b[31mb\\r\\n\\x9b\\u202e"


@pytest.mark.parametrize(("value", "shown"), [(0, "0.0 B"), (1023, "1023.0 B"), (1 << 20, "1.0 MiB"), (3 << 60, "3072.0 PiB")])
def test_sizes_have_binary_units(value: int, shown: str) -> None:
    assert text.size(value) == shown


def test_labels_are_sorted() -> None:
    assert text.labels({"b": "2", "a": "1"}) == "a=1,b=2"
    assert text.labels({}) == "-"


@pytest.mark.parametrize(("seconds", "shown"), [(0, "less than a second"), (1, "1 second"), (7200, "2 hours"), (86400 * 8, "1 week")])
def test_an_age_is_told_in_its_largest_unit(seconds: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: 10**18)
    assert text.age(10**18 - seconds * clock.SECOND) == shown


@pytest.mark.parametrize(("value", "seconds"), [("24h", 86400.0), ("1m30s", 90.0), ("5", 5.0), ("0", 0.0), ("1.5h", 5400.0)])
def test_durations_are_read_as_go_writes_them(value: str, seconds: float) -> None:
    assert text.duration(value) == seconds


@pytest.mark.parametrize("value", ["", "h", "1x", "-1h", "1h x", "nan"])
def test_what_is_no_duration_is_an_error(value: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        text.duration(value)


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    assert text.pairs(["a=b=c", "d=", "e"]) == {"a": "b=c", "d": "", "e": ""}
    with pytest.raises(errors.InvalidArgument):
        text.pairs(["=x"])
