"""The ``pydockd`` command: flags, the claim on the directories, and the event loop.

Order matters for the time from exec to the first answer: the directories are claimed, then early makers run (the launcher is a
process of its own and starts while this one goes on), then the loop, the plugins and last grpc are imported.
Exit status: 0 after a graceful stop, 1 for a failure said on standard error, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import os
import signal
import sys
import time
from pathlib import Path

from pydock.base import errors, version
from pydock.daemon import claim, config, logs, shutdown

log = logging.getLogger(__name__)

# Long enough after the start that whoever waited for it has been served.
TIDY_SECONDS = 1.0


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    made = argparse.ArgumentParser(prog="pydockd", description="The pydock daemon: containers behind containerd's API.", allow_abbrev=False)
    made.add_argument("--config", metavar="FILE", help=f"configuration file (default {config.DEFAULT_PATH}, which may be absent)")
    made.add_argument("--root", metavar="DIR", help="durable state (default /var/lib/pydock)")
    made.add_argument("--state", metavar="DIR", help="state of this boot (default /run/pydock)")
    made.add_argument("--address", metavar="SOCKET", help="gRPC socket (default pydock.sock in the state directory)")
    made.add_argument("--host", metavar="URL", action="append", help="Docker API address, repeatable (not built in yet)")
    made.add_argument("--log-level", choices=config.LEVELS, help="default info")
    made.add_argument("--version", action="version", version=f"pydockd {version.VERSION}")
    commands = made.add_subparsers(dest="command")
    about = commands.add_parser("config", help="print a configuration as TOML").add_subparsers(dest="what", required=True)
    about.add_parser("default", help="every setting with its default and documentation")
    about.add_parser("dump", help="what this daemon would run with")
    return made


def settings(flags: argparse.Namespace) -> config.Settings:
    """Return the file's settings with the flags over them. Raises BadConfig."""
    path = Path(flags.config) if flags.config else config.DEFAULT_PATH
    read = config.load(path, required=bool(flags.config))
    over = {name: value for name in ("root", "state") if (value := getattr(flags, name))}
    if flags.host:
        over["hosts"] = tuple(flags.host)
    if flags.address:
        over["grpc"] = dataclasses.replace(read.grpc, address=flags.address)
    if flags.log_level:
        over["log"] = dataclasses.replace(read.log, level=flags.log_level)
    return config.check(dataclasses.replace(read, **over), "command line")


def main(arguments: list[str] | None = None) -> int:
    """Run ``pydockd``; returns the exit status."""
    flags = parser().parse_args(arguments)
    try:
        if flags.command == "config":
            return _print_config(flags)
        return _run(flags)
    except errors.PydockError as error:
        sys.stderr.write(f"pydockd: {error}\n")
        return 1


def _print_config(flags: argparse.Namespace) -> int:
    from pydock.daemon import document

    shown = config.Settings() if flags.what == "default" else settings(flags)
    sys.stdout.write(document.document(shown, documented=flags.what == "default"))
    return 0


def _run(flags: argparse.Namespace) -> int:
    readiness = shutdown.Readiness()
    chosen = settings(flags)
    logs.setup(chosen.log.level, chosen.log.format)
    os.umask(0o022)  # one known value, whoever starts us: every mode that matters is set explicitly
    gc.disable()  # nothing of a start is garbage
    held = claim.claim(Path(chosen.root), Path(chosen.state))
    try:
        from pydock.daemon import builtins

        early = builtins.run_early(Path(chosen.root), Path(chosen.state))
        return _loop(flags, chosen, early, readiness)
    finally:
        claim.release(held)


def _loop(flags: argparse.Namespace, chosen: config.Settings, early: dict[str, object], readiness: shutdown.Readiness) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import asyncio

    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_daemon(flags, chosen, early, readiness))
    except errors.PydockError as error:
        log.error("cannot start", exc_info=error.__cause__, extra={"reason": str(error)})
        return 1
    except asyncio.CancelledError:
        return 0
    except Exception:
        log.exception("a background part failed; containers go on")
        return 1


async def _daemon(flags: argparse.Namespace, chosen: config.Settings, early: dict[str, object], readiness: shutdown.Readiness) -> int:
    import asyncio

    from pydock.daemon import supervisor, wiring

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise errors.Internal("no task runs")
    supervisor.watch(loop)
    stop = shutdown.Stop(task)
    shutdown.install(loop, stop, lambda: _reload(flags))
    async with wiring.running(chosen, early) as table:
        _ready(chosen, len(table.rows()), readiness)
        loop.call_later(TIDY_SECONDS, _tidy)
        await stop.wait()
        shutdown.notify("STOPPING=1")
    signal.alarm(0)
    log.info("stopped")
    return 0


def _ready(chosen: config.Settings, plugins: int, readiness: shutdown.Readiness) -> None:
    if chosen.hosts:
        log.info("the Docker API is not built in", extra={"not_served": " ".join(chosen.hosts)})
    fields = {"address": str(chosen.address()), "pid": os.getpid(), "plugins": plugins, "start_ms": _age_ms()}
    log.info("ready", extra=fields)
    shutdown.notify("READY=1")
    readiness.tell()


def _tidy() -> None:
    """Put what the start made out of the collector's sight: it is there for good, and looking through it takes 20 ms each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _age_ms() -> int:
    """Return the milliseconds since this process was exec'd, to the kernel's clock tick (proc(5), field 22 of stat)."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started) * 1000)


def _reload(flags: argparse.Namespace) -> None:
    """Answer SIGHUP: read the file again, take over its log level, say so; a bad file changes nothing."""
    try:
        read = settings(flags)
    except config.BadConfig as error:
        log.error("reload refused", extra={"reason": str(error)})
        return
    logs.set_level("info")  # so that this is said at any level, old or new
    log.info("reloaded", extra={"log_level": read.log.level, "source": read.source, "note": "all else is read at start"})
    logs.set_level(read.log.level)


if __name__ == "__main__":
    sys.exit(main())
