"""The Task service: what each of its 17 methods does.

Every method takes the decoded request and returns the response (``None`` for an empty one), or is a routine that does.  Refusals are
``RpcError`` with the codes and words that containerd's clients look for.
"""

from __future__ import annotations

import os

from pydock_shim import (
    cgroup,
    console,
    engine_oci,
    events,
    host,
    linux,
    loop,
    metrics,
    notify,
    process,
    rootfs,
    spec,
    state,
    std,
    stdio,
    wire,
)
from pydock_shim.std import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pydock_shim import shim
    from pydock_shim.server import Handler

    Request = dict[str, Any]

VERSION = "pydock-1"
KILL_WAIT = 10.0  # seconds for a killed process to be gone
CHECKPOINT_FLAGS = {
    "open_tcp": "--tcp-established",
    "external_unix_sockets": "--ext-unix-sk",
    "terminal": "--shell-job",
    "file_locks": "--file-locks",
}


class Task:
    """Containers of this shim by id; ``finish`` is called when Shutdown leaves nothing to do."""

    def __init__(self, main: loop.Loop, where: host.Host, terms: shim.Terms, publisher: events.Events) -> None:
        self.loop, self.host, self.terms, self.events = main, where, terms, publisher
        self.containers: dict[str, process.Container] = {}
        self.ends = process.Ends(main, publisher)
        self.watcher = notify.Watcher(main)
        self.finish = loop.Promise()
        self._creating: set[str] = set()

    def handlers(self) -> dict[str, Handler]:
        return {
            "State": self.state, "Create": self.create, "Start": self.start, "Delete": self.delete, "Pids": self.pids,
            "Pause": self.pause, "Resume": self.resume, "Checkpoint": self.checkpoint, "Kill": self.kill, "Exec": self.exec,
            "ResizePty": self.resize, "CloseIO": self.close_io, "Update": self.update, "Wait": self.wait, "Stats": self.stats,
            "Connect": self.connect, "Shutdown": self.shutdown,
        }  # fmt: skip

    def container(self, id: str) -> process.Container:
        found = self.containers.get(id)
        if found is None:
            raise state.not_found("container not created")
        return found

    # create

    def create(self, request: Request) -> loop.Routine:
        id = request["id"]
        process.check_id("container id", id)
        if id in self.containers or id in self._creating:
            raise loop.RpcError(wire.ALREADY_EXISTS, f"container {id}: already exists")
        if request["checkpoint"]:
            raise loop.RpcError(wire.UNIMPLEMENTED, "restore from a checkpoint: not implemented")
        self._creating.add(id)
        self.loop.expect()
        try:
            container = yield from self._create(id, request)
        finally:
            self.loop.expected()
            self._creating.discard(id)
        return {"pid": container.init.pid}

    def _create(self, id: str, request: Request) -> loop.Routine:
        bundle = request["bundle"]
        try:
            facts = spec.read(bundle + "/config.json")
        except ValueError as error:
            raise state.invalid(f"{bundle}/config.json: {error}") from error
        engine = self._engine(bundle, _options(request["options"]), facts)
        if engine.crun and facts.minor_at:
            spec.pin_version(bundle + "/config.json", facts.minor_at)
        container = process.Container(id, bundle, engine, request)
        container.shares_pids = not facts.own_pids
        linux.replace_file(bundle + "/runtime.json", std.dumps({"runtime": engine.path, "root": engine.root}))
        try:
            pid = yield from self._run(container.init, lambda fds, name: engine.create(id, request["rootfs"], fds, name))
        except loop.RpcError as error:
            yield from self._undo_create(container, error.code == wire.DEADLINE_EXCEEDED)
            raise _prefixed("OCI runtime create failed", error) from error
        gone = container.init.adopt(self.loop, pid)
        try:
            linux.replace_file(bundle + "/init.json", std.dumps({"pid": pid, "start_ticks": container.init.start_ticks}))
        except OSError as error:  # only a daemon that finds this shim dead would miss it
            self.loop.log(f"init.json: {error}")
        container.cgroup = cgroup.Cgroup(self.host, pid)
        self.watch_oom(container)
        self.containers[id] = container
        self.events.publish("/tasks/create", "TaskCreate", _created(container, request))
        self.ends.follow(container.init, gone)
        return container

    def watch_oom(self, container: process.Container) -> None:
        """Have TaskOOM published as it happens."""
        if container.cgroup is not None:
            container.cgroup.watch_oom(self.loop, self.watcher, lambda: self.ends.look_for_oom(container))

    def _undo_create(self, container: process.Container, killed: bool) -> loop.Routine:
        """A runtime that failed has cleaned up after itself; one that was killed for its slowness has not."""
        engine = container.engine
        if killed:
            try:
                yield from engine.call("delete", "--force", container.id)
            except loop.RpcError as error:
                self.loop.log(f"delete after create: {error.message}")
        if engine.in_host_namespace:
            rootfs.unmount_all(container.bundle + "/rootfs")

    def _engine(self, bundle: str, options: Request, facts: spec.Facts) -> engine_oci.Engine:
        wanted = options["binary_name"] or self.terms.runtime
        if wanted in ("", "auto"):
            # crun cannot have both the host's mounts as peers and a namespace without the v2 hierarchy.
            wanted = "runc" if facts.shared and self.host.cover and "runc" in self.host.runtimes else self.host.default
        known = self.host.runtimes.get(wanted)
        path = known["path"] if known else host.which(wanted)
        if not path:
            raise state.not_found(f"OCI runtime {wanted or 'crun or runc'}")
        root = f"{options['root'] or self.terms.runtime_root}/{self.terms.namespace}"
        engine = engine_oci.Engine(self.loop, self.host, path, root, bundle)
        engine.native = engine.crun and not facts.hooks
        engine.in_host_namespace = facts.shared
        engine.systemd_cgroup = options["systemd_cgroup"]
        engine.oom_score = self.terms.oom_score
        for name in ("no_pivot_root", "no_new_keyring"):
            if options[name]:
                engine.create_flags.append({"no_pivot_root": "--no-pivot", "no_new_keyring": "--no-new-keyring"}[name])
        return engine

    def _run(self, one: process.Process, call: Any) -> loop.Routine:
        """Open the streams of ``one``, let the runtime start it, take in its terminal; its pid."""
        if one.terminal:
            return (yield from self._run_on_terminal(one, call))
        streams = stdio.Streams(self.loop, one.paths, (self.terms.namespace, one.container.id))
        fds = yield from streams.open()
        one.streams = streams  # a client that has written all may say so (CloseIO) before the runtime is done
        try:
            if one.exec_id:
                streams.begin()  # the runtime creates and starts it in one
            pid = yield from call(fds, "")
        except (loop.RpcError, OSError):
            streams.close()
            raise
        streams.hand_over()
        return pid

    def _run_on_terminal(self, one: process.Process, call: Any) -> loop.Routine:
        socket = console.Socket(self.loop, one.container.bundle, one.name)
        terminal = None
        try:
            terminal = console.Terminal(self.loop, one.paths[0], one.paths[1])
            pid = yield from call((), socket.name)
            terminal.attach((yield from socket.receive()))
        except (loop.RpcError, OSError):
            if terminal is not None:
                terminal.close()
            raise
        finally:
            socket.close()
        one.console = terminal
        return pid

    # start

    def start(self, request: Request) -> loop.Routine:
        container = self.container(request["id"])
        one = container.process(request["exec_id"])
        if one.exec_id and container.init.state == "stopped":
            text = f"container {container.id} init process is not running: failed precondition"
            raise loop.RpcError(wire.FAILED_PRECONDITION, text)
        if one.starting is not None:
            raise loop.RpcError(wire.FAILED_PRECONDITION, "cannot start a running process: failed precondition")
        state.check("start", one.state)
        starting = one.starting = loop.Promise()
        try:
            yield from self._start_exec(one) if one.exec_id else self._start_init(one)
        finally:
            one.starting = None
            starting.resolve()
        return {"pid": one.pid}

    def _start_init(self, one: process.Process) -> loop.Routine:
        container = one.container
        yield container.lock.enter()
        try:
            container.check("start")
            if one.streams is not None:
                one.streams.begin()
            yield from container.engine.start(container.id)
        except loop.RpcError as error:
            raise _prefixed("OCI runtime start failed", error) from error
        finally:
            container.lock.leave()
        one.state = "running"
        self.events.publish("/tasks/start", "TaskStart", {"container_id": container.id, "pid": one.pid})

    def _start_exec(self, one: process.Process) -> loop.Routine:
        container = one.container
        container.check("exec")
        self.loop.expect()
        try:
            pid = yield from self._run(one, lambda fds, name: container.engine.exec(container.id, one.name, fds, name))
            gone = one.adopt(self.loop, pid)
        except loop.RpcError as error:
            one.state, one.status = "stopped", process.NEVER_STARTED
            one.exited.resolve()
            raise _prefixed("OCI runtime exec failed", error) from error
        finally:
            self.loop.expected()
        one.state = "running"
        told = {"container_id": container.id, "exec_id": one.exec_id, "pid": pid}
        self.events.publish("/tasks/exec-started", "TaskExecStarted", told)
        self.ends.follow(one, gone)

    # exec

    def exec(self, request: Request) -> None:
        container, exec_id = self.container(request["id"]), request["exec_id"]
        process.check_id("exec id", exec_id)
        if exec_id in container.execs:
            raise loop.RpcError(wire.ALREADY_EXISTS, f"id {exec_id}: already exists")
        container.check("exec")
        packed = request["spec"]
        try:
            wanted = std.loads(packed["value"] if packed else b"")
            wanted["terminal"] = request["terminal"]
        except (ValueError, TypeError) as error:
            raise state.invalid(f"process of exec {exec_id}: {error}") from error
        one = process.Process(container, exec_id, request)
        linux.write_file(f"{container.bundle}/{one.name}.process.json", std.dumps(wanted))
        container.execs[exec_id] = one
        self.events.publish("/tasks/exec-added", "TaskExecAdded", {"container_id": container.id, "exec_id": exec_id})

    # the end

    def kill(self, request: Request) -> None:
        container, number = self.container(request["id"]), request["signal"]
        one = container.process(request["exec_id"])
        if not one.exec_id and number == signal.SIGKILL and container.init.state == "paused" and container.cgroup is not None:
            container.cgroup.thaw()
        if request["all"] and not one.exec_id and container.cgroup is not None:
            if not 0 < number < signal.NSIG:
                raise state.invalid(f"signal {number}")
            if not container.cgroup.signal_all(number):
                raise state.not_found("process already finished")
            return
        one.signal(number)

    def wait(self, request: Request) -> loop.Routine:
        one = self.container(request["id"]).process(request["exec_id"])
        yield one.exited
        return {"exit_status": one.status, "exited_at": one.exited_at}

    def delete(self, request: Request) -> loop.Routine:
        container = self.container(request["id"])
        one = container.process(request["exec_id"])
        if one.exec_id:
            self._delete_exec(one)
        else:
            yield container.lock.enter()
            try:
                container.check("delete")
                yield from self._delete_init(container)
            finally:
                container.lock.leave()
        return {"pid": one.pid, "exit_status": one.status, "exited_at": one.exited_at}

    def _delete_exec(self, one: process.Process) -> None:
        if one.starting is not None:
            raise loop.RpcError(wire.FAILED_PRECONDITION, "cannot delete a running process: failed precondition")
        state.check("delete", one.state)
        one.close()
        for path in (f"{one.container.bundle}/{one.name}.process.json", one.record_path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        del one.container.execs[one.exec_id]

    def _delete_init(self, container: process.Container) -> loop.Routine:
        one = container.init
        if one.state == "created":
            one.doomed = True
            one.signal(signal.SIGKILL)
            if not (yield self.loop.within(KILL_WAIT, one.exited)):
                raise loop.RpcError(wire.DEADLINE_EXCEEDED, "failed to delete task: its process does not end")
        try:
            yield from self._remove(container)
        except loop.RpcError as error:
            if "does not exist" not in error.message:
                raise _prefixed("failed to delete task", error) from error
        if container.cgroup is not None:
            container.cgroup.unwatch_oom(self.loop)
        for other in container.execs.values():
            other.close()
        one.close()
        container.deleted = True
        if container.engine.in_host_namespace:
            rootfs.unmount_all(container.bundle + "/rootfs")
        del self.containers[container.id]
        told = {"container_id": container.id, "pid": one.pid, "exit_status": one.status, "exited_at": one.exited_at}
        self.events.publish("/tasks/delete", "TaskDelete", told)

    def _remove(self, container: process.Container) -> loop.Routine:
        """The runtime's part: cgroups and its own state."""
        engine, group = container.engine, container.cgroup
        if engine.native and group is not None and group.paths and (yield from self._remove_cgroup(group)):
            directory = engine.state_dir(container.id)
            try:
                for name in os.listdir(directory):
                    os.unlink(f"{directory}/{name}")
                os.rmdir(directory)
                return
            except FileNotFoundError:
                return
            except OSError as error:
                self.loop.log(f"{directory}: {error}")
        yield from engine.call("delete", "--force", container.id)

    def _remove_cgroup(self, group: cgroup.Cgroup) -> loop.Routine:
        """Whether it is gone; what is still in it (it had no pid namespace) is killed, and the kernel given a moment."""
        for pause in (0.0, 0.002, 0.01, 0.05, 0.2):
            if pause:
                group.signal_all(signal.SIGKILL)
                yield self.loop.sleep(pause)
            if group.remove():
                return True
        return False

    def shutdown(self, request: Request) -> None:
        if not self.containers and not self._creating:
            self.finish.resolve()

    # the time between

    def pause(self, request: Request) -> loop.Routine:
        container = self.container(request["id"])
        yield from self._freeze(container, "pause", "pausing", "paused")
        self.events.publish("/tasks/paused", "TaskPaused", {"container_id": container.id})

    def resume(self, request: Request) -> loop.Routine:
        container = self.container(request["id"])
        yield from self._freeze(container, "resume", "paused", "running")
        self.events.publish("/tasks/resumed", "TaskResumed", {"container_id": container.id})

    def _freeze(self, container: process.Container, verb: str, during: str, after: str) -> loop.Routine:
        yield container.lock.enter()
        try:
            container.check(verb)
            before, container.init.state = container.init.state, during
            try:
                yield from container.engine.call(verb, container.id)
            except loop.RpcError:
                after = before
                raise
            finally:
                if container.init.state != "stopped":
                    container.init.state = after
        finally:
            container.lock.leave()

    def update(self, request: Request) -> loop.Routine:
        container, packed = self.container(request["id"]), request["resources"]
        try:
            resources = std.loads(packed["value"] if packed else b"")
        except ValueError as error:
            raise state.invalid(f"resources: {error}") from error
        yield container.lock.enter()
        path = container.bundle + "/resources.json"
        try:
            container.check("update")
            linux.write_file(path, std.dumps(resources))
            yield from container.engine.call("update", "--resources", path, container.id)
        finally:
            container.lock.leave()

    def checkpoint(self, request: Request) -> loop.Routine:
        container = self.container(request["id"])
        container.check("checkpoint")
        if not host.which("criu"):
            raise loop.RpcError(wire.UNIMPLEMENTED, "checkpoint: criu is not installed on this host: not implemented")
        packed = request["options"]
        options = wire.decode("containerd.runc.v1.CheckpointOptions", packed["value"] if packed else b"")
        words = ["checkpoint", "--image-path", request["path"], "--work-path", options["work_path"] or container.bundle + "/criu-work"]
        words += [flag for name, flag in CHECKPOINT_FLAGS.items() if options[name]]
        if not options["exit"]:
            words.append("--leave-running")
        yield from container.engine.call(*words, container.id)
        told = {"container_id": container.id, "checkpoint": request["path"]}
        self.events.publish("/tasks/checkpointed", "TaskCheckpointed", told)

    def resize(self, request: Request) -> None:
        one = self.container(request["id"]).process(request["exec_id"])
        state.check("resize", one.state)
        if one.console is not None:
            one.console.resize(request["width"], request["height"])

    def close_io(self, request: Request) -> None:
        one = self.container(request["id"]).process(request["exec_id"])
        for io in (one.streams, one.console):
            if io is not None:
                io.close_stdin()

    # questions

    def state(self, request: Request) -> Request:
        container = self.container(request["id"])
        one = container.process(request["exec_id"])
        stdin, stdout, stderr = one.paths
        return {
            "id": one.exec_id or container.id,
            "bundle": container.bundle,
            "pid": one.pid,
            "status": state.NUMBERS[one.shown_state],
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
            "terminal": one.terminal,
            "exit_status": one.status,
            "exited_at": one.exited_at,
            "exec_id": one.exec_id,
        }

    def pids(self, request: Request) -> Request:
        container = self.container(request["id"])
        names = {one.pid: one.exec_id for one in container.execs.values() if one.state == "running"}
        found = []
        for pid in container.cgroup.pids() if container.cgroup is not None else ():
            info = None
            if pid in names:
                details = wire.encode("containerd.runc.v1.ProcessDetails", {"exec_id": names[pid]})
                info = {"type_url": "containerd.runc.v1.ProcessDetails", "value": details}
            found.append({"pid": pid, "info": info})
        return {"processes": found}

    def stats(self, request: Request) -> Request:
        container = self.container(request["id"])
        if container.cgroup is None or not container.cgroup.paths:
            raise state.not_found("cgroup does not exist")
        name, value = metrics.collect(container.cgroup)
        return {"stats": {"type_url": name, "value": wire.encode(name, value)}}

    def connect(self, request: Request) -> Request:
        found = self.containers.get(request["id"])
        return {"shim_pid": self.loop.subreaper, "task_pid": found.init.pid if found else 0, "version": VERSION}


def _options(packed: Request | None) -> Request:
    """runc's options, defaults where the client sent none or others."""
    known = packed is not None and packed["type_url"].rpartition("/")[2] == engine_oci.OPTIONS_URL
    try:
        return wire.decode(engine_oci.OPTIONS_URL, packed["value"] if packed and known else b"")
    except ValueError as error:
        raise state.invalid(f"runtime options: {error}") from error


def _prefixed(prefix: str, error: loop.RpcError) -> loop.RpcError:
    """The runtime's own words behind containerd's; other errors as they are."""
    return loop.RpcError(error.code, f"{prefix}: {error.message}") if isinstance(error, engine_oci.RuntimeFailed) else error


def _created(container: process.Container, request: Request) -> Request:
    io = {"stdin": request["stdin"], "stdout": request["stdout"], "stderr": request["stderr"], "terminal": request["terminal"]}
    return {
        "container_id": container.id,
        "bundle": container.bundle,
        "rootfs": request["rootfs"],
        "io": io,
        "checkpoint": request["checkpoint"],
        "pid": container.init.pid,
    }
