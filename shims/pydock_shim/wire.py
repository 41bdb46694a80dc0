"""The shim's wire: ttrpc frames and a protobuf codec driven by tables, on the standard library alone.

A *table* describes one message: field number, name, kind, repeated or not.  Tables are written as text (``MESSAGES``) and read on
first use, so that a process pays only for the messages it speaks.  A message is a ``dict`` from field name to value:

=============  ============================================  ==================
kind           Python value                                  when absent
=============  ============================================  ==================
str, bytes     ``str``, ``bytes``                            ``""``, ``b""``
bool           ``bool``                                      ``False``
i32 i64        ``int`` (enums are i32)                       ``0``
u32 u64        ``int``                                       ``0``
dbl            ``float``                                     ``0.0``
time           ``int`` nanoseconds since the epoch           ``0``
map            ``dict[str, str]``                            ``{}``
a table name   ``dict``                                      ``None``
``*kind``      ``list`` of the above                         ``[]``
=============  ============================================  ==================

``encode`` leaves out what equals its default and refuses unknown names; ``decode`` fills every field, skips unknown numbers and raises
``ValueError`` with the place of the fault on anything malformed.  The shapes of ``containerd.task.v3`` are those of v2: one set of
tables serves both.  Nothing here touches a socket.

Sources: https://protobuf.dev/programming-guides/encoding/ and the ttrpc protocol description (10 byte header: u32 length, u32 stream,
u8 type, u8 flags, big endian; at most 4 MiB of data).
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Message = dict[str, Any]
    Buffer = bytes | bytearray | memoryview

REQUEST, RESPONSE, DATA = 1, 2, 3  # frame types
MAX_DATA = 4 << 20  # bytes in one frame
HEADER = struct.Struct(">IIBB")

# gRPC status numbers used on this wire.
OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS = 0, 1, 2, 3, 4, 5, 6
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 8, 9, 12, 13, 14

TASK_SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")
EVENTS_SERVICE = "containerd.services.events.ttrpc.v1.Events"

_T, _E = "containerd.task.v2.", "containerd.events."
_C1, _C2 = "io.containerd.cgroups.v1.", "io.containerd.cgroups.v2."
_ANY, _MOUNT = "google.protobuf.Any", "containerd.types.Mount"
_NETWORK = (
    "1 name str, 2 rx_bytes u64, 3 rx_packets u64, 4 rx_errors u64, 5 rx_dropped u64, 6 tx_bytes u64, 7 tx_packets u64, "
    "8 tx_errors u64, 9 tx_dropped u64"
)
_RDMA = "1 device str, 2 hca_handles u32, 3 hca_objects u32"

# method -> (request table, response table) of the Task service, versions 2 and 3.
TASK_METHODS: dict[str, tuple[str, str]] = {
    "State": (_T + "StateRequest", _T + "StateResponse"),
    "Create": (_T + "CreateTaskRequest", _T + "CreateTaskResponse"),
    "Start": (_T + "StartRequest", _T + "StartResponse"),
    "Delete": (_T + "DeleteRequest", _T + "DeleteResponse"),
    "Pids": (_T + "PidsRequest", _T + "PidsResponse"),
    "Pause": (_T + "PauseRequest", "google.protobuf.Empty"),
    "Resume": (_T + "ResumeRequest", "google.protobuf.Empty"),
    "Checkpoint": (_T + "CheckpointTaskRequest", "google.protobuf.Empty"),
    "Kill": (_T + "KillRequest", "google.protobuf.Empty"),
    "Exec": (_T + "ExecProcessRequest", "google.protobuf.Empty"),
    "ResizePty": (_T + "ResizePtyRequest", "google.protobuf.Empty"),
    "CloseIO": (_T + "CloseIORequest", "google.protobuf.Empty"),
    "Update": (_T + "UpdateTaskRequest", "google.protobuf.Empty"),
    "Wait": (_T + "WaitRequest", _T + "WaitResponse"),
    "Stats": (_T + "StatsRequest", _T + "StatsResponse"),
    "Connect": (_T + "ConnectRequest", _T + "ConnectResponse"),
    "Shutdown": (_T + "ShutdownRequest", "google.protobuf.Empty"),
}

MESSAGES: dict[str, str] = {
    "ttrpc.Request": "1 service str, 2 method str, 3 payload bytes, 4 timeout_nano i64, 5 metadata *ttrpc.KeyValue",
    "ttrpc.Response": "1 status google.rpc.Status, 2 payload bytes",
    "ttrpc.KeyValue": "1 key str, 2 value str",
    "google.rpc.Status": f"1 code i32, 2 message str, 3 details *{_ANY}",
    "google.protobuf.Any": "1 type_url str, 2 value bytes",
    "google.protobuf.Empty": "",
    "google.protobuf.Timestamp": "1 seconds i64, 2 nanos i32",
    "map": "1 key str, 2 value str",
    "containerd.types.Mount": "1 type str, 2 source str, 3 target str, 4 options *str",
    "containerd.types.Envelope": f"1 timestamp time, 2 namespace str, 3 topic str, 4 event {_ANY}",
    "containerd.services.events.ttrpc.v1.ForwardRequest": "1 envelope containerd.types.Envelope",
    "containerd.v1.types.ProcessInfo": f"1 pid u32, 2 info {_ANY}",
    "containerd.v1.types.Process": "1 container_id str, 2 id str, 3 pid u32, 4 status i32, 5 stdin str, 6 stdout str, 7 stderr str, "
    "8 terminal bool, 9 exit_status u32, 10 exited_at time",
    "containerd.types.RuntimeInfo": f"1 name str, 2 version containerd.types.RuntimeVersion, 3 options {_ANY}, 4 features {_ANY}",
    "containerd.types.RuntimeVersion": "1 version str, 2 revision str",
    "containerd.runc.v1.ProcessDetails": "1 exec_id str",
    "containerd.runc.v1.Options": "1 no_pivot_root bool, 2 no_new_keyring bool, 3 shim_cgroup str, 4 io_uid u32, 5 io_gid u32, "
    "6 binary_name str, 7 root str, 9 systemd_cgroup bool, 10 criu_image_path str, 11 criu_work_path str, 12 task_api_address str, "
    "13 task_api_version u32",
    "containerd.runc.v1.CheckpointOptions": "1 exit bool, 2 open_tcp bool, 3 external_unix_sockets bool, 4 terminal bool, "
    "5 file_locks bool, 6 empty_namespaces *str, 7 cgroups_mode str, 8 image_path str, 9 work_path str, 10 parent_path str",
    _T + "StateRequest": "1 id str, 2 exec_id str",
    _T + "StateResponse": "1 id str, 2 bundle str, 3 pid u32, 4 status i32, 5 stdin str, 6 stdout str, 7 stderr str, 8 terminal bool, "
    "9 exit_status u32, 10 exited_at time, 11 exec_id str",
    _T + "CreateTaskRequest": f"1 id str, 2 bundle str, 3 rootfs *{_MOUNT}, 4 terminal bool, 5 stdin str, 6 stdout str, 7 stderr str, "
    f"8 checkpoint str, 9 parent_checkpoint str, 10 options {_ANY}",
    _T + "CreateTaskResponse": "1 pid u32",
    _T + "StartRequest": "1 id str, 2 exec_id str",
    _T + "StartResponse": "1 pid u32",
    _T + "DeleteRequest": "1 id str, 2 exec_id str",
    _T + "DeleteResponse": "1 pid u32, 2 exit_status u32, 3 exited_at time",
    _T + "PidsRequest": "1 id str",
    _T + "PidsResponse": "1 processes *containerd.v1.types.ProcessInfo",
    _T + "PauseRequest": "1 id str",
    _T + "ResumeRequest": "1 id str",
    _T + "CheckpointTaskRequest": f"1 id str, 2 path str, 3 options {_ANY}",
    _T + "KillRequest": "1 id str, 2 exec_id str, 3 signal u32, 4 all bool",
    _T + "ExecProcessRequest": f"1 id str, 2 exec_id str, 3 terminal bool, 4 stdin str, 5 stdout str, 6 stderr str, 7 spec {_ANY}",
    _T + "ExecProcessResponse": "",
    _T + "ResizePtyRequest": "1 id str, 2 exec_id str, 3 width u32, 4 height u32",
    _T + "CloseIORequest": "1 id str, 2 exec_id str, 3 stdin bool",
    _T + "UpdateTaskRequest": f"1 id str, 2 resources {_ANY}, 3 annotations map",
    _T + "WaitRequest": "1 id str, 2 exec_id str",
    _T + "WaitResponse": "1 exit_status u32, 2 exited_at time",
    _T + "StatsRequest": "1 id str",
    _T + "StatsResponse": f"1 stats {_ANY}",
    _T + "ConnectRequest": "1 id str",
    _T + "ConnectResponse": "1 shim_pid u32, 2 task_pid u32, 3 version str",
    _T + "ShutdownRequest": "1 id str, 2 now bool",
    _E + "TaskIO": "1 stdin str, 2 stdout str, 3 stderr str, 4 terminal bool",
    _E + "TaskCreate": f"1 container_id str, 2 bundle str, 3 rootfs *{_MOUNT}, 4 io {_E}TaskIO, 5 checkpoint str, 6 pid u32",
    _E + "TaskStart": "1 container_id str, 2 pid u32",
    _E + "TaskExit": "1 container_id str, 2 id str, 3 pid u32, 4 exit_status u32, 5 exited_at time",
    _E + "TaskDelete": "1 container_id str, 2 pid u32, 3 exit_status u32, 4 exited_at time, 5 id str",
    _E + "TaskOOM": "1 container_id str",
    _E + "TaskExecAdded": "1 container_id str, 2 exec_id str",
    _E + "TaskExecStarted": "1 container_id str, 2 exec_id str, 3 pid u32",
    _E + "TaskPaused": "1 container_id str",
    _E + "TaskResumed": "1 container_id str",
    _E + "TaskCheckpointed": "1 container_id str, 2 checkpoint str",
    _C1 + "Metrics": f"1 hugetlb *{_C1}HugetlbStat, 2 pids {_C1}PidsStat, 3 cpu {_C1}CPUStat, 4 memory {_C1}MemoryStat, "
    f"5 blkio {_C1}BlkIOStat, 6 rdma {_C1}RdmaStat, 7 network *{_C1}NetworkStat, 8 cgroup_stats {_C1}CgroupStats, "
    f"9 memory_oom_control {_C1}MemoryOomControl",
    _C1 + "HugetlbStat": "1 usage u64, 2 max u64, 3 failcnt u64, 4 pagesize str",
    _C1 + "PidsStat": "1 current u64, 2 limit u64",
    _C1 + "CPUStat": f"1 usage {_C1}CPUUsage, 2 throttling {_C1}Throttle",
    _C1 + "CPUUsage": "1 total u64, 2 kernel u64, 3 user u64, 4 per_cpu *u64",
    _C1 + "Throttle": "1 periods u64, 2 throttled_periods u64, 3 throttled_time u64",
    _C1 + "MemoryStat": "1 cache u64, 2 rss u64, 3 rss_huge u64, 4 mapped_file u64, 5 dirty u64, 6 writeback u64, 7 pg_pg_in u64, "
    "8 pg_pg_out u64, 9 pg_fault u64, 10 pg_maj_fault u64, 11 inactive_anon u64, 12 active_anon u64, 13 inactive_file u64, "
    "14 active_file u64, 15 unevictable u64, 16 hierarchical_memory_limit u64, 17 hierarchical_swap_limit u64, 18 total_cache u64, "
    "19 total_rss u64, 20 total_rss_huge u64, 21 total_mapped_file u64, 22 total_dirty u64, 23 total_writeback u64, "
    "24 total_pg_pg_in u64, 25 total_pg_pg_out u64, 26 total_pg_fault u64, 27 total_pg_maj_fault u64, 28 total_inactive_anon u64, "
    "29 total_active_anon u64, 30 total_inactive_file u64, 31 total_active_file u64, 32 total_unevictable u64, "
    f"33 usage {_C1}MemoryEntry, 34 swap {_C1}MemoryEntry, 35 kernel {_C1}MemoryEntry, 36 kernel_tcp {_C1}MemoryEntry",
    _C1 + "MemoryEntry": "1 limit u64, 2 usage u64, 3 max u64, 4 failcnt u64",
    _C1 + "MemoryOomControl": "1 oom_kill_disable u64, 2 under_oom u64, 3 oom_kill u64",
    _C1 + "BlkIOStat": f"1 io_service_bytes_recursive *{_C1}BlkIOEntry, 2 io_serviced_recursive *{_C1}BlkIOEntry, "
    f"3 io_queued_recursive *{_C1}BlkIOEntry, 4 io_service_time_recursive *{_C1}BlkIOEntry, "
    f"5 io_wait_time_recursive *{_C1}BlkIOEntry, 6 io_merged_recursive *{_C1}BlkIOEntry, 7 io_time_recursive *{_C1}BlkIOEntry, "
    f"8 sectors_recursive *{_C1}BlkIOEntry",
    _C1 + "BlkIOEntry": "1 op str, 2 device str, 3 major u64, 4 minor u64, 5 value u64",
    _C1 + "RdmaStat": f"1 current *{_C1}RdmaEntry, 2 limit *{_C1}RdmaEntry",
    _C1 + "RdmaEntry": _RDMA,
    _C1 + "NetworkStat": _NETWORK,
    _C1 + "CgroupStats": "1 nr_sleeping u64, 2 nr_running u64, 3 nr_stopped u64, 4 nr_uninterruptible u64, 5 nr_io_wait u64",
    _C2 + "Metrics": f"1 pids {_C2}PidsStat, 2 cpu {_C2}CPUStat, 4 memory {_C2}MemoryStat, 5 rdma {_C2}RdmaStat, 6 io {_C2}IOStat, "
    f"7 hugetlb *{_C2}HugeTlbStat, 8 memory_events {_C2}MemoryEvents, 9 network *{_C2}NetworkStat",
    _C2 + "PSIData": "1 avg10 dbl, 2 avg60 dbl, 3 avg300 dbl, 4 total u64",
    _C2 + "PSIStats": f"1 some {_C2}PSIData, 2 full {_C2}PSIData",
    _C2 + "PidsStat": "1 current u64, 2 limit u64",
    _C2 + "CPUStat": "1 usage_usec u64, 2 user_usec u64, 3 system_usec u64, 4 nr_periods u64, 5 nr_throttled u64, 6 throttled_usec u64, "
    f"7 psi {_C2}PSIStats, 8 nr_bursts u64, 9 burst_usec u64",
    _C2 + "MemoryStat": "1 anon u64, 2 file u64, 3 kernel_stack u64, 4 slab u64, 5 sock u64, 6 shmem u64, 7 file_mapped u64, "
    "8 file_dirty u64, 9 file_writeback u64, 10 anon_thp u64, 11 inactive_anon u64, 12 active_anon u64, 13 inactive_file u64, "
    "14 active_file u64, 15 unevictable u64, 16 slab_reclaimable u64, 17 slab_unreclaimable u64, 18 pgfault u64, 19 pgmajfault u64, "
    "20 workingset_refault u64, 21 workingset_activate u64, 22 workingset_nodereclaim u64, 23 pgrefill u64, 24 pgscan u64, "
    "25 pgsteal u64, 26 pgactivate u64, 27 pgdeactivate u64, 28 pglazyfree u64, 29 pglazyfreed u64, 30 thp_fault_alloc u64, "
    "31 thp_collapse_alloc u64, 32 usage u64, 33 usage_limit u64, 34 swap_usage u64, 35 swap_limit u64, 36 max_usage u64, "
    f"37 swap_max_usage u64, 38 psi {_C2}PSIStats",
    _C2 + "MemoryEvents": "1 low u64, 2 high u64, 3 max u64, 4 oom u64, 5 oom_kill u64, 6 oom_group_kill u64",
    _C2 + "RdmaStat": f"1 current *{_C2}RdmaEntry, 2 limit *{_C2}RdmaEntry",
    _C2 + "RdmaEntry": _RDMA,
    _C2 + "IOStat": f"1 usage *{_C2}IOEntry, 2 psi {_C2}PSIStats",
    _C2 + "IOEntry": "1 major u64, 2 minor u64, 3 rbytes u64, 4 wbytes u64, 5 rios u64, 6 wios u64",
    _C2 + "HugeTlbStat": "1 current u64, 2 max u64, 3 pagesize str, 4 failcnt u64",
    _C2 + "NetworkStat": _NETWORK,
}

_VARINT_RANGE = {"bool": (0, 1), "u32": (0, 1 << 32), "u64": (0, 1 << 64), "i32": (-(1 << 31), 1 << 31), "i64": (-(1 << 63), 1 << 63)}
_ABSENT: dict[str, Any] = {"str": "", "bytes": b"", "bool": False, "dbl": 0.0, "u32": 0, "u64": 0, "i32": 0, "i64": 0, "time": 0}
_DOUBLE = struct.Struct("<d")


class Field:
    """One field of a table; ``kind`` is a word of the module's table or the name of another table."""

    __slots__ = ("kind", "name", "number", "repeated")

    def __init__(self, number: int, name: str, kind: str) -> None:
        self.number, self.name = number, name
        self.repeated = kind.startswith("*") or kind == "map"
        self.kind = kind.lstrip("*")


