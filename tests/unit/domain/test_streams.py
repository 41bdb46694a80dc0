"""The registry of open streams."""

from __future__ import annotations

from typing import cast

import pytest

from pydock.base import errors
from pydock.core import streams as core
from pydock.domain import streams

ONE, OTHER = cast("core.Stream", object()), cast("core.Stream", object())


def test_a_stream_is_found_in_its_namespace_alone() -> None:
    found = streams.Streams()
    found.register("a", "s", ONE)
    found.register("b", "s", OTHER)
    assert found.get("a", "s") is ONE and found.get("b", "s") is OTHER


def test_an_id_is_given_once_until_it_is_removed() -> None:
    found = streams.Streams()
    found.register("a", "s", ONE)
    with pytest.raises(errors.AlreadyExists, match="stream s"):
        found.register("a", "s", OTHER)
    found.remove("a", "s")
    found.remove("a", "s")
    with pytest.raises(errors.NotFound, match="stream s"):
        found.get("a", "s")
    found.register("a", "s", OTHER)


@pytest.mark.parametrize("id", ["", "x" * 2000, "a\nb"])
def test_an_id_that_is_none_is_refused(id: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        streams.Streams().register("a", id, ONE)
