"""What goes into a runtime spec."""

from __future__ import annotations

import json

import pytest

from pydock.base import errors
from pydock.oci import defaults, spec


@pytest.fixture
def made() -> spec.Spec:
    return spec.default("default", "c1")


def kinds(made: spec.Spec) -> list[str]:
    return [each["type"] for each in made["linux"]["namespaces"]]


def test_a_default_container_is_shut_in(made: spec.Spec) -> None:
    assert kinds(made) == ["pid", "ipc", "uts", "mount", "network"]
    assert made["process"]["noNewPrivileges"] is True
    assert set(made["process"]["capabilities"]) == {"bounding", "effective", "permitted"}
    assert len(made["process"]["capabilities"]["bounding"]) == 14
    assert {"/proc/kcore", "/sys/firmware", "/proc/scsi"} <= set(made["linux"]["maskedPaths"])
    assert made["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert made["linux"]["cgroupsPath"] == "/default/c1"


def test_on_a_host_with_cgroup_v2_alone_it_has_a_view_of_its_own() -> None:
    assert kinds(spec.default("default", "c1", unified=True))[-1] == "cgroup"


def test_changing_one_spec_leaves_the_next_as_it_was() -> None:
    before = json.dumps(spec.default("default", "c1"))
    changed = spec.default("default", "c1")
    spec.privileged(changed, ["CAP_SYS_ADMIN"], [])
    spec.add_mounts(changed, [spec.parse_mount("type=bind,src=/a,dst=/proc")])
    changed["mounts"][0]["options"].append("x")
    assert json.dumps(spec.default("default", "c1")) == before


def test_the_call_replaces_the_command_of_the_image_and_its_entrypoint(made: spec.Spec) -> None:
    config = {"Entrypoint": ["/entry"], "Cmd": ["a", "b"], "Env": ["A=1", "B=2"], "WorkingDir": "/srv"}
    spec.image_config(made, config, [])
    assert (made["process"]["args"], made["process"]["cwd"], made["process"]["env"]) == (["/entry", "a", "b"], "/srv", ["A=1", "B=2"])
    spec.image_config(made, config, ["sh", "-c", "true"])
    assert made["process"]["args"] == ["sh", "-c", "true"]


def test_an_image_without_environment_gets_a_path(made: spec.Spec) -> None:
    spec.add_env(made, ["A=1"])
    spec.image_config(made, {}, ["true"])
    assert made["process"]["env"] == [defaults.PATH, "A=1"]


@pytest.mark.parametrize("config", [{}, {"Cmd": []}, {"Cmd": "sh"}, {"Cmd": [1]}, {"Cmd": ["a\0b"]}, {"Cmd": ["sh"], "WorkingDir": 3},
                                    {"Cmd": ["sh"], "WorkingDir": "relative"}, {"Cmd": ["sh"], "Env": {"A": "1"}}])  # fmt: skip
def test_an_image_config_of_the_wrong_shape_is_an_error(made: spec.Spec, config: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidArgument):
        spec.image_config(made, config, [])


def test_environment_values_replace_in_place_append_and_remove() -> None:
    assert spec.merge_env(["A=1", "B=2", "C=3"], ["B=x=y", "D=4", "A"]) == ["B=x=y", "C=3", "D=4"]


def test_the_own_group_is_among_the_supplementary_ones(made: spec.Spec) -> None:
    spec.user(made, 1000, 100, (29, 100, 44))
    assert made["process"]["user"] == {"uid": 1000, "gid": 100, "additionalGids": [100, 29, 44]}


def test_a_mount_replaces_the_default_one_at_its_place(made: spec.Spec) -> None:
    spec.add_mounts(made, [spec.parse_mount("type=bind,source=/host,destination=/run/,options=rbind:ro")])
    assert [each for each in made["mounts"] if each["destination"].startswith("/run")] == [
        {"type": "bind", "source": "/host", "destination": "/run/", "options": ["rbind", "ro"]}
    ]


@pytest.mark.parametrize("text", ["", "type", "type=bind,colour=red", "type=bind,src=/a", "type=bind,src=/a,dst=relative"])
def test_a_mount_that_says_too_little_or_too_much_is_an_error(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        spec.parse_mount(text)


def test_host_network_takes_the_namespace_away_and_brings_name_resolution(made: spec.Spec) -> None:
    spec.host_network(made)
    assert "network" not in kinds(made)
    assert {each["destination"] for each in made["mounts"]} >= {"/etc/hosts", "/etc/resolv.conf"}


def test_a_namespace_is_joined_by_path(made: spec.Spec) -> None:
    spec.join_namespace(made, "network:/run/netns/a")
    assert {"type": "network", "path": "/run/netns/a"} in made["linux"]["namespaces"]
    assert kinds(made).count("network") == 1


@pytest.mark.parametrize("text", ["network", "network:", "network:rel", "socks:/a", ":/a"])
def test_a_namespace_that_cannot_be_joined_is_an_error(made: spec.Spec, text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        spec.join_namespace(made, text)


def test_capabilities_come_and_go_in_every_set(made: spec.Spec) -> None:
    spec.add_capabilities(made, ["CAP_SYS_ADMIN", "CAP_CHOWN"])
    spec.drop_capabilities(made, ["CAP_MKNOD"])
    for held in made["process"]["capabilities"].values():
        assert held.count("CAP_CHOWN") == 1
        assert "CAP_SYS_ADMIN" in held
        assert "CAP_MKNOD" not in held


@pytest.mark.parametrize("name", ["SYS_ADMIN", "cap_chown", "CAP_EVERYTHING", ""])
def test_an_unknown_capability_is_an_error(made: spec.Spec, name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="unknown capability"):
        spec.add_capabilities(made, [name])


def test_a_privileged_container_has_no_masks_and_no_inheritable_capabilities(made: spec.Spec) -> None:
    spec.privileged(made, ["CAP_CHOWN"], [{"path": "/dev/x", "type": "c", "major": 1, "minor": 2}])
    assert made["linux"]["maskedPaths"] == made["linux"]["readonlyPaths"] == []
    assert made["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert set(made["process"]["capabilities"]) == {"bounding", "effective", "permitted"}
    assert next(each for each in made["mounts"] if each["type"] == "sysfs")["options"][-1] == "rw"


def test_limits_are_written_where_the_runtime_reads_them(made: spec.Spec) -> None:
    spec.memory_limit(made, 1 << 20)
    spec.cpus(made, 1.5)
    spec.cpu(made, shares=512)
    spec.open_files(made, "10:20")
    assert made["linux"]["resources"]["memory"] == {"limit": 1 << 20}
    assert made["linux"]["resources"]["cpu"] == {"quota": 150_000, "period": 100_000, "shares": 512}
    assert made["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "hard": 20, "soft": 10}]