_compiled: dict[str, dict[int, Field]] = {}


def table(name: str) -> dict[int, Field]:
    """The fields of message ``name`` by number, in the order of their numbers.  ``ValueError`` for a name without a table."""
    found = _compiled.get(name)
    if found is None:
        text = MESSAGES.get(name.replace(".task.v3.", ".task.v2."))
        if text is None:
            raise ValueError(f"no table for message {name!r}")
        found = {}
        for part in text.split(", ") if text else ():
            number, field, kind = part.split(" ")
            found[int(number)] = Field(int(number), field, kind)
        _compiled[name] = found
    return found


def encode(table_name: str, value: Message) -> bytes:
    """The protobuf bytes of ``value``; fields equal to their default are left out, ``None`` too.

    ``ValueError`` for an unknown field name or a value outside its kind.
    """
    out = bytearray()
    fields = table(table_name)
    known = 0
    for field in fields.values():
        if field.name not in value:
            continue
        known += 1
        item = value[field.name]
        if item is None:
            continue
        try:
            _put(out, field, item)
        except (TypeError, AttributeError, struct.error) as error:
            raise ValueError(f"{table_name}.{field.name}: {item!r} is no {field.kind}") from error
    if known != len(value):
        unknown = set(value) - {field.name for field in fields.values()}
        raise ValueError(f"{table_name} has no field {sorted(unknown)}")
    return bytes(out)


