"""Failpoints: the grammar, the counts, the actions, and that the shim's twin does the same."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pydock.base import errors, failpoint
from pydock_shim import failpoint as twin

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ("pydock", "plugins/pydock_plugins", "shims/pydock_shim")
PLANS = [
    ("task.start=crash", ["crash", "crash"]),
    ("task.start=1*off->1*crash", ["off", "crash", "off", "off"]),
    ("task.start=2*error(ENOSPC)->delay(5)", ["error(ENOSPC)", "error(ENOSPC)", "delay(5)", "delay(5)"]),
    ("task.kill=crash;task.start=1*pause(/tmp/x)->off", ["pause(/tmp/x)", "off"]),
    ("task.start=0*crash->1*error(no luck)", ["error(no luck)", "off"]),
    ("", ["off"]),
]


@pytest.mark.parametrize(("text", "actions"), PLANS)
def test_terms_are_used_up_in_order(text: str, actions: Sequence[str]) -> None:
    plan, other = failpoint.parse(text), twin.parse(text)
    assert [failpoint.take(plan, "task.start") for _ in actions] == list(actions)
    assert [twin.take(other, "task.start") for _ in actions] == list(actions)
    assert failpoint.render(plan) == twin.render(other)


@pytest.mark.parametrize("text", ["nowhere=crash", "task.start", "task.start=explode", "task.start=x*crash", "task.start=error"])
def test_a_plan_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="failpoint"):
        failpoint.parse(text)


def test_an_error_is_an_errno_or_a_text() -> None:
    points = failpoint.Plan("task.start=1*error(ENOSPC)->1*error(no luck)")
    with pytest.raises(OSError, match="No space left") as caught:
        points.hit("task.start")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(errors.Unavailable, match=r"failpoint task\.start: no luck"):
        points.hit("task.start")
    points.hit("task.start")


def test_processes_share_the_counts_of_a_plan_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "plan"
    first, second = failpoint.SharedPlan(str(file)), failpoint.SharedPlan(str(file))
    first.hit("task.start")
    file.write_text("task.start=1*off->1*error(ENOSPC)")
    first.hit("task.start")
    with pytest.raises(OSError, match="No space left"):
        second.hit("task.start")
    first.hit("task.start")
    assert (tmp_path / "plan.hits").read_text() == "task.start\n"


CRASHES = {
    "daemon": "from pydock.base.failpoint import failpoint as hit",
    "shim": "from pydock_shim.failpoint import failpoint as hit",
}


@pytest.mark.parametrize("load", CRASHES.values(), ids=CRASHES)
def test_a_crash_is_a_kill_of_the_process_itself_and_off_is_nothing(tmp_path: Path, load: str) -> None:
    program = f"{load}\nhit('task.kill'); hit('task.start'); print('alive')"
    file = tmp_path / "plan"
    file.write_text("task.start=1*crash")
    for plan, status in (("", 0), ("task.start=1*crash", -9), (f"@{file}", -9), (f"@{file}", 0)):
        environment = {**os.environ, failpoint.VARIABLE: plan, "PYTHONPATH": os.pathsep.join(sys.path)}
        assert subprocess.run([sys.executable, "-c", program], env=environment, check=False, capture_output=True).returncode == status


def test_every_point_in_the_code_is_declared_and_every_declared_one_is_there() -> None:
    found = set()
    for folder in SHIPPED:
        for path in (ROOT / folder).rglob("*.py"):
            found.update(re.findall(r'^\s+failpoint\("([^"]+)"\)$', path.read_text(), re.MULTILINE))
    assert sorted(found) == sorted(failpoint.POINTS)
