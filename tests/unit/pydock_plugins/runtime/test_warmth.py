"""Tests of paying ahead for the entry into cgroups, on a /proc and a hierarchy made of plain files."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydock_plugins.runtime.warmth import Warmth


class Counted(Warmth):
    """Counts what it writes."""

    def __init__(self, proc: Path) -> None:
        super().__init__(proc)
        self.writes = 0
        self.third = asyncio.Event()
        self._main = asyncio.get_running_loop()

    def write(self) -> None:
        super().write()
        self.writes += 1
        if self.writes == 3:
            self._main.call_soon_threadsafe(self.third.set)


def host(folder: Path, kind: str) -> Path:
    """Return a /proc/self whose only cgroup hierarchy is of ``kind``; the process is in its group /here."""
    (folder / "mount/here").mkdir(parents=True)
    (folder / "mount/here/cgroup.procs").write_text("")
    (folder / "mountinfo").write_text(f"30 20 0:25 / {folder}/mount rw shared:9 - {kind} none rw,cpu,cpuacct\n")
    (folder / "cgroup").write_text("3:cpu,cpuacct:/here\n")
    return folder


async def settled(warm: Warmth) -> None:
    """Wait for the write that is under way."""
    if warm._pending is not None:
        await warm._pending


async def test_the_process_is_written_into_the_cgroup_it_is_in_already(tmp_path: Path) -> None:
    warm = Counted(host(tmp_path, "cgroup"))
    warm.stir()
    await settled(warm)
    assert (tmp_path / "mount/here/cgroup.procs").read_text() == "0"


async def test_it_is_done_again_while_a_runtime_is_at_work_and_no_more_afterwards(tmp_path: Path) -> None:
    warm = Counted(host(tmp_path, "cgroup"))
    with warm.kept():
        await asyncio.wait_for(warm.third.wait(), 10)
    await settled(warm)
    done = warm.writes
    warm._again()
    assert warm._pending is None
    assert warm.writes == done


async def test_two_runtimes_at_work_share_one_writer(tmp_path: Path) -> None:
    warm = Counted(host(tmp_path, "cgroup"))
    with warm.kept(), warm.kept():
        first = warm._pending
        warm.stir()
        assert warm._pending is first
    await settled(warm)
    assert warm.writes == 1


async def test_nothing_is_written_on_a_host_without_cgroup_v1(tmp_path: Path) -> None:
    warm = Counted(host(tmp_path, "cgroup2"))
    with warm.kept():
        assert warm._pending is None
    assert warm.writes == 0
