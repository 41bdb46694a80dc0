"""The table of statuses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pydock.base import errors
from pydock.services import errors as statuses


def _subclasses(kind: type[errors.PydockError]) -> Iterator[type[errors.PydockError]]:
    yield kind
    for item in kind.__subclasses__():
        yield from _subclasses(item)


def test_every_code_has_a_row_and_its_number_is_the_status_number() -> None:
    assert {code: row.grpc.value[0] for code, row in statuses.STATUSES.items()} == {code: code.value for code in errors.Code}


def test_every_error_class_has_a_code_of_the_table_and_an_http_status_that_says_failure() -> None:
    for kind in _subclasses(errors.PydockError):
        assert 400 <= statuses.STATUSES[kind.code].http <= 599, kind


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.NotFound("x"), "x: not found"),
        (TimeoutError(), "context deadline exceeded"),
        (asyncio.CancelledError(), "context canceled"),
        (ExceptionGroup("g", [ValueError("v"), ExceptionGroup("h", [errors.Aborted("a")])]), "a: aborted"),
    ],
)
def test_classified_failures_are_told_in_their_own_words(error: BaseException, told: str) -> None:
    assert str(statuses.classified(error, "1")) == told


def test_a_fault_tells_its_kind_and_the_request_but_not_its_words() -> None:
    assert statuses.classified(KeyError("secret"), "7f-1") is None
    assert str(statuses.fault(KeyError("secret"), "7f-1")) == "KeyError (request 7f-1): internal"


def test_a_fault_of_the_system_tells_its_words() -> None:
    assert "No space left" in str(statuses.fault(OSError(28, "No space left on device"), "1"))
