"""The daemon itself: memory when idle, time from exec to the first answered RPC, ``ctr version``, and one RPC over an open connection.

The last is asked by a Python client, whose own half millisecond is in the figures of both.
"""

from __future__ import annotations

import statistics
import time

import common

from pydock.client import connection, system

SETTLE = 2.0  # s; what tidies up after a start has done so by then


def first_answer(engine: common.Engine) -> float:
    """Return the ms from exec to an answered Version call; the client looks for the socket every ms."""
    engine.stop()
    began = time.perf_counter()
    engine.begin()
    engine.connect().close()
    with connection.connect(str(engine.address), common.NAMESPACE) as conn:
        system.version(conn)
    return (time.perf_counter() - began) * 1000


def unary(engine: common.Engine, count: int) -> float:
    """Return the median ms of a call over one connection."""
    with connection.connect(str(engine.address), common.NAMESPACE) as conn:
        system.version(conn)
        return statistics.median(common.timed(lambda: system.version(conn)) for _ in range(count))


def main() -> None:
    """Measure and print."""
    with common.bench(__doc__) as bench:
        calls, block = bench.size(400, 100), bench.size(15, 5)

        def measure(engine: common.Engine) -> common.Figures:
            start = first_answer(engine)
            time.sleep(SETTLE)
            return {
                "start to first answer [ms]": start,
                "daemon, idle, PSS [MB]": common.megabytes("Pss", [engine.pid]),
                "with launcher and helpers, PSS [MB]": common.megabytes("Pss", [engine.pid, *engine.others()]),
                "ctr version [ms]": common.median(lambda: engine.ctr("version"), block),
                "unary RPC, Python client [ms]": unary(engine, calls),
            }

        bench.alternate(bench.size(5, 2), measure)


if __name__ == "__main__":
    main()
