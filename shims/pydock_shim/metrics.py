"""Figures of a cgroup, read from its files, as containerd's Metrics messages.  A file that is not there leaves its figure at zero."""

from __future__ import annotations

import os

from pydock_shim import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pydock_shim import cgroup

NONE = (1 << 64) - 1  # containerd's figure for "no limit"
TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # ns

# message field -> file, of v1 block IO
BLKIO_V1 = {
    "io_service_bytes_recursive": ("io_service_bytes_recursive", "throttle.io_service_bytes"),
    "io_serviced_recursive": ("io_serviced_recursive", "throttle.io_serviced"),
    "io_queued_recursive": ("io_queued_recursive",),
    "io_service_time_recursive": ("io_service_time_recursive",),
    "io_wait_time_recursive": ("io_wait_time_recursive",),
    "io_merged_recursive": ("io_merged_recursive",),
    "io_time_recursive": ("time_recursive",),
    "sectors_recursive": ("sectors_recursive",),
}
# memory.stat of v1 spells some names without the underscores of the message.
MEMORY_V1 = {"pgpgin": "pg_pg_in", "pgpgout": "pg_pg_out", "pgfault": "pg_fault", "pgmajfault": "pg_maj_fault"}
MEMORY_V1_FIELDS = """
    cache rss rss_huge mapped_file dirty writeback pgpgin pgpgout pgfault pgmajfault inactive_anon active_anon inactive_file active_file
    unevictable hierarchical_memory_limit total_cache total_rss total_rss_huge total_mapped_file total_dirty total_writeback total_pgpgin
    total_pgpgout total_pgfault total_pgmajfault total_inactive_anon total_active_anon total_inactive_file total_active_file
    total_unevictable
"""
MEMORY_V2_FIELDS = """
    anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp inactive_anon active_anon inactive_file
    active_file unevictable slab_reclaimable slab_unreclaimable pgfault pgmajfault workingset_refault workingset_activate
    workingset_nodereclaim pgrefill pgscan pgsteal pgactivate pgdeactivate pglazyfree pglazyfreed thp_fault_alloc thp_collapse_alloc
"""


def collect(group: cgroup.Cgroup) -> tuple[str, dict[str, Any]]:
    """The name of the Metrics message of this cgroup's version, and its value."""
    if group.version == 2:
        return "io.containerd.cgroups.v2.Metrics", _v2(group.paths[""])
    return "io.containerd.cgroups.v1.Metrics", _v1(group.paths)


def _lines(path: str) -> list[list[str]]:
    try:
        return [line.split() for line in linux.read_text(path, 1 << 20).splitlines()]
    except OSError:
        return []


def _number(path: str) -> int:
    """The number in a file of one; "max" is no limit, a file that is absent 0."""
    lines = _lines(path)
    word = lines[0][0] if lines and lines[0] else "0"
    return NONE if word == "max" else int(word) if word.isdigit() else 0


def _keys(path: str) -> dict[str, int]:
    return {line[0]: int(line[1]) for line in _lines(path) if len(line) == 2 and line[1].isdigit()}


# version 1


