"""From the flags of ``run`` and ``containers create`` to a container: image, snapshot, spec, record.

Vocabulary: *flags* are the parsed options of `container_options`, by their names.
Invariants: nothing of an image decides over labels reserved for the platform; a snapshot made for a container that then could not be stored
is removed again, one that was there before is not touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from pydock.base import errors, platform
from pydock.base import labels as label_rules
from pydock.cli import hostside, signals, text
from pydock.client import anys, containers, images, leases, manifests, rootfs, snapshots, unpacking
from pydock.client.connection import Connection
from pydock.oci import defaults, seccomp, spec

F = TypeVar("F", bound=Callable[..., Any])
Flags = Mapping[str, Any]

RUNTIME = "io.containerd.runc.v2"
STOP_SIGNAL = "SIGTERM"
_RESERVED = ("containerd.io/", "io.containerd.", "pydock.")

_OPTIONS = (
    click.option("--runtime", default=RUNTIME, show_default=True, help="Runtime name or path of its shim."),
    click.option("--runc-binary", default="", help="OCI runtime the shim is to use."),
    click.option("--runc-root", default="", help="State directory of the OCI runtime."),
    click.option("--snapshotter", envvar="CONTAINERD_SNAPSHOTTER", default="", help="Snapshotter (default: the namespace's)."),
    click.option("--snapshotter-label", multiple=True, metavar="KEY=VALUE", help="Label the snapshot."),
    click.option("--platform", default="", help="Platform of the image (default: this host's)."),
    click.option("-c", "--config", default="", help="Use this runtime spec file; takes only the container's ID as argument."),
    click.option("--rootfs", is_flag=True, help="The first argument is a directory, not an image."),
    click.option("--env", multiple=True, metavar="NAME=VALUE", help="Environment value."),
    click.option("--env-file", multiple=True, help="File with environment values, one a line."),
    click.option("--mount", multiple=True, metavar="type=bind,src=SRC,dst=DST,options=rbind:ro", help="Mount."),
    click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="User name or id, group name or id."),
    click.option("--cwd", default="", help="Working directory."),
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal."),
    click.option("--hostname", default="", help="Host name."),
    click.option("--label", multiple=True, metavar="KEY=VALUE", help="Label the container."),
    click.option("--annotation", multiple=True, metavar="KEY=VALUE", help="Annotate the spec."),
    click.option("--net-host", is_flag=True, help="Use the host's network."),
    click.option("--with-ns", multiple=True, metavar="TYPE:PATH", help="Join an existing namespace."),
    click.option("--privileged", is_flag=True, help="All devices and capabilities of the host, nothing masked."),
    click.option("--allow-new-privs", is_flag=True, help="Let set-user-id programs work."),
    click.option("--cap-add", multiple=True, metavar="CAP_NAME", help="Add a capability."),
    click.option("--cap-drop", multiple=True, metavar="CAP_NAME", help="Take a capability away."),
    click.option("--seccomp", is_flag=True, help="Filter system calls by the default profile."),
    click.option("--seccomp-profile", default="", help="Filter by this JSON file instead."),
    click.option("--device", multiple=True, help="Host device, or directory of such, to add."),
    click.option("--read-only", is_flag=True, help="Root file system read-only."),
    click.option("--rootfs-propagation", default="", help="Propagation of the root mount."),
    click.option("--memory-limit", type=int, default=0, metavar="BYTES", help="Most memory."),
    click.option("--cpus", type=float, default=0, help="Most processors' worth of time."),
    click.option("--cpu-shares", type=int, default=defaults.CPU_SHARES, show_default=True, help="Weight among others."),
    click.option("--cpu-quota", type=int, default=-1, help="Quota in us of a period."),
    click.option("--cpu-period", type=int, default=0, help="Period in us."),
    click.option("--cpuset-cpus", default="", help="Processors to run on (1-2,4)."),
    click.option("--cpuset-mems", default="", help="Memory nodes to use."),
    click.option("--pids-limit", type=int, default=0, help="Most processes."),
    click.option("--rlimit-nofile", default="", metavar="SOFT[:HARD]", help="Most open files."),
    click.option("--cgroup", default=None, help='Cgroup path ("": none).'),
)


def container_options(command: F) -> F:
    """Add the options that describe a container."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Made:
    """A stored container and how to mount its root."""

    container: containers.Container
    mounts: Sequence[snapshots.Mount]


