"""That the oracles see what they are there to see, on a real daemon."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from pydock.client import content
from pydock.testing import crash, leakcheck, model

pytestmark = pytest.mark.root


def test_a_lost_object_an_unexpected_one_and_other_bytes_are_told(world: crash.World) -> None:
    import io

    with world.run() as run, world.connected(run.ns) as conn:
        run.container(conn, "web", "true")
        run.check()
        run.history.allowed[run.key("container", "lost")] = frozenset({model.THERE})
        with pytest.raises(model.Broken, match="lost is absent, not there"):
            run.history.check(conn)
        del run.history.allowed[run.key("container", "lost")]
        run.history.allowed[run.key("container", "web")] = frozenset({model.ABSENT})
        with pytest.raises(model.Broken, match="web is there, not absent"):
            run.history.check(conn)
        run.history.allowed[run.key("container", "web")] = frozenset({model.THERE})
        name = content.ingest(conn, "blob", io.BytesIO(b"right"))
        file = world.daemon.root / "io.containerd.content.v1.content/blobs" / name.replace(":", "/")
        file.chmod(0o600)
        file.write_bytes(b"wrong")
        with pytest.raises(model.Broken, match=name):
            run.history.check(conn)
        content.delete(conn, name)
        run.history.check(conn)
        run.clear()


def test_a_process_nobody_knows_of_and_a_file_without_a_record_are_told(world: crash.World) -> None:
    with world.run() as run, world.connected(run.ns) as conn:
        run.container(conn, "web", "sleep", "1000")
        pid = run.create(conn, "web")
        run.start(conn, "web")
        assert model.processes(run.cgroup("web")) == {pid}
        assert model.astray(conn, "web", run.cgroup("web")) == ""
        assert "no task other" in model.astray(conn, "other", run.cgroup("web"))
        before = world.look()
        run.container(conn, "second", "sleep", "1000")
        run.create(conn, "second")
        told = before.difference(world.look())
        assert "+ processes" in told
        assert "+ sockets" in told
        assert "+ cgroups" in told
        stray = world.daemon.root / "io.containerd.content.v1.content/blobs/sha256" / ("0" * 64)
        stray.write_bytes(b"")
        assert stray.name in world.orphans()
        stray.unlink()
        run.clear()


def test_a_second_init_is_told(world: crash.World) -> None:
    with world.run() as run, world.connected(run.ns) as conn:
        for id in ("web", "other"):
            run.container(conn, id, "sleep", "1000")
            run.create(conn, id)
            run.start(conn, id)
        other = json.loads((world.daemon.state / "io.containerd.runtime.v2.task" / run.ns / "other" / "init.json").read_text())["pid"]
        before = Path(f"/sys/fs/cgroup/pids{run.cgroup('other')}/cgroup.procs")
        if not before.exists():
            pytest.skip("no cgroup v1 here")
        Path(f"/sys/fs/cgroup/pids{run.cgroup('web')}/cgroup.procs").write_text(str(other))
        assert "its inits are" in model.astray(conn, "web", run.cgroup("web"))
        before.write_text(str(other))
        os.kill(other, signal.SIGKILL)
        run.history.may_be(run.key("task", "other"), "stopped")
        run.check()
        leakcheck.settle(lambda: model.astray(conn, "other", run.cgroup("other")))
        run.clear()
