"""How long ``ctr tasks exec CONTAINER true`` takes: back to back and after 150 ms of quiet."""

from __future__ import annotations

import common

GAP = 0.15


def main() -> None:
    """Measure and print."""
    with common.bench(__doc__) as bench:
        block = bench.size(15, 5)

        def measure(engine: common.Engine) -> common.Figures:
            with engine.idle() as (name,):

                def step() -> str:
                    return engine.ctr("tasks", "exec", "--exec-id", engine.fresh(), name, "true")

                return {"exec, back to back [ms]": common.median(step, block), "exec, 150 ms gaps [ms]": common.median(step, block, GAP)}

        bench.alternate(bench.size(5, 2), measure)


if __name__ == "__main__":
    main()
