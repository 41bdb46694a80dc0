"""From flags to a spec and labels."""

from __future__ import annotations

from typing import Any

import click
import pytest

from pydock.base import errors
from pydock.cli import making
from pydock.client import images
from pydock.oci import spec, user


def flags(*words: str) -> dict[str, Any]:
    """Parse a command line of the container options alone."""

    @click.command()
    @making.container_options
    def command(**found: Any) -> dict[str, Any]:
        return found

    found = command.main(list(words), standalone_mode=False)
    assert isinstance(found, dict)
    return found


def finished(*words: str) -> spec.Spec:
    made = spec.default("default", "c1")
    making._finish(made, flags(*words), lambda wanted: user.resolve(wanted, "app:x:5:6::/:\n", ""), "app")
    return made


def test_the_user_of_the_call_overrules_the_images() -> None:
    assert finished()["process"]["user"]["uid"] == 5
    assert finished("-u", "7:8")["process"]["user"] == {"uid": 7, "gid": 8, "additionalGids": [8]}


def test_limits_reach_the_spec() -> None:
    resources = finished("--memory-limit", "1000", "--cpus", "0.5", "--pids-limit", "9", "--cpuset-cpus", "0-1")["linux"]["resources"]
    assert resources["memory"] == {"limit": 1000}
    assert resources["cpu"] == {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0-1"}
    assert resources["pids"] == {"limit": 9}


def test_two_ways_to_bound_the_processor_are_an_error() -> None:
    with pytest.raises(errors.InvalidArgument):
        finished("--cpus", "1", "--cpu-quota", "5")


def test_an_empty_cgroup_path_is_not_the_default_one() -> None:
    assert finished()["linux"]["cgroupsPath"] == "/default/c1"
    assert finished("--cgroup", "")["linux"]["cgroupsPath"] == ""


def test_a_privileged_container_may_still_lose_a_capability() -> None:
    made = finished("--privileged", "--cap-drop", "CAP_CHOWN")
    assert "CAP_CHOWN" not in made["process"]["capabilities"]["effective"]


def test_labels_of_an_image_cannot_speak_for_the_platform() -> None:
    config = {"Labels": {"a": "b", "containerd.io/restart.loguri": "binary:///x", "io.containerd.x": "y", "big": "x" * 5000, "n": 1}}
    image = images.Image(labels={"containerd.io/gc.root": "now", "c": "d"})
    assert making._image_labels(image, config) == {"a": "b", "c": "d", "io.containerd.image.config.stop-signal": "SIGTERM"}


def test_the_stop_signal_of_an_image_is_kept() -> None:
    assert making._image_labels(images.Image(), {"StopSignal": "SIGQUIT"}) == {"io.containerd.image.config.stop-signal": "SIGQUIT"}
