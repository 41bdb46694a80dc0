"""The real ``ctr``, 2.1 and 1.6, as a new user tries it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock.testing import images, leakcheck
from pydock.testing import registry as registries

pytestmark = pytest.mark.root

Ctr = Any
FOREVER = ("sleep", "1000")


def read_until(fd: int, wanted: bytes, seconds: float = 20) -> bytes:
    """Return what comes from ``fd`` up to and with ``wanted``. Raises TimeoutError with what came instead."""
    seen = b""
    end = time.monotonic() + seconds
    while wanted not in seen:
        readable, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
        chunk = os.read(fd, 65536) if readable else b""
        if not chunk:
            raise TimeoutError(f"{wanted!r} did not come; this did: {seen!r}")
        seen += chunk
    return seen


def test_version_and_plugins_are_told_and_no_plugin_has_failed(ctr: Ctr) -> None:
    assert "Server:" in ctr("version")
    rows = ctr.rows("plugins", "ls")
    assert ["io.containerd.snapshotter.v1", "overlayfs"] in [row[:2] for row in rows]
    assert [row for row in rows if row[-1] not in ("ok", "skip")] == []


def test_namespaces_are_made_labelled_listed_and_removed(ctr: Ctr) -> None:
    name = f"{ctr.namespace}-made"
    ctr("namespaces", "create", name, "a=b")
    ctr("namespaces", "label", name, "c=d")
    [row] = [row for row in ctr.rows("namespaces", "ls") if row[0] == name]
    assert "a=b" in " ".join(row)
    assert "c=d" in " ".join(row)
    assert "already exists" in ctr("namespaces", "create", name, status=1, errors=True)
    ctr("namespaces", "rm", name)
    assert name not in [row[0] for row in ctr.rows("namespaces", "ls")]


def test_an_image_is_pulled_listed_checked_tagged_and_removed(ctr: Ctr, reference: str) -> None:
    [row] = [row for row in ctr.rows("images", "ls") if row[0] == reference]
    assert row[2].startswith("sha256:")
    assert "complete (" in ctr("images", "check", f"name=={reference}")
    ctr("images", "tag", reference, "docker.io/library/again:1")
    assert "docker.io/library/again:1" in ctr("images", "ls", "-q").split()
    if ctr.new:  # its tag goes through the transfer service, which replaces
        ctr("images", "tag", reference, "docker.io/library/again:1")
    else:
        assert "already exists" in ctr("images", "tag", reference, "docker.io/library/again:1", status=1, errors=True)
    ctr("images", "rm", "docker.io/library/again:1")
    assert "docker.io/library/again:1" not in ctr("images", "ls", "-q").split()


def test_an_image_is_pulled_by_the_client_itself(ctr: Ctr, registry: registries.Registry) -> None:
    name = registry.push(images.image([images.layer({"f": ctr.namespace.encode()})]), f"compat/local-{ctr.namespace}:1")
    ctr("images", "pull", "--plain-http", *(["--local"] if ctr.new else []), name)
    assert name in ctr("images", "ls", "-q").split()


def test_an_image_that_is_not_there_is_said_so(ctr: Ctr, registry: registries.Registry) -> None:
    assert "not found" in ctr("images", "pull", "--plain-http", f"{registry.host}/compat/none:1", status=1, errors=True)
    assert "not found" in ctr("run", "--rm", "docker.io/library/none:1", "x", status=1, errors=True)


def test_an_archive_is_imported_and_exported(ctr: Ctr, tmp_path: Path) -> None:
    name = "docker.io/library/imported:1"
    image = images.image([images.layer({"f": b"x"})])
    (tmp_path / "in.tar").write_bytes(images.archive(image, name))
    ctr("images", "import", str(tmp_path / "in.tar"))
    assert name in ctr("images", "ls", "-q").split()
    ctr("images", "export", str(tmp_path / "out.tar"), name)
    listed = subprocess.run(["tar", "tf", tmp_path / "out.tar"], check=True, capture_output=True, text=True).stdout
    assert f"blobs/{image.digest.replace(':', '/')}" in listed


def test_content_is_listed_and_read(ctr: Ctr, reference: str) -> None:
    [row] = [row for row in ctr.rows("images", "ls") if row[0] == reference]
    assert row[2] in [cells[0] for cells in ctr.rows("content", "ls")]
    assert json.loads(ctr("content", "get", row[2]))["schemaVersion"] == 2
    assert "not found" in ctr("content", "get", f"sha256:{'0' * 64}", status=1, errors=True)


def test_content_is_fetched_without_an_image(ctr: Ctr, registry: registries.Registry) -> None:
    image = images.image([images.layer({"g": ctr.namespace.encode()})])
    name = registry.push(image, f"compat/fetched-{ctr.namespace}:1")
    ctr("content", "fetch", "--plain-http", name)
    assert image.digest in ctr("content", "ls", "-q").split()


def test_a_snapshot_is_prepared_mounted_committed_and_removed(ctr: Ctr, tmp_path: Path) -> None:
    [parent] = {row[0] for row in ctr.rows("snapshots", "ls") if row[-1] == "Committed" and row[0].startswith("sha256:")} & _chain(ctr)
    script = ctr("snapshots", "prepare", "--target", str(tmp_path), "work", parent)
    subprocess.run(["sh", "-c", script], check=True)
    try:
        assert (tmp_path / "bin/busybox").exists()
        (tmp_path / "added").write_text("x")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    ctr("snapshots", "commit", "kept", "work")
    assert ["kept", parent, "Committed"] in ctr.rows("snapshots", "ls")
    assert "kept" in ctr("snapshots", "tree")
    view = ctr("snapshots", "view", "--target", str(tmp_path), "seen", "kept")
    assert "mount -t" in view
    assert "mount -t" in ctr("snapshots", "mounts", str(tmp_path), "seen")
    assert "cannot remove" in ctr("snapshots", "rm", "kept", status=1, errors=True)
    for name in ("seen", "kept"):
        ctr("snapshots", "rm", name)
    assert "kept" not in [row[0] for row in ctr.rows("snapshots", "ls")]


def _chain(ctr: Ctr) -> set[str]:
    """Return the chain id of the image's one layer: its diff id."""
    return {images.digest(images.busybox_layer())}


