"""What is known of the request being served, for every log line below it: set once at the edge, read by the log formatter."""

from __future__ import annotations

import contextvars

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
namespace: contextvars.ContextVar[str] = contextvars.ContextVar("namespace", default="")