def _v1(paths: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "pids" in paths:
        limit = _number(paths["pids"] + "/pids.max")
        found["pids"] = {"current": _number(paths["pids"] + "/pids.current"), "limit": 0 if limit == NONE else limit}
    found["cpu"] = _cpu_v1(paths.get("cpuacct", ""), paths.get("cpu", ""))
    if "memory" in paths:
        found["memory"] = _memory_v1(paths["memory"])
        control = _keys(paths["memory"] + "/memory.oom_control")
        found["memory_oom_control"] = {name: control.get(name, 0) for name in ("oom_kill_disable", "under_oom", "oom_kill")}
    if "blkio" in paths:
        found["blkio"] = {field: _blkio_v1(paths["blkio"], files) for field, files in BLKIO_V1.items()}
    if "hugetlb" in paths:
        found["hugetlb"] = _hugetlb_v1(paths["hugetlb"])
    if "rdma" in paths:
        found["rdma"] = _rdma(paths["rdma"])
    return found


def _cpu_v1(account: str, control: str) -> dict[str, Any]:
    throttled = _keys(control + "/cpu.stat") if control else {}
    usage: dict[str, Any] = {}
    if account:
        ticks = _keys(account + "/cpuacct.stat")
        lines = _lines(account + "/cpuacct.usage_percpu")
        usage = {
            "total": _number(account + "/cpuacct.usage"),
            "user": ticks.get("user", 0) * TICK,
            "kernel": ticks.get("system", 0) * TICK,
            "per_cpu": [int(word) for word in lines[0]] if lines else [],
        }
    throttling = {
        "periods": throttled.get("nr_periods", 0),
        "throttled_periods": throttled.get("nr_throttled", 0),
        "throttled_time": throttled.get("throttled_time", 0),
    }
    return {"usage": usage, "throttling": throttling}


def _memory_v1(directory: str) -> dict[str, Any]:
    stat = _keys(directory + "/memory.stat")
    found: dict[str, Any] = {}
    for name in MEMORY_V1_FIELDS.split():
        prefix = "total_" if name.startswith("total_") else ""
        bare = name.removeprefix("total_")
        found[prefix + MEMORY_V1.get(bare, bare)] = stat.get(name, 0)
    found["hierarchical_swap_limit"] = stat.get("hierarchical_memsw_limit", 0)
    for field, infix in (("usage", ""), ("swap", "memsw."), ("kernel", "kmem."), ("kernel_tcp", "kmem.tcp.")):
        start = f"{directory}/memory.{infix}"
        found[field] = {
            "limit": _number(start + "limit_in_bytes"),
            "usage": _number(start + "usage_in_bytes"),
            "max": _number(start + "max_usage_in_bytes"),
            "failcnt": _number(start + "failcnt"),
        }
    return found


def _blkio_v1(directory: str, files: tuple[str, ...]) -> list[dict[str, Any]]:
    for name in files:
        entries = []
        for line in _lines(f"{directory}/blkio.{name}"):
            if len(line) < 2 or ":" not in line[0] or not line[-1].isdigit():
                continue
            major, _, minor = line[0].partition(":")
            operation = line[1] if len(line) == 3 else ""
            entries.append({"op": operation, "device": "", "major": int(major), "minor": int(minor), "value": int(line[-1])})
        if entries:
            return entries
    return []


def _page_sizes(directory: str, suffix: str) -> list[str]:
    """The sizes that have a file ``hugetlb.SIZE<suffix>``."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(name[len("hugetlb.") : -len(suffix)] for name in names if name.startswith("hugetlb.") and name.endswith(suffix))


def _hugetlb_v1(directory: str) -> list[dict[str, Any]]:
    return [
        {
            "usage": _number(f"{directory}/hugetlb.{size}.usage_in_bytes"),
            "max": _number(f"{directory}/hugetlb.{size}.max_usage_in_bytes"),
            "failcnt": _number(f"{directory}/hugetlb.{size}.failcnt"),
            "pagesize": size,
        }
        for size in _page_sizes(directory, ".usage_in_bytes")
        if ".rsvd" not in size
    ]


def _rdma(directory: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, name in (("current", "rdma.current"), ("limit", "rdma.max")):
        entries = []
        for line in _lines(f"{directory}/{name}"):
            values = dict(word.split("=", 1) for word in line[1:] if "=" in word)
            numbers = {key: (1 << 32) - 1 if value == "max" else int(value) for key, value in values.items()}
            entries.append({"device": line[0], "hca_handles": numbers.get("hca_handle", 0), "hca_objects": numbers.get("hca_object", 0)})
        found[field] = entries
    return found


# version 2


def _v2(directory: str) -> dict[str, Any]:
    events = _keys(directory + "/memory.events")
    limit = _number(directory + "/pids.max")
    return {
        "pids": {"current": _number(directory + "/pids.current"), "limit": 0 if limit == NONE else limit},
        "cpu": _cpu_v2(directory),
        "memory": _memory_v2(directory),
        "memory_events": {name: events.get(name, 0) for name in ("low", "high", "max", "oom", "oom_kill", "oom_group_kill")},
        "io": {"usage": _io_v2(directory), "psi": _pressure(directory + "/io.pressure")},
        "hugetlb": _hugetlb_v2(directory),
        "rdma": _rdma(directory),
    }


def _cpu_v2(directory: str) -> dict[str, Any]:
    stat = _keys(directory + "/cpu.stat")
    names = ("usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec", "nr_bursts", "burst_usec")
    return {**{name: stat.get(name, 0) for name in names}, "psi": _pressure(directory + "/cpu.pressure")}


def _memory_v2(directory: str) -> dict[str, Any]:
    stat = _keys(directory + "/memory.stat")
    found: dict[str, Any] = {name: stat.get(name, 0) for name in MEMORY_V2_FIELDS.split()}
    for field, name in (
        ("usage", "current"), ("usage_limit", "max"), ("max_usage", "peak"),
        ("swap_usage", "swap.current"), ("swap_limit", "swap.max"), ("swap_max_usage", "swap.peak"),
    ):  # fmt: skip
        found[field] = _number(f"{directory}/memory.{name}")
    found["psi"] = _pressure(directory + "/memory.pressure")
    return found


def _pressure(path: str) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for line in _lines(path):
        values = dict(word.split("=", 1) for word in line[1:] if "=" in word)
        if line and line[0] in ("some", "full"):
            averages = {name: float(values.get(name, 0)) for name in ("avg10", "avg60", "avg300")}
            found[line[0]] = {**averages, "total": int(values.get("total", 0))}
    return found or None


def _io_v2(directory: str) -> list[dict[str, Any]]:
    entries = []
    for line in _lines(directory + "/io.stat"):
        if not line or ":" not in line[0]:
            continue
        major, _, minor = line[0].partition(":")
        values = dict(word.split("=", 1) for word in line[1:] if "=" in word)
        numbers = {name: int(values.get(name, 0)) for name in ("rbytes", "wbytes", "rios", "wios")}
        entries.append({"major": int(major), "minor": int(minor), **numbers})
    return entries


def _hugetlb_v2(directory: str) -> list[dict[str, Any]]:
    return [
        {
            "current": _number(f"{directory}/hugetlb.{size}.current"),
            "max": _number(f"{directory}/hugetlb.{size}.max"),
            "pagesize": size,
            "failcnt": _keys(f"{directory}/hugetlb.{size}.events").get("max", 0),
        }
        for size in _page_sizes(directory, ".current")
        if ".rsvd" not in size
    ]
