"""How a task comes to be: bundle, shim, connection, init process; all of it or nothing.

On any failure, a cancelled client's included, everything made is unmade in reverse: the init is killed by the shim or with it, the shim
ends, the bundle and the socket go, the id is free.  Nothing is waited for twice: the request to the launcher is on its way while the
spec is written.
A launcher that dies under a request may or may not have made a shim.  The socket tells: the launcher binds it before it forks, so once
the launcher is dead either nobody holds it and there never will be a shim, or a shim answers on it and is taken, never doubled.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping

from pydock.base import errors, tracing
from pydock.base.failpoint import failpoint
from pydock.core import containers, tasks
from pydock_plugins.runtime import aftermath, connection, held, options, warmth
from pydock_plugins.runtime import bundle as bundles
from pydock_plugins.runtime import launcher as launchers
from pydock_plugins.runtime.records import Phase, Process, Record
from pydock_plugins.runtime.registry import Parts
from pydock_plugins.runtime.shim import Shim
from pydock_plugins.runtime.tending import Tending

LOG = logging.getLogger(__name__)

GOODBYE_SECONDS = 3.0
FAILED = "failed to create shim task"


class Birth:
    """Makes tasks."""

    def __init__(self, parts: Parts, tending: Tending, warm: warmth.Warmth) -> None:
        self._parts = parts
        self._tending = tending
        self._warmth = warm

    @tracing.traced("task.create")
    async def create(self, ns: str, container: containers.Container, request: tasks.Creation) -> tuple[Record, int]:
        """Make the task; returns its record and the pid of its init."""
        given = request.options or container.runtime_options
        choice = options.choose(container.runtime, request.runtime_path, given)
        spec = container.spec.value if container.spec is not None else b""
        parsed = bundles.parse_spec(spec)
        record = await self._reserve(ns, container.id)
        failpoint("task.bundle")
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self._undo, record)
            with self._warmth.kept():
                await self._shim(record, choice, lambda: record.bundle.write_spec(spec, parsed))
                failpoint("task.create")
                pid = await self._init(record, request, choice)
            failpoint("task.created")
            undo.pop_all()
        record.phase = Phase.LIVE
        return record, pid

    async def _reserve(self, ns: str, id: str) -> Record:
        """Take the id; one whose last task is being seen off is waited for, since its shim still knows the bundle by its path."""
        record = Record(self._parts.bundles.at(ns, id), Phase.CREATING)
        before = self._parts.records.get(ns, id)
        if before is not None and before.phase is Phase.GONE:
            await before.left.wait()
        self._parts.records.add(record)
        try:
            self._parts.bundles.create(ns, id)
        except errors.PydockError:
            self._parts.records.remove(record)
            raise
        return record

    @tracing.traced("task.create.shim")
    async def _shim(self, record: Record, choice: options.Choice, write_spec: Callable[[], None]) -> None:
        """Start a shim for the record and connect to it; the spec is written while the launcher forks."""
        try:
            await self._ask(record, choice, write_spec)
        except launchers.Lost:
            if await self._born(record):
                return
            try:
                await self._ask(record, choice, lambda: None)
            except launchers.Lost as loss:
                raise errors.Unavailable(f"failed to start shim: {loss}") from loss
        failpoint("task.spawned")
        await self._connect(record)

    async def _ask(self, record: Record, choice: options.Choice, meanwhile: Callable[[], None]) -> None:
        record.socket = str(self._parts.sockets / secrets.token_hex(8))
        try:
            asked = record.asked = self._parts.launcher.post(self._request(record, choice))
            meanwhile()
            failpoint("task.asked")
            answer = await self._parts.launcher.answer(asked)
        except launchers.Refused as refusal:
            record.asked = None
            raise errors.Unknown(f"failed to start shim: {refusal}") from None
        self._hold(record, answer)  # while that fails, the request counts as unsettled and its shim is not forgotten
        record.asked = None

    async def _connect(self, record: Record) -> Shim:
        link = await connection.connect(record.socket, record.ns, self._tending.on_lost(record))
        record.shim = Shim(link, record.id)
        return record.shim

    async def _born(self, record: Record) -> bool:
        """Tell whether a shim came of a lost request, and take it: with the launcher dead only a shim can hold the socket open."""
        record.asked = None
        try:
            shim = await self._connect(record)
            pid = (await shim.call("Connect"))["shim_pid"]
            self._hold(record, {"pid": pid, "start_ticks": held.start_ticks(pid)})
        except errors.PydockError:
            record.let_go()
            return False
        record.bundle.write_identity(pid, held.start_ticks(pid), record.socket)
        return True

    def _request(self, record: Record, choice: options.Choice) -> Mapping[str, object]:
        parts = self._parts
        return {
            "op": "spawn",
            "namespace": record.ns,
            "id": record.id,
            "socket": record.socket,
            "bundle": str(record.bundle.path),
            "events": parts.events_address,
            "runtime": parts.runtime if choice.runtime == options.AUTO else choice.runtime,
            "runtime_root": choice.root or parts.runtime_root,
            "debug": parts.debug,
        }

    def _hold(self, record: Record, answer: Mapping[str, object]) -> None:
        pid, ticks = answer.get("pid"), answer.get("start_ticks")
        record.pidfd = held.hold(pid, ticks) if isinstance(pid, int) and isinstance(ticks, int) else -1
        if record.pidfd < 0:
            raise errors.Unavailable(f"failed to start shim: process {pid} is gone already")

    @tracing.traced("task.create.init")
    async def _init(self, record: Record, request: tasks.Creation, choice: options.Choice) -> int:
        shim = record.shim
        if shim is None:
            raise errors.Internal(f"task {record.id} has no shim")
        init = record.processes[""] = Process("", request.stdio)
        try:
            init.pid = await shim.create(str(record.bundle.path), request, choice.options)
        except errors.PydockError as error:
            if shim.alive and not isinstance(error, errors.DeadlineExceeded):
                record.processes.clear()  # the shim said no and has unmade its part
            raise type(error)(f"{FAILED}: {error.detail}" if error.detail else FAILED) from error
        return init.pid

    async def _undo(self, record: Record) -> None:
        """Unmake what was made, now or, without the descriptors for it, as soon as there are some."""
        record.phase = Phase.GONE
        try:
            await self._unmake(record)
        except OSError as error:
            LOG.warning("task %s/%s could not be made, nor unmade yet: %s", record.ns, record.id, error)
            self._tending.begin(record)

    async def _unmake(self, record: Record) -> None:
        """Unmake what was made; a shim that did not say no itself is killed, and what its runtime left is removed."""
        await self._settle_request(record)
        unclear = bool(record.processes)
        if record.pidfd >= 0:
            await _end(record, politely=not unclear)
        if unclear:
            await aftermath.clean(record.bundle)
        record.let_go()
        try:
            record.bundle.bury()
        finally:
            self._parts.records.remove(record)

    async def _settle_request(self, record: Record) -> None:
        """A request whose answer nobody took is waited for: what it made must be found to be unmade."""
        asked, record.asked = record.asked, None
        if asked is None or record.pidfd >= 0:
            return
        try:
            self._hold(record, await self._parts.launcher.answer(asked))
        except launchers.Lost:
            await self._born(record)
        except (launchers.Refused, errors.Unavailable):
            return


async def _end(record: Record, politely: bool) -> None:
    """End the record's shim: by asking, if it is to be asked, else by force."""
    if politely and record.shim is not None and record.shim.alive:
        record.shim.say("Shutdown", now=True)
        if await aftermath.ends(record.pidfd, GOODBYE_SECONDS):
            return
    held.kill(record.pidfd)
    await aftermath.ends(record.pidfd, GOODBYE_SECONDS)
