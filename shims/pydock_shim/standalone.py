"""``containerd-shim-pydock-v1``: the shim under a real containerd, by its runtime v2 protocol.

``[-namespace NS] [-id ID] [-address A] [-publish-binary B] [-bundle DIR] [-debug] start|delete``, ``-v``, ``-info``.

- ``start`` (in the bundle's directory) prints the address of a listening shim as plain text, ``unix://PATH``, which every containerd takes.
  A container of a pod gets the address of its sandbox's shim.  Events go to the socket in ``TTRPC_ADDRESS``.
- ``delete`` is for when the shim is gone: it kills what is left of the container, removes its cgroups, runtime state, mounts and
  socket, and prints a DeleteResponse.  It finds the runtime in ``runtime.json``, the init in ``init.json`` and the socket in ``address``
  of the bundle; without them there is nothing to do.  pydock's daemon uses it as well.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import time

from pydock_shim import engine_oci, host, linux, loop, monitor, requests, rootfs, server, service, shim, spec, std, wire
from pydock_shim.std import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "io.containerd.pydock.v1"
FLAGS = {"namespace": "", "id": "", "address": "", "publish-binary": "", "bundle": "", "socket": ""}
SWITCHES = ("debug", "v", "info")
GROUPS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
SOCKETS = "/run/containerd/s"
KILL_WAIT = 10_000  # ms for a killed init to be gone
KILLED = 128 + 9


def main(words: list[str]) -> int:
    """Run the command line; its exit status."""
    try:
        flags, switches, action = parse(words)
        if "v" in switches:
            os.write(1, f"{sys.argv[0]}:\n  Version:  {service.VERSION}\n".encode())
        elif "info" in switches:
            info = {"name": NAME, "version": {"version": service.VERSION}}
            os.write(1, wire.encode("containerd.types.RuntimeInfo", info))
        elif action == "start":
            os.write(1, start(flags).encode())
        elif action == "delete":
            os.write(1, wire.encode(wire.TASK_METHODS["Delete"][1], delete(flags)))
        else:
            raise ValueError(f"unknown action {action!r}, it is start or delete")
    except (ValueError, OSError, loop.RpcError) as error:
        os.write(2, f"{error}\n".encode())
        return 1
    return 0


def parse(words: list[str]) -> tuple[dict[str, str], set[str], str]:
    """Flags with values, switches, and the action, as Go's flag package reads them (one or two dashes, ``=`` or the next word)."""
    flags, switches, action = dict(FLAGS), set(), ""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            action = action or word
            continue
        name, has_value, value = word.lstrip("-").partition("=")
        if name in SWITCHES:
            if value not in ("false", "0"):
                switches.add(name)
        elif name in flags and (has_value or rest):
            flags[name] = value if has_value else rest.pop(0)
        else:
            raise ValueError(f"unknown flag {word!r}")
    return flags, switches, action


def start(flags: dict[str, str]) -> str:
    """Fork a shim for the bundle in the working directory, or find its pod's; the address."""
    bundle = flags["bundle"] or os.getcwd()
    group = _group(bundle + "/config.json")
    if group and group != flags["id"]:
        address = _running(f"{os.path.dirname(bundle)}/{group}/address")
        if address:
            linux.replace_file(bundle + "/address", address.encode())
            return address
    os.makedirs(SOCKETS, 0o711, exist_ok=True)
    request = {
        "namespace": flags["namespace"],
        "id": flags["id"],
        "socket": f"{SOCKETS}/{os.urandom(16).hex()}",
        "bundle": bundle,
        "runtime_root": f"{os.path.dirname(flags['address']) or '/run/containerd'}/pydock",
        "runtime": "",
        "events": os.environ.get("TTRPC_ADDRESS", "").removeprefix("unix://"),
    }
    where = host.Host()
    listener = server.listen(request["socket"])
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        try:
            if os.fork() == 0:
                linux.prctl(linux.PR_SET_NAME, shim.NAME)
                requests.write_identity(request, os.getpid())
                score = requests.protect("/proc/self/oom_score_adj")
                os.write(writer, b"1")
                os.setsid()
                shim.settle(listener.fileno())
                os.dup2(0, 2)
                where.probe()  # only now: it keeps descriptors, and settling closes all but one
                terms = shim.Terms(*[request.get(name, score) for name in shim.TERMS])
                monitor.run(where, shim.packed(terms), listener.fileno())
        finally:
            os._exit(0)
    os.close(writer)
    if not os.read(reader, 1):
        raise ValueError("the shim died before it was up")
    return "unix://" + request["socket"]


def _group(config: str) -> str:
    with open(config, "rb", buffering=0) as file:
        annotations: dict[str, str] = std.loads(file.read(spec.LIMIT)).get("annotations") or {}
    return next((annotations[name] for name in GROUPS if name in annotations), "")


def _running(file: str) -> str:
    """The address in ``file`` if somebody listens there, else ""."""
    try:
        address = linux.read_text(file).strip()
    except OSError:
        return ""
    peer = std.stream_socket()
    result = peer.connect_ex(address.removeprefix("unix://"))
    peer.close()
    return "" if result else address


def delete(flags: dict[str, str]) -> dict[str, Any]:
    """Clean up after a container whose shim is gone; the fields of a DeleteResponse."""
    bundle = flags["bundle"] or f"{os.path.dirname(os.getcwd())}/{flags['id']}"
    init = read_json(bundle + "/init.json")
    pid = int(init.get("pid", 0))
    kill(pid, int(init.get("start_ticks", 0)))
    known = read_json(bundle + "/runtime.json")
    if known:
        _delete_with_runtime(bundle, flags["id"], known)
    rootfs.unmount_all(bundle + "/rootfs")
    remove_socket(bundle + "/address")
    ended = read_json(bundle + "/exit.json")
    status, at = ended.get("status", KILLED), ended.get("exited_at_ns", time.time_ns())
    return {"pid": pid, "exit_status": status, "exited_at": at}


def remove_socket(file: str) -> None:
    """Remove the socket that ``start`` made and ``file`` names, if nobody listens there any more; the shim of a pod may still."""
    try:
        path = linux.read_text(file).strip().removeprefix("unix://")
        if os.path.dirname(path) == SOCKETS and not _running(file) and stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except OSError:
        return


def read_json(path: str) -> dict[str, Any]:
    """A file of one JSON object; {} where there is none or it is torn."""
    try:
        value = std.loads(linux.read_text(path))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def kill(pid: int, ticks: int) -> None:
    """Kill process ``pid`` if it is the one that began at ``ticks``, and see it gone."""
    if pid <= 0:
        return
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if linux.start_ticks(pid) == ticks:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            gone = select.poll()
            gone.register(fd, select.POLLIN)
            gone.poll(KILL_WAIT)
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def _delete_with_runtime(bundle: str, id: str, known: dict[str, Any]) -> None:
    main = loop.Loop(lambda line: None)
    main.watch_children()
    engine = engine_oci.Engine(main, host.Host(), str(known["runtime"]), str(known["root"]), bundle)
    if not os.path.isdir(engine.state_dir(id)):
        return
    done = main.start(engine.call("delete", "--force", id))
    while not done.done:
        main.turn(1.0)
    if done.error is not None:
        raise done.error
