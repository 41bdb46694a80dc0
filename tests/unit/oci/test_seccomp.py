"""The default filter of system calls."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from pydock.oci import defaults, seccomp


def rules(profile: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [rule for rule in profile["syscalls"] if name in rule["names"]]


@pytest.fixture
def profile() -> dict[str, Any]:
    return seccomp.profile(defaults.CAPABILITIES, "x86_64")


def test_what_is_not_listed_is_refused(profile: dict[str, Any]) -> None:
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    for name in (
        "mount",
        "bpf",
        "keyctl",
        "add_key",
        "init_module",
        "kexec_load",
        "userfaultfd",
        "perf_event_open",
        "setns",
        "unshare",
        "reboot",
    ):
        assert rules(profile, name) == []


def test_ordinary_programs_run(profile: dict[str, Any]) -> None:
    for name in ("read", "openat", "execve", "futex", "mmap", "epoll_wait", "connect", "getrandom", "exit_group", "rseq"):
        assert rules(profile, name)[0] == rules(profile, "read")[0]


def test_no_new_namespaces_without_the_capability(profile: dict[str, Any]) -> None:
    [clone] = rules(profile, "clone")
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 0}]
    [clone3] = rules(profile, "clone3")
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", errno.ENOSYS)
    [free] = rules(seccomp.profile(["CAP_SYS_ADMIN"], "x86_64"), "clone")
    assert "args" not in free


def test_capabilities_bring_their_calls(profile: dict[str, Any]) -> None:
    assert rules(profile, "chroot")
    for capability, names in seccomp.BY_CAPABILITY.items():
        wider = seccomp.profile([capability], "x86_64")
        assert all(rules(wider, name) for name in names.split())


def test_sockets_of_two_families_match_no_rule(profile: dict[str, Any]) -> None:
    compare = {"SCMP_CMP_LT": lambda a, b: a < b, "SCMP_CMP_EQ": lambda a, b: a == b, "SCMP_CMP_GT": lambda a, b: a > b}

    def allowed(family: int) -> bool:
        conditions = [rule["args"][0] for rule in rules(profile, "socket")]
        return any(compare[one["op"]](family, one["value"]) for one in conditions)

    assert [family for family in range(60) if not allowed(family)] == [38, 40]


def test_no_call_is_listed_twice_without_conditions(profile: dict[str, Any]) -> None:
    names = [name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]]
    assert len(names) == len(set(names))