@pytest.mark.parametrize("status", [0, 7, 255])
def test_a_container_runs_and_its_status_is_the_clients(ctr: Ctr, status: int) -> None:
    assert ctr("run", "--rm", ctr.image, "once", "sh", "-c", f"echo out; exit {status}", status=status) == "out\n"
    assert "once" not in ctr("containers", "ls", "-q").split()


def test_a_killed_container_ends_with_137(ctr: Ctr) -> None:
    with ctr.task("killed", *FOREVER) as name, ctr.background("tasks", "attach", name) as attached:
        ctr("tasks", "kill", "-s", "SIGKILL", name)
        assert attached.wait(30) == 137


def test_standard_input_reaches_the_container_and_ends(ctr: Ctr) -> None:
    data = os.urandom(300_000).hex().encode()
    assert ctr("run", "--rm", ctr.image, "piped", "md5sum", stdin=data).split()[0] == _md5(data)


def _md5(data: bytes) -> str:
    return subprocess.run(["md5sum"], input=data, capture_output=True, check=True).stdout.decode().split()[0]


def test_standard_error_is_apart(ctr: Ctr) -> None:
    ended = subprocess.run(
        ctr.argv("run", "--rm", ctr.image, "both", "sh", "-c", "echo out; echo err >&2"), capture_output=True, timeout=60, check=True
    )
    assert (ended.stdout, ended.stderr) == (b"out\n", b"err\n")


def test_a_command_that_does_not_exist_is_told_and_leaves_nothing(ctr: Ctr) -> None:
    assert "no-such-command" in ctr("run", "--rm", ctr.image, "broken", "no-such-command", status=1, errors=True)
    assert "broken" not in ctr("containers", "ls", "-q").split()
    assert "broken" not in ctr("tasks", "ls", "-q").split()