def decode(table_name: str, data: Buffer) -> Message:
    """The message in ``data`` with every field filled in.  ``ValueError`` says what is malformed, in which message, at which byte."""
    message = _defaults(table_name)
    _read(table_name, memoryview(data), message)
    return message


def _defaults(table_name: str) -> Message:
    message: Message = {}
    for field in table(table_name).values():
        if field.kind == "map":
            message[field.name] = {}
        elif field.repeated:
            message[field.name] = []
        else:
            message[field.name] = _ABSENT.get(field.kind)
    return message


def _put_varint(out: bytearray, value: int) -> None:
    value &= 0xFFFFFFFFFFFFFFFF
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_bytes(out: bytearray, number: int, data: Buffer) -> None:
    _put_varint(out, number << 3 | 2)
    _put_varint(out, len(data))
    out += data


def _put(out: bytearray, field: Field, item: Any) -> None:
    kind, number = field.kind, field.number
    if kind == "map":
        for key, text in item.items():
            _put_bytes(out, number, encode("map", {"key": key, "value": text}))
    elif not field.repeated:
        # A negative zero is equal to the default, and yet is not it.
        if item != _ABSENT.get(kind) or (kind == "dbl" and str(item) == "-0.0"):
            _put_one(out, number, kind, item)
    elif kind in _VARINT_RANGE:
        packed = bytearray()
        for one in item:
            _put_varint(packed, _checked(kind, one))
        if packed:
            _put_bytes(out, number, packed)
    else:
        for one in item:
            _put_one(out, number, kind, one)


