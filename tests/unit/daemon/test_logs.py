"""Structured log lines that never block."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator

import pytest

from pydock.base import request
from pydock.daemon import logs


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        os.close(fd)


def record(message: str = "hello", level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelno": level, "name": "pydock.x", "created": 0.5, **extra})
    made.getMessage()
    return made


def test_a_line_holds_time_level_message_and_the_extra_fields() -> None:
    line = logs.Logfmt().format(record("two words", image="docker.io/a:1", count=3))
    assert line == 'time=1970-01-01T00:00:00.500000Z level=info msg="two words" image=docker.io/a:1 count=3'


def test_a_line_break_in_a_value_does_not_make_a_second_line() -> None:
    line = logs.Logfmt().format(record("a\nlevel=error msg=forged", name2='"\x1b[31m'))
    assert "\n" not in line
    assert "\x1b" not in line


def test_a_line_names_the_namespace_and_the_request_it_belongs_to() -> None:
    tokens = request.namespace.set("moby"), request.request_id.set("r-1")
    line = logs.Logfmt().format(record())
    request.namespace.reset(tokens[0])
    request.request_id.reset(tokens[1])
    assert line.endswith("namespace=moby request=r-1")
    assert "moby" not in logs.Logfmt().format(record())


def test_a_failure_carries_its_traceback_in_the_same_line() -> None:
    try:
        raise OSError("disk on fire")
    except OSError as error:
        made = record("failed", logging.ERROR, exc_info=(OSError, error, error.__traceback__))
    parsed = json.loads(logs.Json().format(made))
    assert (parsed["level"], parsed["logger"]) == ("error", "pydock.x")
    assert "disk on fire" in parsed["trace"]
    assert "\n" not in logs.Logfmt().format(made)


def test_lines_go_out_whole_whatever_their_length(pipe: tuple[int, int]) -> None:
    handler = logs.Handler(pipe[1])
    handler.setFormatter(logs.Logfmt())
    handler.handle(record("x" * 10_000))
    assert os.read(pipe[0], 20_000).endswith(b"x\n")


def test_a_full_pipe_never_blocks_and_what_was_dropped_is_counted(pipe: tuple[int, int]) -> None:
    handler = logs.Handler(pipe[1])
    handler.setFormatter(logs.Logfmt())
    while not handler.dropped:
        handler.handle(record("x" * 900))
    handler.handle(record("lost too"))
    assert handler.dropped == 2
    os.set_blocking(pipe[0], False)
    os.read(pipe[0], 1 << 20)
    handler.handle(record("flows again"))
    rest = os.read(pipe[0], 1 << 20).decode().splitlines()
    assert "lines=2" in rest[-2]
    assert "flows again" in rest[-1]


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = logs.Handler(writer)
    handler.setFormatter(logs.Logfmt())
    handler.handle(record())
    os.close(writer)
    assert handler.dropped == 1
