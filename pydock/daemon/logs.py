"""Structured log lines on standard error: ``logfmt`` or JSON, one line a record, with the request they belong to.

Vocabulary: a *record* is time, level and message, then ``extra=`` fields, then namespace and request id of the running request.
Invariant: logging never blocks the event loop. A pipe that nobody empties is polled first (it then takes up to PIPE_BUF bytes at
once, pipe(7)); what does not go out is counted, and the count is logged when lines flow again.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
from typing import Any

from pydock.base import request

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
NAMES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error", logging.CRITICAL: "fatal"}
OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
PIPE_BUF = select.PIPE_BUF
CHATTY = ("asyncio", "grpc", "aiohttp")
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:/@+*%")


def stamp(seconds: float) -> str:
    """Return an instant as RFC 3339 in UTC with microseconds."""
    whole = int(seconds)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((seconds - whole) * 1e6):06d}Z"


def pairs(record: logging.LogRecord) -> dict[str, Any]:
    """Return a record's fields in the order they are printed."""
    out: dict[str, Any] = {
        "time": stamp(record.created),
        "level": NAMES.get(record.levelno, "info"),
        "msg": record.getMessage(),
    }
    for name, value in vars(record).items():
        if name not in OWN_FIELDS:
            out[name] = value
    if record.levelno != logging.INFO:
        out["logger"] = record.name
    for name, value in (("namespace", request.namespace.get()), ("request", request.request_id.get())):
        if value:
            out[name] = value
    if record.exc_info and record.exc_info[0]:
        out["trace"] = logging.Formatter().formatException(record.exc_info)
    return out


class Logfmt(logging.Formatter):
    """``key=value`` pairs; a value with other than plain characters is quoted as JSON quotes it, so one record is one line."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{name}={_quoted(value)}" for name, value in pairs(record).items())


class Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(pairs(record), default=str, ensure_ascii=False)


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=False)


class Handler(logging.Handler):
    """Writes to a file descriptor without ever waiting for its reader."""

    def __init__(self, fd: int = 2) -> None:
        super().__init__()
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self.dropped and self._write(f"time={stamp(record.created)} level=warn msg=\"log lines dropped\" lines={self.dropped}\n"):
            self.dropped = 0
        if not self._write(f"{self.format(record)}\n"):
            self.dropped += 1

    def _write(self, line: str) -> bool:
        data = line.encode(errors="backslashreplace")
        for start in range(0, len(data), PIPE_BUF):
            try:
                if not self._poll.poll(0):
                    return False
                os.write(self._fd, data[start : start + PIPE_BUF])
            except OSError:  # the reader is gone, or the disk behind it is full
                return False
        return True


def setup(level: str, style: str) -> None:
    """Send the logging of the whole process through one handler."""
    handler = Handler()
    handler.setFormatter(Json() if style == "json" else Logfmt())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    logging.captureWarnings(True)


def set_level(level: str) -> None:
    """Change what is logged from now on."""
    logging.getLogger().setLevel(LEVELS[level])
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
