"""The shim's pure parts: JSON, spec facts, mount options, state tables, paths and figures of cgroups, log URIs, command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_shim import cgroup, host, loop, metrics, process, rootfs, spec, standalone, state, std, stdio, wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_is_read_and_written_as_the_standard_module_does(value):
    assert json.loads(std.dumps(value)) == value
    assert std.loads(json.dumps(value, indent=1)) == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", "1 2", "NaN", "[Infinity]", '{"a":1}x', "nul", b"\xff", "[" * 100_000])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError):
        std.loads(text)


# facts about a spec


def oci(**more):
    namespaces = [{"type": "pid"}, {"type": "mount"}]
    return {
        "ociVersion": "1.0.2",
        "process": {"args": ["sh"]},
        "mounts": [{"options": ["rbind"]}],
        "linux": {"namespaces": namespaces, **more},
    }


@pytest.mark.parametrize("indent", [None, 4])
def test_a_plain_spec_is_understood_without_being_parsed(indent):
    facts = spec.scan(json.dumps(oci(), indent=indent).encode())
    assert facts is not None
    assert (facts.hooks, facts.own_pids, facts.shared) == (False, True, False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hooks": {"poststart": [{"path": "/x"}]}}, (True, True, False)),
        ({"hooks": {}}, (False, True, False)),
        ({"mounts": [{"options": ["rbind", "rshared"]}]}, (False, True, True)),
        ({"linux": {"namespaces": [{"type": "pid"}], "rootfsPropagation": "shared"}}, (False, True, True)),
        ({"linux": {"namespaces": [{"type": "mount"}]}}, (False, False, False)),
        ({"linux": {"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}]}}, (False, False, False)),
        ({"linux": {}}, (False, False, False)),
        ({"process": {"args": ["namespaces", "hooks", "shared", '"namespaces":[]']}}, (False, True, False)),
        ({"annotations": {"namespaces": "x", "hooks": "y"}}, (False, True, False)),
        ({"annotations": {"namespaces": '[{"type":"user"}]'}}, (False, True, False)),
    ],
)
def test_facts_are_the_same_by_search_and_by_parse(tmp_path, change, expected):
    data = json.dumps({**oci(), **change}).encode()
    for facts in (spec.scan(data), spec.parse(data)):
        assert facts is None or (facts.hooks, facts.own_pids, facts.shared) == expected
    path = tmp_path / "config.json"
    path.write_bytes(data)
    read = spec.read(str(path))
    assert (read.hooks, read.own_pids, read.shared) == expected


def test_a_key_spelt_in_escapes_is_not_overlooked():
    data = json.dumps({**oci(), "hooks": {"poststart": [{"path": "/x"}]}}).replace('"hooks"', '"\\u0068ooks"').encode()
    assert spec.scan(data) is None
    assert spec.parse(data).hooks is True


# mounts


def test_mount_options_become_flags_and_data():
    flags, data = rootfs.parse(["ro", "nosuid", "rbind", "lowerdir=/a:/b", "index=off", "rw"])
    assert flags == 2 | 4096 | 16384
    assert data == ["lowerdir=/a:/b", "index=off"]


@pytest.mark.parametrize("word", ["loop", "uidmap=0:1:2", "gidmap=0:1:2", "X-containerd.mkfs=1"])
def test_a_mount_option_that_cannot_be_honoured_is_refused(word):
    with pytest.raises(ValueError, match="not supported"):
        rootfs.parse([word])


def test_long_lower_directories_are_made_relative_to_their_parent():
    layers = [f"/var/lib/snapshots/{number}/fs" for number in range(300)]
    parent, options = rootfs.relative_lowers(["lowerdir=" + ":".join(layers), "upperdir=/u"])
    assert parent == "/var/lib/snapshots"
    assert options[0].startswith("lowerdir=0/fs:1/fs:")
    assert options[1] == "upperdir=/u"
    assert rootfs.relative_lowers(["lowerdir=/a:/b"]) == ("", ["lowerdir=/a:/b"])
    assert rootfs.relative_lowers(["lowerdir=/a/b:/a"])[0] == ""


def test_a_mount_target_does_not_leave_the_root():
    with pytest.raises(ValueError, match="leaves the root"):
        rootfs.mount_all([{"type": "bind", "source": "/", "target": "/../x", "options": []}], "/nowhere")


# states


@pytest.mark.parametrize(
    ("verb", "where", "text"),
    [
        ("start", "running", "cannot start a running process"),
        ("start", "stopped", "cannot start a stopped process"),
        ("delete", "running", "cannot delete a running process"),
        ("delete", "paused", "cannot delete a paused process"),
        ("pause", "created", "cannot pause task in created state"),
        ("pause", "stopped", "cannot pause a stopped container"),
        ("resume", "running", "cannot resume a running process"),
        ("exec", "paused", "cannot exec in a paused state"),
        ("update", "stopped", "cannot update a stopped container"),
        ("checkpoint", "stopped", "cannot checkpoint a stopped task"),
    ],
)
def test_a_verb_out_of_place_is_refused_in_containerds_words(verb, where, text):
    with pytest.raises(loop.RpcError) as info:
        state.check(verb, where)
    assert (info.value.code, info.value.message) == (wire.FAILED_PRECONDITION, f"{text}: failed precondition")


def test_every_verb_is_allowed_somewhere_and_refused_somewhere():
    for verb, allowed in state.ALLOWED.items():
        for where in ("created", "running", "paused", "stopped", "deleted"):
            if where in allowed:
                state.check(verb, where)
            else:
                with pytest.raises(loop.RpcError):
                    state.check(verb, where)


@pytest.mark.parametrize("id", ["a", "A-b_c.d", "0" * 76])
def test_an_id_in_its_grammar_is_taken(id):
    process.check_id("container id", id)


@pytest.mark.parametrize("id", ["", ".", "..", "a/b", "-a", "a-", "_a", "a" * 77, "a b", "a\0", "é", "٣", "a\n"])
def test_an_id_out_of_its_grammar_is_refused(id):
    with pytest.raises(loop.RpcError) as info:
        process.check_id("container id", id)
    assert info.value.code == wire.INVALID_ARGUMENT


# cgroups on made-up file systems


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_the_host_tells_its_hierarchies_apart(tmp_path):
    unified = tmp_path / "unified"
    write(unified, {"cgroup.controllers": "hugetlb\n"})
    lines = [
        f"31 23 0:28 / {tmp_path} rw - tmpfs cgroup rw",
        f"32 31 0:29 /docker/x {tmp_path}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        f"40 31 0:37 / {tmp_path}/systemd rw - cgroup cgroup rw,name=systemd",
        f"41 31 0:38 / {unified} rw - cgroup2 cgroup2 rw",
    ]
    write(tmp_path, {"mountinfo": "\n".join(lines)})
    found = host.Host(str(tmp_path / "mountinfo"))
    assert found.v1["cpu"] == found.v1["cpuacct"] == (f"{tmp_path}/cpu,cpuacct", "/docker/x")
    assert found.v1["systemd"] == (f"{tmp_path}/systemd", "/")
    assert found.cover == str(unified)
    assert not found.unified_only
    write(unified, {"cgroup.controllers": ""})
    assert host.Host(str(tmp_path / "mountinfo")).cover == ""
    write(tmp_path, {"mountinfo": lines[3]})
    assert host.Host(str(tmp_path / "mountinfo")).unified_only


def test_processes_of_a_v2_cgroup_are_those_below_it_too(tmp_path):
    write(tmp_path, {"cgroup.procs": "5\n7\n", "sub/cgroup.procs": "9\n", "memory.events": "low 0\noom 2\noom_kill 1\n"})
    group = cgroup.Cgroup.of(2, {"": str(tmp_path)})
    assert group.pids() == [5, 7, 9]
    assert group.oom_kills() == 1
    (tmp_path / "cgroup.freeze").write_text("1")
    group.thaw()
    assert (tmp_path / "cgroup.freeze").read_text() == "0"


def test_figures_of_a_v2_cgroup(tmp_path):
    write(
        tmp_path,
        {
            "pids.current": "3\n",
            "pids.max": "max\n",
            "cpu.stat": "usage_usec 12\nuser_usec 7\nsystem_usec 5\nnr_periods 1\nnr_bursts 4\n",
            "cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=42\n",
            "memory.current": "4096\n",
            "memory.max": "max\n",
            "memory.peak": "8192\n",
            "memory.swap.max": "0\n",
            "memory.stat": "anon 1\nfile 2\nnew_field 3\n",
            "memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n",
            "io.stat": "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
            "hugetlb.2MB.current": "0\n",
            "hugetlb.2MB.max": "max\n",
            "hugetlb.2MB.events": "max 6\n",
            "rdma.current": "mlx4_0 hca_handle=2 hca_object=2000\n",
            "rdma.max": "mlx4_0 hca_handle=max hca_object=max\n",
        },
    )
    name, value = metrics.collect(cgroup.Cgroup.of(2, {"": str(tmp_path)}))
    assert name == "io.containerd.cgroups.v2.Metrics"
    again = wire.decode(name, wire.encode(name, value))
    assert again["pids"] == {"current": 3, "limit": 0}
    assert again["cpu"]["usage_usec"] == 12
    assert again["cpu"]["psi"]["some"]["avg10"] == 1.5
    assert again["memory"]["usage_limit"] == 2**64 - 1
    assert again["memory"]["max_usage"] == 8192
    assert again["memory"]["file"] == 2
    assert again["memory_events"]["oom_kill"] == 4
    assert again["io"]["usage"] == [{"major": 254, "minor": 0, "rbytes": 1, "wbytes": 2, "rios": 3, "wios": 4}]
    assert again["hugetlb"] == [{"current": 0, "max": 2**64 - 1, "pagesize": "2MB", "failcnt": 6}]
    assert again["rdma"]["current"][0]["hca_objects"] == 2000
    assert again["rdma"]["limit"][0]["hca_handles"] == 2**32 - 1


def test_figures_of_a_v1_cgroup(tmp_path):
    write(
        tmp_path,
        {
            "pids/pids.current": "2\n",
            "pids/pids.max": "100\n",
            "cpuacct/cpuacct.usage": "500\n",
            "cpuacct/cpuacct.usage_percpu": "300 200 \n",
            "cpuacct/cpuacct.stat": "user 2\nsystem 1\n",
            "cpu/cpu.stat": "nr_periods 4\nnr_throttled 3\nthrottled_time 2\n",
            "memory/memory.stat": "cache 1\nrss 2\npgfault 3\ntotal_pgfault 4\nhierarchical_memory_limit 5\nhierarchical_memsw_limit 6\n",
            "memory/memory.usage_in_bytes": "10\n",
            "memory/memory.limit_in_bytes": "20\n",
            "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
            "blkio/blkio.throttle.io_service_bytes": "254:0 Read 10\n254:0 Write 20\nTotal 30\n",
            "hugetlb/hugetlb.2MB.usage_in_bytes": "0\n",
            "hugetlb/hugetlb.2MB.max_usage_in_bytes": "4\n",
        },
    )
    paths = {entry: str(tmp_path / entry) for entry in os.listdir(tmp_path)}
    group = cgroup.Cgroup.of(1, paths)
    assert group.oom_kills() == 7
    name, value = metrics.collect(group)
    again = wire.decode(name, wire.encode(name, value))
    assert name == "io.containerd.cgroups.v1.Metrics"
    assert again["pids"] == {"current": 2, "limit": 100}
    assert again["cpu"]["usage"]["per_cpu"] == [300, 200]
    assert again["cpu"]["usage"]["user"] == 2 * metrics.TICK
    assert again["cpu"]["throttling"]["throttled_periods"] == 3
    memory = again["memory"]
    assert (memory["pg_fault"], memory["total_pg_fault"], memory["hierarchical_swap_limit"]) == (3, 4, 6)
    assert memory["usage"] == {"limit": 20, "usage": 10, "max": 0, "failcnt": 0}
    assert [entry["value"] for entry in again["blkio"]["io_service_bytes_recursive"]] == [10, 20]
    assert again["hugetlb"][0]["pagesize"] == "2MB"
    assert again["memory_oom_control"]["oom_kill"] == 7


def test_a_cgroup_that_is_gone_has_figures_of_zero():
    for version, paths in ((2, {"": "/no/such"}), (1, {"memory": "/no/such", "pids": "/no/such"})):
        name, value = metrics.collect(cgroup.Cgroup.of(version, paths))
        assert wire.encode(name, value) is not None


# log URIs and the command line


def test_a_logger_uri_names_a_program_and_its_arguments():
    assert stdio.logger_command("binary:///bin/log%20ger?id=a%3Db&flag&x=1+2") == ("/bin/log ger", ["id", "a=b", "flag", "x", "1 2"])
    assert stdio.logger_command("binary:///bin/x") == ("/bin/x", [])


@given(st.text(max_size=20))
def test_unquoting_never_fails(text):
    assert isinstance(stdio.unquote(text), str)


def test_the_shims_command_line_is_read_as_containerd_writes_it():
    words = ["-namespace", "n", "--id=i", "-address", "/a", "-publish-binary", "/b", "-debug", "start"]
    flags, switches, action = standalone.parse(words)
    assert (flags["namespace"], flags["id"], flags["address"], switches, action) == ("n", "i", "/a", {"debug"}, "start")
    with pytest.raises(ValueError, match="unknown flag"):
        standalone.parse(["-nope", "start"])


def test_an_unknown_action_fails_and_says_so(capfd):
    assert standalone.main(["dance"]) == 1
    assert "unknown action" in capfd.readouterr().err
