"""How long ``ctr run --rm IMAGE ID true`` takes: back to back, after 150 ms of quiet (kernel grace periods count then), and 8 at once."""

from __future__ import annotations

import time
from concurrent import futures

import common

GAP = 0.15
WIDTH = 8


def at_once(engine: common.Engine, count: int) -> float:
    """Return how many runs are done in a second with ``WIDTH`` under way."""
    began = time.perf_counter()
    with futures.ThreadPoolExecutor(WIDTH) as pool:
        list(pool.map(lambda _: engine.run(), range(count)))
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    with common.bench(__doc__) as bench:
        block, burst = bench.size(10, 4), bench.size(40, 16)

        def measure(engine: common.Engine) -> common.Figures:
            return {
                "run --rm, back to back [ms]": common.median(engine.run, block),
                "run --rm, 150 ms gaps [ms]": common.median(engine.run, block, GAP),
                "run --rm, 8 at once [/s]": at_once(engine, burst),
            }

        bench.alternate(bench.size(5, 2), measure)


if __name__ == "__main__":
    main()
