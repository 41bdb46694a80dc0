"""The oracle: what it allows of a key while it is moved, and that it can say no."""

from __future__ import annotations

import contextlib

import pytest

from pydock.base import errors
from pydock.testing import model

KEY = ("task", "ns", "web")


def test_what_was_told_is_certain_and_what_was_not_may_be_either() -> None:
    history = model.History()
    assert history.of(KEY) == {model.ABSENT}
    with history.moving(KEY, "created"):
        assert history.of(KEY) == {model.ABSENT, "created"}
    assert history.of(KEY) == {"created"}
    with contextlib.suppress(errors.Unavailable), history.moving(KEY, "running"):
        raise errors.Unavailable("the daemon is gone")
    assert history.of(KEY) == {"created", "running"}


def test_between_two_states_there_may_be_others() -> None:
    history = model.History()
    with pytest.raises(errors.Unavailable), history.moving(KEY, "stopped", "running"):
        raise errors.Unavailable("the daemon is gone")
    assert history.of(KEY) == {model.ABSENT, "running", "stopped"}


@pytest.mark.parametrize(("told", "state"), [(True, {"stopped"}), (False, {"stopped", model.ABSENT})])
def test_a_dead_shim_means_a_stopped_task_unless_it_was_never_told_of(told: bool, state: set[str]) -> None:
    history = model.History()
    with contextlib.suppress(errors.Unavailable), history.moving(KEY, "created"):
        if not told:
            raise errors.Unavailable("the shim is gone")
    history.allowed["exec", "ns", "web/job"] = frozenset({"running"})
    history.allowed["task", "ns", "other"] = frozenset({"running"})
    history.shim_died("ns", "web")
    assert history.of(KEY) == state
    assert history.of(("exec", "ns", "web/job")) == {"stopped", model.ABSENT}
    assert history.of(("task", "ns", "other")) == {"running"}


def test_an_exit_that_was_heard_twice_is_named() -> None:
    ears = model.Ears()
    ears.heard = [("ns", "web", "", 7), ("ns", "web", "job", 8), ("ns", "web", "", 7)]
    assert ears.twice() == [("ns", "web", "", 7)]
