"""SIGKILL at any moment: what was acknowledged is there, what was not is wholly there or wholly absent, and nothing is left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pydock.base import digest, errors
from pydock.core import snapshots
from pydock_plugins.content import local
from pydock_plugins.snapshots import overlay

pytestmark = pytest.mark.root

SNAPSHOTS = """
import asyncio, sys
from pathlib import Path
from pydock_plugins.snapshots import overlay

async def main() -> None:
    async with overlay.opened(Path(sys.argv[1]), overlay.OverlayConfig(ahead=2)) as snapshotter:
        base, number = "", 0
        while True:
            number += 1
            await snapshotter.prepare(f"a{number}", base, {})
            print("+", f"a{number}", flush=True)
            if number % 3 == 0:
                await snapshotter.commit(f"c{number}", f"a{number}", {})
                print("=", f"a{number}", f"c{number}", flush=True)
                base = f"c{number}"
            elif number % 3 == 1:
                await snapshotter.remove(f"a{number}")
                print("-", f"a{number}", flush=True)

asyncio.run(main())
"""

CONTENT = """
import asyncio, os, sys
from pathlib import Path
from pydock_plugins.content import local

async def main() -> None:
    blobs, number = local.open_blobs(Path(sys.argv[1])), 0
    while True:
        number += 1
        writer = await blobs.writer(f"ref-{number}", 50_000)
        await writer.write(os.urandom(50_000))
        print("=", await writer.commit(50_000, "", {}), flush=True)

asyncio.run(main())
"""


def killed_after(program: str, root: Path, lines: int) -> list[list[str]]:
    """Run ``program`` on ``root``, kill it when it has said ``lines`` lines, and return all it said."""
    with subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        said += child.stdout.readlines()
    return [line.split() for line in said if line.endswith("\n")]


@pytest.mark.parametrize("lines", [1, 2, 5, 11, 40])
async def test_snapshots_and_directories_agree_after_a_kill(tmp_path: Path, lines: int) -> None:
    root = tmp_path / "overlay"
    there: dict[str, snapshots.Kind] = {}
    last = ""
    for word, key, *name in killed_after(SNAPSHOTS, root, lines):
        last = key
        if word == "+":
            there[key] = snapshots.Kind.ACTIVE
        else:
            del there[key]
        if word == "=":
            there[name[0]] = snapshots.Kind.COMMITTED
    async with overlay.opened(root, overlay.OverlayConfig(ahead=0)) as snapshotter:
        await snapshotter.cleanup()
        found = {info.name: info.kind async for info in snapshotter.walk()}
        number = int(last[1:])
        in_flight = {f"{kind}{at}" for kind in "ac" for at in (number, number + 1)}
        assert {name: kind for name, kind in found.items() if name not in in_flight} == {
            name: kind for name, kind in there.items() if name not in in_flight
        }
        ids = {str(node.id) for node in snapshotter._nodes.nodes().values()}
        assert set(os.listdir(root / "snapshots")) == ids
        assert all((root / "snapshots" / id / "fs").is_dir() for id in ids)
        await snapshotter.prepare("next", "", {})


@pytest.mark.parametrize("lines", [1, 3, 20])
async def test_blobs_are_whole_after_a_kill(tmp_path: Path, lines: int) -> None:
    root = tmp_path / "content"
    names = {line[1] for line in killed_after(CONTENT, root, lines)}
    blobs = local.open_blobs(root)
    found = {info.digest async for info in blobs.walk()}
    assert names <= found
    assert len(found - names) <= 1
    for name in found:
        assert digest.compute(await (await blobs.open(name)).read_at(0, 1 << 20)) == name
    statuses = await blobs.statuses()
    assert len(statuses) <= 1
    for status in statuses:
        writer = await blobs.writer(status.ref, status.total)
        assert writer.status().offset in (0, 50_000)
        with pytest.raises(errors.FailedPrecondition):
            await writer.commit(1, "", {})
        await blobs.abort(status.ref)
    assert os.listdir(root / "ingest") == []
