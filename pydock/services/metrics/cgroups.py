"""The figures of one container's cgroup under the names containerd gives them.

Vocabulary: a *row* is the name of a metric behind ``container_`` and where in the Metrics message its value is, dotted; a *list* row has
one value for each entry of a repeated field, told apart by labels.  All are gauges, as containerd's are, counters of the kernel too.
Source: containerd's core/metrics/cgroups (v1 and v2); the messages are io.containerd.cgroups.v1.Metrics and v2.Metrics.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydock._proto.io.containerd.cgroups.v1 import metrics_pb2 as v1
from pydock._proto.io.containerd.cgroups.v2 import metrics_pb2 as v2
from pydock.core import containers
from pydock.services import codec


class Figure(NamedTuple):
    """One value; ``labels`` beyond those that name the container."""

    name: str
    labels: Mapping[str, str]
    value: float


class List(NamedTuple):
    """A row for each entry of the repeated field ``path``: its value in ``value``, its labels from fields (label -> field)."""

    name: str
    path: str
    value: str
    labels: tuple[tuple[str, str], ...]


_MEMORY_V1 = """
    cache rss rss_huge mapped_file dirty writeback pgpgin:pg_pg_in pgpgout:pg_pg_out pgfault:pg_fault pgmajfault:pg_maj_fault
    inactive_anon active_anon inactive_file active_file unevictable hierarchical_memory_limit
    hierarchical_memsw_limit:hierarchical_swap_limit total_cache total_rss total_rss_huge total_mapped_file total_dirty total_writeback
    total_pgpgin:total_pg_pg_in total_pgpgout:total_pg_pg_out total_pgfault:total_pg_fault total_pgmajfault:total_pg_maj_fault
    total_inactive_anon total_active_anon total_inactive_file total_active_file total_unevictable
"""
_MEMORY_V2 = """
    usage usage_limit swap_usage swap_limit file_mapped file_dirty file_writeback pgactivate pgdeactivate pgfault pgmajfault pglazyfree
    pgrefill pglazyfreed pgscan pgsteal inactive_anon active_anon inactive_file active_file unevictable anon file kernel_stack slab sock
    shmem anon_thp slab_reclaimable slab_unreclaimable workingset_refault workingset_activate workingset_nodereclaim thp_fault_alloc
    thp_collapse_alloc
"""
_ENTRIES = (("usage", "usage"), ("swap", "swap"), ("kernel", "kernel"), ("kerneltcp", "kernel_tcp"))
_PIDS = (("pids_current", "pids.current"), ("pids_limit", "pids.limit"))


def _memory(fields: str) -> Iterator[tuple[str, str]]:
    for word in fields.split():
        name, _, field = word.partition(":")
        yield f"memory_{name}_bytes", f"memory.{field or name}"


V1: tuple[tuple[str, str], ...] = (
    *_PIDS,
    ("cpu_total_nanoseconds", "cpu.usage.total"),
    ("cpu_kernel_nanoseconds", "cpu.usage.kernel"),
    ("cpu_user_nanoseconds", "cpu.usage.user"),
    ("cpu_throttle_periods_total", "cpu.throttling.periods"),
    ("cpu_throttled_periods_total", "cpu.throttling.throttled_periods"),
    ("cpu_throttled_time_nanoseconds", "cpu.throttling.throttled_time"),
    *_memory(_MEMORY_V1),
    *((f"memory_{name}_failcnt_total", f"memory.{field}.failcnt") for name, field in _ENTRIES),
    *((f"memory_{name}_{part}_bytes", f"memory.{field}.{part}") for name, field in _ENTRIES for part in ("limit", "max", "usage")),
    ("memory_oom_total", "memory_oom_control.oom_kill"),
)

_DEVICE = (("op", "op"), ("device", "device"), ("major", "major"), ("minor", "minor"))
_PAGE = (("page", "pagesize"),)

V1_LISTS: tuple[List, ...] = (
    *(
        List(f"blkio_{name}_{'bytes' if name.startswith('io_service_bytes') else 'total'}", f"blkio.{name}", "value", _DEVICE)
        for name in (
            *("io_merged_recursive", "io_queued_recursive", "io_service_bytes_recursive", "io_service_time_recursive"),
            *("io_serviced_recursive", "io_time_recursive", "sectors_recursive"),
        )
    ),
    List("hugetlb_usage_bytes", "hugetlb", "usage", _PAGE),
    List("hugetlb_failcnt_total", "hugetlb", "failcnt", _PAGE),
    List("hugetlb_max_bytes", "hugetlb", "max", _PAGE),
)

V2: tuple[tuple[str, str], ...] = (
    *_PIDS,
    *((f"cpu_{name}_usec_microseconds", f"cpu.{name}_usec") for name in ("usage", "user", "system", "throttled")),
    ("cpu_nr_periods_total", "cpu.nr_periods"),
    ("cpu_nr_throttled_total", "cpu.nr_throttled"),
    *_memory(_MEMORY_V2),
    ("memory_oom_total", "memory_events.oom"),
)

_NUMBERS = (("major", "major"), ("minor", "minor"))
V2_LISTS: tuple[List, ...] = (
    List("io_rbytes_bytes", "io.usage", "rbytes", _NUMBERS),
    List("io_wbytes_bytes", "io.usage", "wbytes", _NUMBERS),
    List("io_rios_total", "io.usage", "rios", _NUMBERS),
    List("io_wios_total", "io.usage", "wios", _NUMBERS),
)


@functools.cache
def _getter(path: str) -> Callable[[Any], Any]:
    return operator.attrgetter(path)


def figures(data: containers.Any) -> Iterator[Figure]:
    """Yield what a Metrics message holds, by containerd's names; nothing for a message of another kind."""
    kind = codec.type_name(data)
    if kind == v1.Metrics.DESCRIPTOR.full_name:
        yield from _v1(codec.parse(v1.Metrics, data))
    elif kind == v2.Metrics.DESCRIPTOR.full_name:
        message = codec.parse(v2.Metrics, data)
        yield from _single(message, V2)
        yield from _listed(message, V2_LISTS)


def _v1(message: v1.Metrics) -> Iterator[Figure]:
    yield from _single(message, V1)
    for number, value in enumerate(message.cpu.usage.per_cpu):
        yield Figure("container_per_cpu_nanoseconds", {"cpu": str(number)}, value)
    yield from _listed(message, V1_LISTS)


def _single(message: Any, rows: tuple[tuple[str, str], ...]) -> Iterator[Figure]:
    """Yield the rows whose part of the message (the first word of the path) is there: a controller may be off."""
    for name, path in rows:
        if message.HasField(path.partition(".")[0]):
            yield Figure(f"container_{name}", {}, _getter(path)(message))


def _listed(message: Any, rows: tuple[List, ...]) -> Iterator[Figure]:
    for row in rows:
        for entry in _getter(row.path)(message):
            yield Figure(
                f"container_{row.name}", {label: str(getattr(entry, field)) for label, field in row.labels}, getattr(entry, row.value)
            )