def _put_one(out: bytearray, number: int, kind: str, item: Any) -> None:
    if kind == "str":
        _put_bytes(out, number, item.encode())
    elif kind == "bytes":
        if not isinstance(item, (bytes, bytearray, memoryview)):
            raise TypeError
        _put_bytes(out, number, item)
    elif kind in _VARINT_RANGE:
        _put_varint(out, number << 3)
        _put_varint(out, _checked(kind, item))
    elif kind == "dbl":
        _put_varint(out, number << 3 | 1)
        out += _DOUBLE.pack(item)
    elif kind == "time":
        seconds, nanos = divmod(item, 1_000_000_000)
        _put_bytes(out, number, encode("google.protobuf.Timestamp", {"seconds": seconds, "nanos": nanos}))
    else:
        _put_bytes(out, number, encode(kind, item))


def _checked(kind: str, item: Any) -> int:
    low, high = _VARINT_RANGE[kind]
    if not isinstance(item, int):
        raise TypeError
    if kind != "bool" and not low <= item < high:
        raise ValueError(f"{item} is out of the range of {kind}")
    return int(bool(item)) if kind == "bool" else item


def _varint(data: memoryview, at: int, where: str) -> tuple[int, int]:
    value = shift = 0
    start = at
    while True:
        if at >= len(data):
            raise ValueError(f"{where}: number cut off at byte {start}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ValueError(f"{where}: number of more than 10 bytes at byte {start}")


def _wire_value(data: memoryview, at: int, wire: int, where: str) -> tuple[int | memoryview, int]:
    """The raw value that starts at ``at``: an int for wire type 0, else the bytes; and where it ends."""
    if wire == 0:
        return _varint(data, at, where)
    if wire == 2:
        size, at = _varint(data, at, where)
    elif wire in (1, 5):
        size = 8 if wire == 1 else 4
    else:
        raise ValueError(f"{where}: wire type {wire} at byte {at}")
    if size > len(data) - at:
        raise ValueError(f"{where}: {size} bytes announced at byte {at}, {len(data) - at} left")
    return data[at : at + size], at + size


def _read(table_name: str, data: memoryview, into: Message) -> None:
    fields, at = table(table_name), 0
    while at < len(data):
        key, at = _varint(data, at, table_name)
        number, wire = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"{table_name}: field number {number} at byte {at}")
        raw, at = _wire_value(data, at, wire, table_name)
        field = fields.get(number)
        if field is not None:
            _take(f"{table_name}.{field.name}", field, wire, raw, into)


