"""Exit events are published once, whatever is sent again and whoever dies between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from pydock.base import errors
from pydock.core import containers, events, tasks
from pydock_plugins.runtime import bundle, exits, intake
from pydock_plugins.runtime.records import Phase, Process, Record
from pydock_plugins.runtime.registry import Registry
from pydock_shim import wire


class Heard:
    """An exchange that remembers."""

    def __init__(self) -> None:
        self.envelopes: list[events.Envelope] = []

    def publish(self, ns: str, event: events.Event) -> None:
        raise NotImplementedError

    def publish_packed(self, ns: str, topic: str, event: containers.Any) -> None:
        raise NotImplementedError

    def forward(self, envelope: events.Envelope) -> None:
        self.envelopes.append(envelope)

    def subscribe(self, filters: Iterable[str] = ()) -> AbstractAsyncContextManager[object]:  # type: ignore[override]
        raise NotImplementedError


LATER = 1 << 62


def forwarded(topic: str, kind: str, at: int = LATER, **fields: object) -> bytes:
    name = f"containerd.events.{kind}"
    event = {"type_url": name, "value": wire.encode(name, {"container_id": "web", **fields})}
    return wire.encode(intake.FORWARD, {"envelope": {"timestamp": at, "namespace": "default", "topic": topic, "event": event}})


def exit_of(id: str, pid: int, status: int = 7, at: int = 1 << 62) -> bytes:
    return forwarded("/tasks/exit", "TaskExit", id=id, pid=pid, exit_status=status, exited_at=at)


class Daemon:
    """The parts of a daemon that events meet; a second one on the same bundle is the next daemon."""

    def __init__(self, state: Path, phase: Phase) -> None:
        self.heard = Heard()
        self.records = Registry()
        self.record = Record(bundle.Bundles(state).at("default", "web"), phase)
        self.record.processes[""] = Process("", tasks.Stdio(), tasks.Status.RUNNING, 41)
        self.records.add(self.record)
        self.intake = intake.Intake(self.records, self.heard)


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    bundle.Bundles(tmp_path).create("default", "web")
    return Daemon(tmp_path, Phase.CREATING)


async def test_an_exit_is_published_and_ends_the_process(daemon: Daemon) -> None:
    waiting = asyncio.ensure_future(daemon.record.processes[""].wait())
    await asyncio.sleep(0)
    daemon.intake.forward(exit_of("web", 41))
    assert (await waiting).status == 7
    assert daemon.record.processes[""].status is tasks.Status.STOPPED
    assert [envelope.topic for envelope in daemon.heard.envelopes] == ["/tasks/exit"]


async def test_an_exit_sent_again_is_acknowledged_and_dropped(daemon: Daemon) -> None:
    for _ in range(3):
        assert daemon.intake.forward(exit_of("web", 41)) == b""
    assert len(daemon.heard.envelopes) == 1


async def test_the_next_daemon_drops_what_this_one_published_and_publishes_what_it_did_not(daemon: Daemon, tmp_path: Path) -> None:
    daemon.intake.forward(exit_of("web", 41))
    after = Daemon(tmp_path, Phase.LOADING)
    after.intake.forward(exit_of("web", 41))
    after.intake.forward(exit_of("job", 42))
    assert [len(after.heard.envelopes), len(daemon.heard.envelopes)] == [1, 1]


async def test_an_exec_that_reuses_an_id_has_an_exit_of_its_own(daemon: Daemon) -> None:
    daemon.record.processes["job"] = Process("job", tasks.Stdio(), tasks.Status.RUNNING, 50)
    daemon.intake.forward(exit_of("job", 50, 1, 1 << 61))
    daemon.record.processes["job"] = Process("job", tasks.Stdio(), tasks.Status.RUNNING, 51)
    daemon.intake.forward(exit_of("job", 50, 1, 1 << 61))
    assert daemon.record.processes["job"].end is None
    daemon.intake.forward(exit_of("job", 51, 2))
    assert daemon.record.processes["job"].end is not None
    assert len(daemon.heard.envelopes) == 2


async def test_an_answer_to_start_after_the_exit_does_not_make_a_process_run_again(daemon: Daemon) -> None:
    process = daemon.record.processes["job"] = Process("job", tasks.Stdio())
    daemon.intake.forward(exit_of("job", 60, 0))
    process.started(60)
    assert process.status is tasks.Status.STOPPED


async def test_the_daemon_speaks_for_a_dead_shim_once(daemon: Daemon) -> None:
    end = tasks.Exit("web", 41, 137, 99)
    daemon.intake.exit(daemon.record, daemon.record.processes[""], end)
    daemon.intake.exit(daemon.record, daemon.record.processes[""], end)
    assert len(daemon.heard.envelopes) == 1
    fields = wire.decode(intake.EXIT, daemon.heard.envelopes[0].event.value)
    assert (fields["container_id"], fields["id"], fields["exit_status"], fields["exited_at"]) == ("web", "web", 137, 99)


async def test_pausing_is_seen_in_the_record(daemon: Daemon) -> None:
    daemon.intake.forward(forwarded("/tasks/paused", "TaskPaused"))
    assert daemon.record.processes[""].status is tasks.Status.PAUSED
    daemon.intake.forward(forwarded("/tasks/resumed", "TaskResumed"))
    assert daemon.record.processes[""].status is tasks.Status.RUNNING


async def test_what_happened_before_the_daemon_is_published_when_listeners_had_time_to_come_back(daemon: Daemon) -> None:
    old = forwarded("/tasks/oom", "TaskOOM", at=5)
    with pytest.raises(errors.Unavailable):
        daemon.intake.forward(old)
    daemon.intake.forward(exit_of("web", 41))
    daemon.intake._opens = 0
    await daemon.intake.opened()
    daemon.intake.forward(old)
    assert [envelope.topic for envelope in daemon.heard.envelopes] == ["/tasks/exit", "/tasks/oom"]


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x0a\x00", exit_of("web", 41)[:-3]])
async def test_a_malformed_event_is_an_invalid_argument_and_tells_nobody(daemon: Daemon, payload: bytes) -> None:
    with pytest.raises(errors.InvalidArgument):
        daemon.intake.forward(payload)
    assert daemon.heard.envelopes == []


async def test_an_event_of_an_unknown_task_is_forwarded(tmp_path: Path) -> None:
    heard = Heard()
    intake.Intake(Registry(), heard).forward(exit_of("web", 41))
    assert len(heard.envelopes) == 1


def test_a_damaged_list_of_published_exits_keeps_its_good_lines(tmp_path: Path) -> None:
    (tmp_path / "published").write_bytes(b"12 34 \n\xff\xff\nnonsense\n5 x job\n7 8 job\n12")
    published = exits.Published(tmp_path / "published", fresh=False)
    assert ("", 12, 34) in published
    assert ("job", 7, 8) in published
    assert ("job", 5, 0) not in published


def test_a_note_on_a_bundle_that_is_gone_is_no_error(tmp_path: Path) -> None:
    published = exits.Published(tmp_path / "gone" / "published", fresh=False)
    published.add(("", 1, 2))
    assert ("", 1, 2) in published
