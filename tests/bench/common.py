"""Two engines side by side for the measurements here: pydockd and the real containerd, with the same client, on the same disk.

Vocabulary: a *block* is some measured calls of one engine, of which the median counts; a *round* is a block of each engine in turn, so that
what else the machine does falls on both; the *ratio* is the median over rounds of ours by the peer's (less is better, but for rates).
Roots are below ``--dir``, sockets and bundles on tmpfs as on a real machine.  Programs are taken from PYDOCK_PEERS, else ``tools/peers``.
Invariants: nothing here decides about good or bad, figures are only printed; whatever was started is gone when a script ends, also by
SIGINT or SIGTERM; daemons are asked at directories of their own, and only processes that carry their mark are ended.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydock.testing import daemon as harness
from pydock.testing import images

NAMESPACE = "pydock-bench"
IMAGE = "docker.io/library/pydock-bench:latest"
TREE = Path(__file__).resolve().parents[2]
SOURCES = ("pydock", "plugins/pydock_plugins", "shims/pydock_shim")
CONFIG = """version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{state}/containerd.sock"
"""
START_SECONDS = 20

Figures = Mapping[str, float]


class Failed(Exception):
    """A client's command failed; the text is its last line."""


def call(argv: Sequence[str | Path], seconds: float = 120) -> str:
    """Run a program and return what it printed. Raises Failed."""
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    if ended.returncode:
        said = (ended.stderr or ended.stdout).decode(errors="replace").strip()
        raise Failed(f"{' '.join(map(str, argv[5:]))}: status {ended.returncode}: {said[-400:]}")
    return ended.stdout.decode(errors="replace")