def _take(where: str, field: Field, wire: int, raw: int | memoryview, into: Message) -> None:
    kind, name = field.kind, field.name
    if kind in _VARINT_RANGE:
        if isinstance(raw, int):
            number = _narrow(kind, raw)
            into[name] = [*into[name], number] if field.repeated else number
        elif wire == 2 and field.repeated:
            into[name] = into[name] + _packed(where, kind, raw)
        else:
            raise ValueError(f"{where}: wire type {wire} for {kind}")
        return
    if isinstance(raw, int) or wire != (1 if kind == "dbl" else 2):
        raise ValueError(f"{where}: wire type {wire} for {kind}")
    if kind == "map":
        entry = decode("map", raw)
        into[name][entry["key"]] = entry["value"]
    elif field.repeated:
        into[name].append(_one(where, kind, raw, None))
    else:
        into[name] = _one(where, kind, raw, into[name])


def _packed(where: str, kind: str, raw: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(raw):
        value, at = _varint(raw, at, where)
        values.append(_narrow(kind, value))
    return values


def _narrow(kind: str, value: int) -> Any:
    if kind == "u64":
        return value
    if kind == "bool":
        return value != 0
    if kind == "i64":
        return value - (1 << 64) if value >> 63 else value
    value &= 0xFFFFFFFF
    return value - (1 << 32) if kind == "i32" and value >> 31 else value


def _one(where: str, kind: str, raw: memoryview, before: Any) -> Any:
    """One value that came as bytes; a message that comes twice is merged into ``before``, as protobuf wants it."""
    if kind == "str":
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: not UTF-8") from error
    if kind == "bytes":
        return bytes(raw)
    if kind == "dbl":
        return _DOUBLE.unpack(raw)[0]
    if kind == "time":
        seconds, nanos = divmod(before or 0, 1_000_000_000)
        stamp: Message = {"seconds": seconds, "nanos": nanos}
        _read("google.protobuf.Timestamp", raw, stamp)
        return int(stamp["seconds"] * 1_000_000_000 + stamp["nanos"])
    message = _defaults(kind) if before is None else before
    _read(kind, raw, message)
    return message


def frame(stream: int, kind: int, data: Buffer, flags: int = 0) -> bytes:
    """One frame.  ``ValueError`` for more than ``MAX_DATA`` bytes."""
    if len(data) > MAX_DATA:
        raise ValueError(f"message length {len(data)} exceed maximum message size of {MAX_DATA}")
    return HEADER.pack(len(data), stream, kind, flags) + bytes(data)


def request(stream: int, service: str, method: str, payload: bytes, **more: Any) -> bytes:
    """The frame of one unary call; ``more``: ``timeout_nano``, ``metadata`` (list of {"key", "value"})."""
    return frame(stream, REQUEST, encode("ttrpc.Request", {"service": service, "method": method, "payload": payload, **more}))


def response(stream: int, payload: bytes = b"", code: int = OK, message: str = "") -> bytes:
    """The frame that answers one call, with a status unless ``code`` is OK."""
    status = {"code": code, "message": message} if code else None
    return frame(stream, RESPONSE, encode("ttrpc.Response", {"status": status, "payload": payload}))


class FrameReader:
    """Cuts a byte stream into frames.

    ``feed(data)`` yields ``(stream, kind, flags, data)``.  For a frame longer than ``MAX_DATA``, ``data`` is ``None`` and its bytes are
    thrown away as they arrive, so that a length alone costs no memory.  ``partial`` tells whether a frame has begun and not ended.
    """

    __slots__ = ("_buffer", "_skip")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0

    @property
    def partial(self) -> bool:
        return bool(self._buffer) or self._skip > 0

    def feed(self, data: Buffer) -> Iterator[tuple[int, int, int, bytes | None]]:
        buffer = self._buffer
        buffer += data
        while True:
            if self._skip:
                drop = min(self._skip, len(buffer))
                del buffer[:drop]
                self._skip -= drop
            if self._skip or len(buffer) < HEADER.size:
                return
            length, stream, kind, flags = HEADER.unpack_from(buffer)
            if length > MAX_DATA:
                del buffer[: HEADER.size]
                self._skip = length
                yield stream, kind, flags, None
                continue
            end = HEADER.size + length
            if len(buffer) < end:
                return
            body = bytes(buffer[HEADER.size : end])
            del buffer[:end]
            yield stream, kind, flags, body