def arguments(flags: Flags, words: Sequence[str]) -> tuple[str, str, list[str]]:
    """Return (image or directory, container id, command) of a command line. Raises UsageError."""
    if flags["config"]:
        if len(words) != 1:
            raise click.UsageError("with a spec file, only the container's id is to be given")
        return "", words[0], []
    if len(words) < 2:
        raise click.UsageError("image ref must be provided" if not words else "container id must be provided")
    return words[0], words[1], list(words[2:])


def make(conn: Connection, flags: Flags, words: Sequence[str]) -> Made:
    """Make and store the container a command line describes. Raises what the daemon raises and InvalidArgument."""
    source, identifier, command = arguments(flags, words)
    if flags["config"]:
        return Made(_store(conn, flags, identifier, _json_file(flags["config"])), ())
    if flags["rootfs"]:
        document = _spec(conn, identifier, flags)
        document["root"]["path"] = str(Path(source).absolute())
        spec.image_config(document, {}, command)
        root = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _finish(document, flags, lambda wanted: rootfs.resolve(root, wanted))
        finally:
            os.close(root)
        return Made(_store(conn, flags, identifier, document), ())
    with leases.held(conn) as held:
        return _make_from_image(held, flags, source, identifier, command)


def _make_from_image(conn: Connection, flags: Flags, ref: str, identifier: str, command: list[str]) -> Made:
    snapshotter = snapshots.choose(conn, flags["snapshotter"])
    image = images.get(conn, ref)
    wanted = platform.parse(flags["platform"]) if flags["platform"] else None
    manifest = manifests.choose(conn, manifests.descriptor(image.target), wanted)
    document = manifests.config(conn, manifest)
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise errors.InvalidArgument("the image's config is not an object")
    made = _spec(conn, identifier, flags)
    spec.image_config(made, config, command)
    ids = manifests.diff_ids(document)
    chain = manifests.chain_ids(ids)[-1] if ids else ""
    mounts = _snapshot(conn, flags, (snapshotter, identifier, chain), lambda: unpacking.unpack(conn, snapshotter, manifest, ids, _told))
    try:
        _finish(made, flags, lambda user: rootfs.ids(mounts, user), str(config.get("User") or ""))
        container = containers.Container(
            image=ref, snapshotter=snapshotter, snapshot_key=identifier, labels=_image_labels(image, config),
        )  # fmt: skip
        return Made(_store(conn, flags, identifier, made, container), mounts)
    except BaseException:
        with signals.shielded(), contextlib.suppress(errors.NotFound):
            snapshots.remove(conn, snapshotter, identifier)
        raise


def _snapshot(conn: Connection, flags: Flags, names: tuple[str, str, str], unpack: Callable[[], object]) -> Sequence[snapshots.Mount]:
    """Make the container's snapshot; unpack the image first when its layers turn out not to be."""
    snapshotter, key, chain = names
    labels = text.pairs(flags["snapshotter_label"])
    try:
        return snapshots.prepare(conn, snapshotter, key, chain, labels)
    except errors.NotFound:
        unpack()
        return snapshots.prepare(conn, snapshotter, key, chain, labels)


def _told(digest: str) -> None:
    click.echo(f"unpacking {digest}", err=True)