def timed(work: Callable[[], object]) -> float:
    """Return the milliseconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


class Engine:
    """One daemon with its directories; ``start`` and ``stop`` it as often as you like."""

    def __init__(self, name: str, place: Path, root: Path, programs: Path) -> None:
        self.name, self.place, self.root, self.programs = name, place, root, programs
        self.state = place / "state"
        self.address = self.state / "containerd.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._ids = (f"bench-{name}-{number}" for number in itertools.count())

    def argv(self) -> list[str]:
        """Return what starts it."""
        config = self.place / "config.toml"
        config.write_text(CONFIG.format(root=self.root, state=self.state))
        return [str(self.programs / "containerd"), "--config", str(config)]

    def begin(self) -> None:
        """Start the process, without waiting for anything."""
        environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}", harness.MARK: str(self.place)}
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True, cwd="/"
            )

    def start(self) -> None:
        """Start it and return when it takes connections. Raises Failed with the end of its log."""
        self.begin()
        self.connect().close()

    def connect(self) -> socket.socket:
        """Return a connection to its socket, asking until it listens. Raises Failed."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            link = socket.socket(socket.AF_UNIX)
            with contextlib.suppress(OSError):
                link.connect(str(self.address))
                return link
            link.close()
            time.sleep(0.001)
        raise Failed(f"{self.name} does not start:\n{(self.place / 'log').read_text(errors='replace')[-800:]}")

    def stop(self) -> None:
        """End the daemon; its shims go on."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int:
        """Return the daemon's pid."""
        if self._process is None:
            raise Failed(f"{self.name} does not run")
        return self._process.pid

    def ctr(self, *words: str, seconds: float = 120) -> str:
        """Run the real client. Raises Failed."""
        return call([self.programs / "ctr", "--address", str(self.address), "--namespace", NAMESPACE, *words], seconds)

    def fresh(self) -> str:
        """Return a new container or exec id."""
        return next(self._ids)

    def run(self) -> None:
        """Run ``true`` in a container, the way people do."""
        self.ctr("run", "--rm", IMAGE, self.fresh(), "true")

    @contextlib.contextmanager
    def idle(self, count: int = 1) -> Iterator[list[str]]:
        """Have containers that sleep while the body runs."""
        made: list[str] = []
        try:
            for _ in range(count):
                made.append(self.fresh())
                self.ctr("run", "-d", IMAGE, made[-1], "sleep", "3600")
            yield made
        finally:
            self.remove(made)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove containers and their tasks, whatever state they are in."""
        for noun, verb in (("tasks", ("rm", "-f")), ("containers", ("rm",))):
            for some in (ids[at : at + 20] for at in range(0, len(ids), 20)):
                with contextlib.suppress(Failed, subprocess.TimeoutExpired):
                    self.ctr(noun, *verb, *some, seconds=60)

    def others(self) -> list[int]:
        """Return the pids of its launcher, shims and helpers."""
        own = self._process.pid if self._process is not None else 0
        return [pid for pid in harness.strays(self.place) if pid != own]

    def tidy(self) -> None:
        """Remove every container it knows, stop it, and end what it left."""
        with contextlib.suppress(Failed, subprocess.TimeoutExpired, OSError):
            if self._process is not None:
                left = self.ctr("containers", "ls", "-q", seconds=20).split()
                self.remove(left)
        self.stop()
        harness.end_strays(self.place)


class Pydock(Engine):
    """Ours."""

    def argv(self) -> list[str]:
        """Return what starts it."""
        (self.place / "config.toml").write_text("")  # not the machine's own settings
        flags = ["--config", self.place / "config.toml", "--root", self.root, "--state", self.state, "--address", self.address]
        return [sys.executable, "-m", "pydock.daemon.main", *map(str, flags)]


@dataclasses.dataclass
class Table:
    """The figures of all rounds: metric, engine, one value a round."""

    engines: tuple[str, ...]
    rows: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)

    def add(self, engine: str, figures: Figures) -> None:
        """Take the figures of one block."""
        for metric, value in figures.items():
            self.rows.setdefault(metric, {}).setdefault(engine, []).append(value)

    def ratios(self, metric: str) -> list[float]:
        """Return ours by the peer's, round by round."""
        ours, peer = (self.rows[metric].get(name, []) for name in self.engines[:2])
        return [one / other for one, other in zip(ours, peer, strict=False) if other > 0]

    def text(self) -> str:
        """Return the table to be read."""
        lines = [["", *self.engines, "ratio", "least - largest"]]
        for metric, by_engine in self.rows.items():
            medians = [_figure(by_engine.get(name, [])) for name in self.engines]
            found = self.ratios(metric) if len(self.engines) > 1 else []
            spread = f"{min(found):.2f} - {max(found):.2f}" if found else "-"
            lines.append([metric, *medians, f"{statistics.median(found):.2f}" if found else "-", spread])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(_cells(line, widths)) for line in lines)


