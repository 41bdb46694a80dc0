"""Forms: records to text and back, and nothing else."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pydock.base import forms


class Colour(enum.IntEnum):
    RED = 1


@dataclass(frozen=True)
class Inner:
    name: str
    data: bytes = b""


@dataclass(frozen=True)
class Outer:
    id: str
    size: int = 0
    ratio: float = 1.0
    on: bool = False
    colour: Colour = Colour.RED
    inner: Inner | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[Inner] = ()
    numbers: tuple[int, ...] = ()


FORM: forms.Form[Outer] = forms.of(Outer)


def test_a_record_comes_back_as_it_was() -> None:
    outer = Outer("x", 2**60, 0.5, True, Colour.RED, Inner("a", b"\0\xff"), {"k": "é\ud800"}, (Inner("b"),), (1, 2))
    assert FORM.from_text(FORM.to_text(outer)) == outer


def test_defaults_take_no_room() -> None:
    assert FORM.to_text(Outer("x")) == '{"id":"x"}'
    assert FORM.from_text('{"id":"x"}') == Outer("x")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "1", '{"id":1}', '{"id":"x"', '{"id":"x","new":1}', '{"id":"x","size":"1"}', '{"id":"x","size":true}'),
        *('{"id":"x","labels":[]}', '{"id":"x","labels":{"a":1}}', '{"id":"x","parts":{}}', '{"id":"x","colour":7}'),
        *('{"id":"x","inner":{"data":"?"}}', '{"id":"x","inner":{"name":"a","data":"?"}}', '{"id":"x","inner":{"name":"a","data":1}}'),
    ],
)
def test_what_was_not_written_by_us_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        FORM.from_text(text)


def test_a_type_without_a_form_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no stored form"):
        forms.of(complex)
    with pytest.raises(TypeError, match="no stored form"):
        forms.of(int | str)
