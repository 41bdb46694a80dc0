"""What each of 60 idle containers costs in memory of shims (and launcher): private dirty and proportional, and how fast they started."""

from __future__ import annotations

import time

import common

SETTLE = 3.0  # s; long enough for a shim to have gone to sleep


def usage(engine: common.Engine) -> list[float]:
    """Return private dirty and proportional memory in MB of everything but the daemon."""
    pids = engine.others()
    return [common.megabytes("Private_Dirty", pids), common.megabytes("Pss", pids)]


def main() -> None:
    """Measure and print."""
    with common.bench(__doc__) as bench:
        count = bench.size(60, 10)

        def measure(engine: common.Engine) -> common.Figures:
            engine.run()
            before, began = usage(engine), time.perf_counter()
            with engine.idle(count):
                rate = count / (time.perf_counter() - began)
                time.sleep(SETTLE)
                dirty, pss = ((now - then) / count for now, then in zip(usage(engine), before, strict=True))
                daemon = common.megabytes("Pss", [engine.pid])
            return {
                "shims, private dirty [MB each]": dirty,
                "shims, PSS [MB each]": pss,
                "daemon, PSS meanwhile [MB]": daemon,
                "run -d, one after another [/s]": rate,
            }

        bench.alternate(bench.size(3, 1), measure)


if __name__ == "__main__":
    main()
