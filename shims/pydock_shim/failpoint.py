"""Failpoints of the shim and the launcher; ``pydock.base.failpoint`` says what they are and which there are.

The plan comes with the daemon's environment.  Without one nothing is parsed and a point is a call of an empty function.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from pydock_shim.std import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    Plan = dict[str, list[str]]

PAUSE_STEP = 0.005  # seconds
_given = os.environ.get("PYDOCK_FAILPOINTS", "")


def parse(text: str) -> Plan:
    """The terms of each name."""
    plan = {}
    for entry in text.split(";"):
        name, separator, terms = entry.strip().partition("=")
        if separator:
            plan[name] = terms.split("->")
    return plan


def take(plan: Plan, name: str) -> str:
    """What happens at ``name`` now; it is counted."""
    terms = plan.get(name)
    while terms:
        count, counted, action = terms[0].partition("*")
        if not counted:
            return terms[0]
        if int(count) > 1:
            terms[0] = f"{int(count) - 1}*{action}"
        else:
            terms.pop(0)
        if int(count) > 0:
            return action
    return "off"


def render(plan: Plan) -> str:
    """The text of a plan."""
    return ";".join(f"{name}={'->'.join(terms)}" for name, terms in plan.items() if terms)


def failpoint(name: str) -> None:
    """Do what the plan says about ``name``.  ``OSError``."""
    if _given:
        _act(_take_shared(_given[1:], name) if _given.startswith("@") else take(_own, name), name)


def _take_shared(path: str, name: str) -> str:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return "off"
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        plan = parse(os.pread(fd, 1 << 16, 0).decode())
        action = take(plan, name)
        if action != "off":
            hits = os.open(path + ".hits", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(hits, (name + "\n").encode())
            os.close(hits)
        os.ftruncate(fd, 0)
        os.pwrite(fd, render(plan).encode(), 0)
    finally:
        os.close(fd)
    return action


def _act(action: str, name: str) -> None:
    kind, _, rest = action.partition("(")
    text = rest.removesuffix(")")
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "delay":
        time.sleep(float(text) / 1000)
    elif kind == "pause":
        while not os.path.exists(text):
            time.sleep(PAUSE_STEP)
    elif kind == "error":
        number = getattr(errno, text, errno.EIO)
        raise OSError(number, text, f"failpoint {name}")


_own = parse("" if _given.startswith("@") else _given)
