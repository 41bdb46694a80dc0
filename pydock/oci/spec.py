"""Making an OCI runtime spec: start from `default`, then one function per thing that can be asked for, each changing the spec in place.

Vocabulary: a *spec* is the JSON object of OCI runtime-spec config.md; a function that cannot do what it was asked raises InvalidArgument
and has changed nothing.
Invariants: capabilities are never inheritable or ambient; nothing here reads the host (what is the host's comes in as a parameter).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydock.base import errors
from pydock.oci import defaults

Spec = dict[str, Any]
Mount = dict[str, Any]

_MOUNT_KEYS = {
    "type": "type", "source": "source", "src": "source", "destination": "destination", "dst": "destination", "target": "destination",
}  # fmt: skip
_CAPABILITY_SETS = ("bounding", "effective", "permitted")


def default(namespace: str, identifier: str, *, unified: bool = False) -> Spec:
    """Return the spec of a container nobody said anything about; ``unified``: the host has cgroup v2 alone, of which it gets a view."""
    kinds = (*defaults.NAMESPACES, "cgroup") if unified else defaults.NAMESPACES
    return {
        "ociVersion": defaults.OCI_VERSION,
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "env": [],
            "capabilities": {kind: list(defaults.CAPABILITIES) for kind in _CAPABILITY_SETS},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": defaults.NOFILE, "soft": defaults.NOFILE}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": destination, "type": kind, "source": source, "options": list(options)}
            for destination, kind, source, options in defaults.MOUNTS
        ],
        "linux": {
            "resources": {"devices": _device_rules()},
            "cgroupsPath": posixpath.join("/", namespace, identifier),
            "namespaces": [{"type": kind} for kind in kinds],
            "maskedPaths": list(defaults.MASKED_PATHS),
            "readonlyPaths": list(defaults.READONLY_PATHS),
        },
    }


def _device_rules() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = [{"allow": False, "access": defaults.ACCESS}]
    for major, minor in defaults.DEVICES:
        rule: dict[str, Any] = {"allow": True, "type": "c", "major": major}
        rules.append(rule | ({} if minor is None else {"minor": minor}) | {"access": defaults.ACCESS})
    return rules


def image_config(spec: Spec, config: Mapping[str, Any], args: Sequence[str]) -> None:
    """Apply environment, command and directory of an image config's "config" object; ``args`` replace its command.

    Raises InvalidArgument when nothing is left to run, or the config's values have the wrong types.
    """
    env = _strings(config, "Env")
    entrypoint, command = _strings(config, "Entrypoint"), _strings(config, "Cmd")
    directory = config.get("WorkingDir") or "/"
    if not isinstance(directory, str):
        raise errors.InvalidArgument("the image's WorkingDir is not text")
    arguments(spec, list(args) if args else [*entrypoint, *command])
    process = spec["process"]
    process["env"] = merge_env(env or [defaults.PATH], process["env"])
    working_directory(spec, directory)


def _strings(config: Mapping[str, Any], key: str) -> list[str]:
    value = config.get(key) or []
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
        raise errors.InvalidArgument(f"the image's {key} is not a list of texts")
    return value


def arguments(spec: Spec, args: Sequence[str]) -> None:
    """Set what is executed. Raises InvalidArgument when that is nothing."""
    if not args or not args[0]:
        raise errors.InvalidArgument("no command: neither the image nor the call names one")
    spec["process"]["args"] = list(args)


def working_directory(spec: Spec, directory: str) -> None:
    """Set the directory to start in. Raises InvalidArgument unless absolute."""
    if not directory.startswith("/") or "\0" in directory:
        raise errors.InvalidArgument(f"working directory {directory!r} is not an absolute path")
    spec["process"]["cwd"] = directory


def merge_env(base: Iterable[str], over: Iterable[str]) -> list[str]:
    """Return ``base`` with the values of ``over``: same names replaced in place, new ones appended, "NAME" without "=" removed."""
    merged: dict[str, str] = {each.partition("=")[0]: each for each in base}
    for each in over:
        name, equals, _ = each.partition("=")
        if equals:
            merged[name] = each
        else:
            merged.pop(name, None)
    return list(merged.values())


def add_env(spec: Spec, env: Iterable[str]) -> None:
    """Add or replace environment values ("NAME=value"; "NAME" removes)."""
    spec["process"]["env"] = merge_env(spec["process"]["env"], env)


def user(spec: Spec, uid: int, gid: int, groups: Sequence[int]) -> None:
    """Set the ids of the process; its own group is always among the supplementary ones, so that a file denying it cannot be got around."""
    spec["process"]["user"] = {"uid": uid, "gid": gid, "additionalGids": [gid, *(each for each in groups if each != gid)]}


def terminal(spec: Spec, columns: int = 0, rows: int = 0) -> None:
    """Give the process a terminal, of that size when it is known."""
    process = spec["process"]
    process["terminal"] = True
    add_env(spec, [] if any(each.startswith("TERM=") for each in process["env"]) else ["TERM=xterm"])
    if columns > 0 and rows > 0:
        process["consoleSize"] = {"height": rows, "width": columns}


def parse_mount(text: str) -> Mount:
    """Return the mount of "type=bind,src=/a,dst=/b,options=rbind:ro". Raises InvalidArgument."""
    mount: Mount = {"type": "", "source": "", "destination": "", "options": []}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise errors.InvalidArgument(f"invalid mount specification {text!r}: expected key=val")
        if key == "options":
            mount["options"] = [option for option in value.split(":") if option]
        elif key in _MOUNT_KEYS:
            mount[_MOUNT_KEYS[key]] = value
        else:
            raise errors.InvalidArgument(f'mount option "{key}" not supported')
    if not mount["destination"].startswith("/"):
        raise errors.InvalidArgument(f"mount {text!r} has no absolute destination")
    if not mount["type"] and ({"bind", "rbind"} & set(mount["options"])):
        mount["type"] = "bind"
    return mount


def add_mounts(spec: Spec, mounts: Sequence[Mount]) -> None:
    """Add mounts, each in place of a default one with the same destination."""
    taken = {posixpath.normpath(mount["destination"]) for mount in mounts}
    kept = [mount for mount in spec["mounts"] if posixpath.normpath(mount["destination"]) not in taken]
    spec["mounts"] = [*kept, *mounts]


def host_network(spec: Spec) -> None:
    """Stay in the host's network namespace, with its name resolution."""
    linux = spec["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "network"]
    paths = ("/etc/hosts", "/etc/resolv.conf")
    add_mounts(spec, [{"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]} for path in paths])


def join_namespace(spec: Spec, text: str) -> None:
    """Use an existing namespace, "type:path". Raises InvalidArgument."""
    kind, colon, path = text.partition(":")
    if not colon or not path.startswith("/"):
        raise errors.InvalidArgument(f"joining a namespace takes 'type:path', not {text!r}")
    if kind not in defaults.NAMESPACE_TYPES:
        raise errors.InvalidArgument(f"there is no namespace type {kind!r}")
    linux = spec["linux"]
    others = [each for each in linux["namespaces"] if each["type"] != kind]
    linux["namespaces"] = [*others, {"type": kind, "path": path}]


def add_capabilities(spec: Spec, names: Iterable[str]) -> None:
    """Add capabilities. Raises InvalidArgument for an unknown name."""
    names = [_capability(name) for name in names]
    for kind in _CAPABILITY_SETS:
        held = spec["process"]["capabilities"][kind]
        held += [name for name in names if name not in held]


def drop_capabilities(spec: Spec, names: Iterable[str]) -> None:
    """Take capabilities away. Raises InvalidArgument for an unknown name."""
    gone = {_capability(name) for name in names}
    for kind in _CAPABILITY_SETS:
        held = spec["process"]["capabilities"][kind]
        spec["process"]["capabilities"][kind] = [name for name in held if name not in gone]


def _capability(name: str) -> str:
    if name not in defaults.ALL_CAPABILITIES:
        hint = "" if name.startswith("CAP_") else " (names begin with CAP_)"
        raise errors.InvalidArgument(f"unknown capability {name!r}{hint}")
    return name


def privileged(spec: Spec, capabilities: Sequence[str], devices: Sequence[Mapping[str, Any]]) -> None:
    """Lift the walls: the given capabilities (the caller's own), all devices of the host, writable /sys and no masks."""
    spec["process"]["capabilities"] = {kind: list(capabilities) for kind in _CAPABILITY_SETS}
    linux = spec["linux"]
    linux["maskedPaths"], linux["readonlyPaths"] = [], []
    linux["resources"]["devices"] = [{"allow": True, "access": defaults.ACCESS}]
    linux["devices"] = [dict(device) for device in devices]
    linux.pop("seccomp", None)
    for mount in spec["mounts"]:
        if mount["type"] in ("sysfs", "cgroup", "cgroup2"):
            mount["options"] = ["rw" if option == "ro" else option for option in mount["options"]]


def add_device(spec: Spec, device: Mapping[str, Any]) -> None:
    """Give one device node ({path, type, major, minor, ...}) and the right to use it."""
    linux = spec["linux"]
    linux.setdefault("devices", []).append(dict(device))
    rule = {"allow": True, "type": device["type"], "major": device["major"], "minor": device["minor"], "access": defaults.ACCESS}
    linux["resources"]["devices"].append(rule)


def memory_limit(spec: Spec, limit: int) -> None:
    """Bound the memory, in bytes."""
    spec["linux"]["resources"].setdefault("memory", {})["limit"] = limit


def cpu(spec: Spec, **values: int | str) -> None:
    """Set values of the "cpu" object: shares, quota and period (us), cpus, mems."""
    spec["linux"]["resources"].setdefault("cpu", {}).update(values)


def cpus(spec: Spec, count: float) -> None:
    """Bound the processor time to that of ``count`` processors."""
    cpu(spec, quota=int(count * defaults.CPU_PERIOD_US), period=defaults.CPU_PERIOD_US)


def open_files(spec: Spec, text: str) -> None:
    """Bound the number of open files, "soft[:hard]". Raises InvalidArgument."""
    soft, _, hard = text.partition(":")
    if not all(part.isascii() and part.isdigit() for part in (soft, hard or soft)):
        raise errors.InvalidArgument(f"{text!r} is not SOFT[:HARD]")
    others = [each for each in spec["process"]["rlimits"] if each["type"] != "RLIMIT_NOFILE"]
    spec["process"]["rlimits"] = [*others, {"type": "RLIMIT_NOFILE", "hard": int(hard or soft), "soft": int(soft)}]
