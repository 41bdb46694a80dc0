"""The life of a process as tables: what each verb does in each state, and how it is refused.

States are containerd's.  ``created`` -> ``running`` <-> ``paused``; any of them -> ``stopped`` by exiting -> ``deleted``.  Execs know no
pause of their own: a paused container pauses them.
"""

from __future__ import annotations

from pydock_shim import loop, wire

NUMBERS = {"created": 1, "running": 2, "stopped": 3, "paused": 4, "pausing": 5}  # containerd.v1.types.Status

# verb -> the states it is allowed in
ALLOWED: dict[str, tuple[str, ...]] = {
    "start": ("created",),
    "pause": ("running",),
    "resume": ("paused",),
    "update": ("created", "running", "paused"),
    "checkpoint": ("running", "paused"),
    "exec": ("created", "running"),
    "delete": ("created", "stopped"),
    "resize": ("created", "running", "paused"),
}

# What the verb is said to act on when it is refused, in containerd's words.
OBJECT = {"pause": "container", "resume": "container", "update": "container", "checkpoint": "task", "resize": "container"}


def check(verb: str, state: str) -> None:
    """``RpcError`` FailedPrecondition unless ``verb`` is allowed in ``state``."""
    if state in ALLOWED[verb]:
        return
    if verb == "exec":
        text = f"cannot exec in a {state} state"
    elif state == "created" and verb in ("pause", "resume", "checkpoint"):
        text = f"cannot {verb} task in created state"
    else:
        thing = "process" if state == "running" else OBJECT.get(verb, "process")
        text = f"cannot {verb} a {state} {thing}"
    raise loop.RpcError(wire.FAILED_PRECONDITION, f"{text}: failed precondition")


def not_found(text: str) -> loop.RpcError:
    """The error of containerd's form for what is not there."""
    return loop.RpcError(wire.NOT_FOUND, f"{text}: not found")


def invalid(text: str) -> loop.RpcError:
    """The error of containerd's form for an argument out of its grammar."""
    return loop.RpcError(wire.INVALID_ARGUMENT, f"{text}: invalid argument")