def _cells(line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for at, (cell, width) in enumerate(zip(line, widths, strict=True)):
        yield cell.rjust(width) if at else cell.ljust(width)


def _figure(values: Sequence[float]) -> str:
    if not values:
        return "failed"
    middle = statistics.median(values)
    return f"{middle:.0f}" if abs(middle) >= 100 else f"{middle:#.3g}"


@dataclasses.dataclass
class Bench:
    """What a script measures with: the engines, ready, and the sizes that ``--quick`` makes small."""

    engines: list[Engine]
    table: Table
    quick: bool
    scratch: Path

    def size(self, full: int, quick: int) -> int:
        """Return one of two sizes."""
        return quick if self.quick else full

    def alternate(self, rounds: int, block: Callable[[Engine], Figures]) -> None:
        """Measure a block of each engine in turn, ``rounds`` times; one that fails is said and left out from then on."""
        failed: set[str] = set()
        for turn, engine in itertools.product(range(rounds), self.engines):
            if engine.name in failed:
                continue
            if sys.stderr.isatty():
                sys.stderr.write(f"\r\033[Kround {turn + 1} of {rounds}, {engine.name} ")
            try:
                self.table.add(engine.name, block(engine))
            except (Failed, subprocess.TimeoutExpired) as error:
                failed.add(engine.name)
                print(f"{engine.name} failed: {error}", file=sys.stderr)
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")


def median(step: Callable[[], object], count: int, gap: float = 0) -> float:
    """Return the median milliseconds of ``count`` calls after one that pays for the change of engine; ``gap`` seconds before each."""
    step()
    walls = []
    for _ in range(count):
        time.sleep(gap)
        walls.append(timed(step))
    return statistics.median(walls)


def megabytes(key: str, pids: Sequence[int]) -> float:
    """Return the sum of a line of /proc/PID/smaps_rollup (proc(5)) in MB."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = re.search(rf"^{key}:\s*(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total / 1024


def programs() -> Path:
    """Return the folder of real programs, fetched where need be."""
    named = os.environ.get("PYDOCK_PEERS")
    return Path(named or subprocess.run([TREE / "tools/peers"], check=True, capture_output=True, text=True).stdout.strip())


def _options(about: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="few and small blocks, for trying things out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there as well")
    parser.add_argument("--dir", default=os.environ.get("PYDOCK_BENCH_DIR", "/var/tmp"), help="the disk that holds both roots")
    parser.add_argument("--only", choices=("pydock", "containerd"), help="measure one engine alone")
    return parser.parse_args()


@contextlib.contextmanager
def _engines(options: argparse.Namespace, scratch: Path) -> Iterator[list[Engine]]:
    found = programs()
    # A start would else pay for compiling what was edited, and where Python may write no byte code every start would.
    subprocess.run([sys.executable, "-m", "compileall", "-q", *(TREE / part for part in SOURCES)], check=True)
    os.environ["PATH"] = f"{os.environ['PATH']}:{found}"
    with contextlib.ExitStack() as stack:
        engines = []
        for kind, name in ((Pydock, "pydock"), (Engine, "containerd")):
            if options.only in (None, name):
                place = stack.enter_context(harness.place(f"bench-{name}-"))
                engines.append(kind(name, place, scratch / name, found))
                stack.callback(engines[-1].tidy)
        yield engines


def _head(bench: Bench) -> dict[str, str]:
    processor = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    machine = f"{os.cpu_count()} cores, {processor[1] if processor else os.uname().machine}, Linux {os.uname().release}"
    load = f"{os.getloadavg()[0]:.2f} at the start"
    return {"machine": machine, "load": load, "client": call([bench.engines[0].programs / "ctr", "--version"]).strip()}


@contextlib.contextmanager
def bench(about: str | None) -> Iterator[Bench]:
    """Yield both engines, started and with ``IMAGE`` in them; print the table of what was measured, then remove everything."""
    options = _options(str(about))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.geteuid() != 0:
        sys.exit("as root, please: containers need it")
    scratch = Path(tempfile.mkdtemp(prefix="pydock-bench-", dir=options.dir))
    try:
        with _engines(options, scratch) as engines:
            made = Bench(engines, Table(tuple(engine.name for engine in engines)), options.quick, scratch)
            _load(engines, scratch)
            head = _head(made)
            yield made
            print(*(f"{key:8} {value}" for key, value in head.items()), "", made.table.text(), sep="\n", flush=True)
            if options.json:
                options.json.write_text(json.dumps({"head": head, "quick": options.quick, "figures": made.table.rows}, indent=1) + "\n")
    except Failed as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    finally:
        _unmount(scratch)
        shutil.rmtree(scratch, ignore_errors=True)
        _remove_folders()


def _load(engines: Sequence[Engine], scratch: Path) -> None:
    archive = scratch / "image.tar"
    archive.write_bytes(images.archive(images.busybox(), IMAGE))
    for engine in engines:
        engine.start()
        engine.ctr("images", "import", str(archive))


def _unmount(below: Path) -> None:
    for point in reversed(harness.mount_points(below)):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def _remove_folders() -> None:
    """Runtimes leave the namespace's own, empty folders behind."""
    groups = Path("/sys/fs/cgroup")
    for folder in (*groups.glob(f"*/{NAMESPACE}"), groups / NAMESPACE, Path("/run/containerd/runc") / NAMESPACE):
        with contextlib.suppress(OSError):
            folder.rmdir()