def _image_labels(image: images.Image, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels a container takes over; what is reserved for the platform or out of bounds is left out."""
    found: dict[str, str] = {}
    given = config.get("Labels")
    for source in (given if isinstance(given, dict) else {}, image.labels):
        for key, value in source.items():
            if isinstance(key, str) and isinstance(value, str) and not key.startswith(_RESERVED):
                with contextlib.suppress(errors.InvalidArgument):
                    label_rules.check_pair(key, value)
                    found[key] = value
    stop = config.get("StopSignal")
    found[containers.STOP_SIGNAL_LABEL] = stop if isinstance(stop, str) and stop else STOP_SIGNAL
    return found


def _store(
    conn: Connection, flags: Flags, identifier: str, document: spec.Spec, container: containers.Container | None = None
) -> containers.Container:
    container = container or containers.Container()
    container.id = identifier
    for key, value in text.pairs(flags["label"]).items():
        container.labels[key] = value
    container.spec.CopyFrom(anys.pack_json(anys.SPEC, document))
    options = None
    if flags["runc_binary"] or flags["runc_root"] or flags["runtime"] == RUNTIME:
        options = containers.RuncOptions(binary_name=flags["runc_binary"], root=flags["runc_root"])
    container.runtime.CopyFrom(containers.runtime(flags["runtime"], options))
    return containers.create(conn, container)


def _json_file(path: str) -> dict[str, Any]:
    try:
        document = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise errors.InvalidArgument(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise errors.InvalidArgument(f"{path} is not a JSON object")
    return document


def _spec(conn: Connection, identifier: str, flags: Flags) -> spec.Spec:
    """Return the spec as far as it does not depend on the image."""
    made = spec.default(conn.namespace, identifier, unified=hostside.unified_cgroups())
    for path in flags["env_file"]:
        lines = Path(path).read_text().splitlines()
        spec.add_env(made, [line for line in lines if line.strip() and not line.startswith("#")])
    spec.add_env(made, flags["env"])
    spec.add_mounts(made, [spec.parse_mount(mount) for mount in flags["mount"]])
    return made


def _finish(made: spec.Spec, flags: Flags, resolve: Callable[[str], Any], image_user: str = "") -> None:
    """Apply the flags that overrule the image."""
    ids = resolve(flags["user"] or image_user)
    spec.user(made, ids.uid, ids.gid, ids.groups)
    if flags["cwd"]:
        spec.working_directory(made, flags["cwd"])
    if flags["tty"]:
        spec.terminal(made)
    if flags["read_only"]:
        made["root"]["readonly"] = True
    if flags["privileged"]:
        spec.privileged(made, hostside.capabilities(), hostside.devices())
    if flags["net_host"]:
        spec.host_network(made)
        spec.add_env(made, [f"HOSTNAME={socket.gethostname()}"])
    for path in flags["device"]:
        for device in hostside.devices(path):
            spec.add_device(made, device)
    spec.add_capabilities(made, flags["cap_add"])
    spec.drop_capabilities(made, flags["cap_drop"])
    for word in flags["with_ns"]:
        spec.join_namespace(made, word)
    if flags["allow_new_privs"]:
        made["process"]["noNewPrivileges"] = False
    if flags["seccomp"] or flags["seccomp_profile"]:
        made["linux"]["seccomp"] = _seccomp(made, flags["seccomp_profile"])
    _identity(made, flags)
    _limits(made, flags)


def _seccomp(made: spec.Spec, path: str) -> dict[str, Any]:
    if path:
        return _json_file(path)
    return seccomp.profile(made["process"]["capabilities"]["bounding"], os.uname().machine)


def _identity(made: spec.Spec, flags: Flags) -> None:
    if flags["hostname"]:
        made["hostname"] = flags["hostname"]
    if flags["rootfs_propagation"]:
        made["linux"]["rootfsPropagation"] = flags["rootfs_propagation"]
    if flags["cgroup"] is not None:
        made["linux"]["cgroupsPath"] = flags["cgroup"]
    annotations = text.pairs([*flags["annotation"], *flags["label"]])
    if annotations:
        made["annotations"] = annotations


def _limits(made: spec.Spec, flags: Flags) -> None:
    if flags["cpus"] > 0 and (flags["cpu_quota"] != -1 or flags["cpu_period"]):
        raise errors.InvalidArgument("--cpus and --cpu-quota/--cpu-period say the same twice")
    if flags["cpu_shares"] > 0:
        spec.cpu(made, shares=flags["cpu_shares"])
    if flags["cpus"] > 0:
        spec.cpus(made, flags["cpus"])
    if flags["cpu_quota"] != -1 or flags["cpu_period"]:
        spec.cpu(made, quota=flags["cpu_quota"], period=flags["cpu_period"])
    for key in ("cpus", "mems"):
        if flags[f"cpuset_{key}"]:
            spec.cpu(made, **{key: flags[f"cpuset_{key}"]})
    if flags["memory_limit"] > 0:
        spec.memory_limit(made, flags["memory_limit"])
    if flags["pids_limit"]:
        made["linux"]["resources"]["pids"] = {"limit": flags["pids_limit"]}
    if flags["rlimit_nofile"]:
        spec.open_files(made, flags["rlimit_nofile"])