def test_environment_directory_and_mounts_are_what_was_asked_for(ctr: Ctr, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mounted")
    flags = ["--env", "A=b", "--cwd", "/var/tmp", "--mount", f"type=bind,src={tmp_path},dst=/mnt,options=rbind:ro"]
    out = ctr("run", "--rm", *flags, ctr.image, "asked", "sh", "-c", "echo $A; pwd; cat /mnt/f; touch /mnt/g 2>/dev/null || echo read-only")
    assert out == "b\n/var/tmp\nmountedread-only\n"


def test_the_user_is_who_was_asked_for(ctr: Ctr) -> None:
    if not ctr.new:
        pytest.skip("this ctr has no --user")
    assert ctr("run", "--rm", "--user", "1000", ctr.image, "user", "id", "-u") == "1000\n"


def test_a_detached_container_is_listed_entered_and_removed(ctr: Ctr) -> None:
    with ctr.task("detached", *FOREVER) as name:
        [row] = [row for row in ctr.rows("tasks", "ls") if row[0] == name]
        assert row[2] == "RUNNING"
        pid = row[1]
        assert ctr("tasks", "exec", "--exec-id", "e1", name, "sh", "-c", "echo in; exit 0") == "in\n"
        ctr("tasks", "exec", "--exec-id", "e2", name, "sh", "-c", "exit 9", status=9)
        assert pid in [row[0] for row in ctr.rows("tasks", "ps", name)]
        assert "memory" in ctr("tasks", "metrics", name)
        assert json.loads(ctr("containers", "info", name))["ID"] == name
        assert "running" in ctr("containers", "rm", name, status=1, errors=True).lower()
    assert name not in ctr("containers", "ls", "-q").split()


def test_a_task_is_paused_and_resumed(ctr: Ctr) -> None:
    with ctr.task("paused", *FOREVER) as name:
        ctr("tasks", "pause", name)
        assert [row[2] for row in ctr.rows("tasks", "ls") if row[0] == name] == ["PAUSED"]
        ctr("tasks", "resume", name)
        assert [row[2] for row in ctr.rows("tasks", "ls") if row[0] == name] == ["RUNNING"]


def test_a_task_ends_by_the_signal_it_is_sent(ctr: Ctr) -> None:
    with ctr.task("ended", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done") as name:
        with ctr.background("tasks", "attach", name) as attached:
            ctr("tasks", "kill", "-s", "SIGTERM", name)
            assert attached.wait(30) == 3
        assert name not in ctr("tasks", "ls", "-q").split(), "attach removes the task it saw end"


def test_a_stopped_task_keeps_its_status_until_it_is_removed(ctr: Ctr) -> None:
    with ctr.task("stopped", "sh", "-c", "exit 3") as name:
        leakcheck.settle(lambda: "" if [row[2] for row in ctr.rows("tasks", "ls") if row[0] == name] == ["STOPPED"] else "not stopped")
        assert "exit code 3" in ctr("tasks", "rm", name, errors=True)


def test_a_second_container_of_the_same_name_is_refused(ctr: Ctr) -> None:
    with ctr.task("twice", *FOREVER):
        assert "already exists" in ctr("run", "-d", ctr.image, "twice", *FOREVER, status=1, errors=True)
        assert [row[2] for row in ctr.rows("tasks", "ls") if row[0] == "twice"] == ["RUNNING"]


def test_events_tell_the_life_of_a_container_in_order(ctr: Ctr) -> None:
    with ctr.background("events") as watching:
        assert watching.stdout is not None
        fd = watching.stdout.fileno()
        # The subscription is proven by an event of ours before the container is begun.
        marker = f"{ctr.namespace}-marker"
        ctr("namespaces", "create", marker)
        ctr("namespaces", "rm", marker)
        read_until(fd, b"/namespaces/delete")
        ctr("run", "--rm", ctr.image, "told", "true")
        seen = read_until(fd, b"/containers/delete").decode()
    order = ["/containers/create", "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete", "/containers/delete"]
    places = [seen.index(topic) for topic in order]
    assert places == sorted(places)
    assert seen.count("/tasks/exit") == 1


@contextlib.contextmanager
def terminal(argv: list[str], rows: int, columns: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command on a terminal of its own and give its other end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    enter = ["setsid", "--ctty", *argv]
    process = subprocess.Popen(enter, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_terminal_has_its_size_and_takes_ctrl_c(ctr: Ctr) -> None:
    # The client sends the size once the task runs, so the task waits for it.
    script = "until stty size 2>/dev/null | grep '33 111'; do sleep 0.05; done; trap 'echo caught; exit 4' INT; echo ready; "
    script += "while :; do sleep 0.05; done"
    with terminal(ctr.argv("run", "--rm", "-t", ctr.image, "tty", "sh", "-c", script), 33, 111) as (process, fd):
        assert b"33 111" in read_until(fd, b"ready")
        os.write(fd, b"\x03")
        read_until(fd, b"caught")
        assert process.wait(30) == 4
