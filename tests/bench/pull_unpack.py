"""How long ``ctr images pull`` of an image of 30,000 small files in 4 layers takes from a registry on this machine, and its removal."""

from __future__ import annotations

import random

import common

from pydock.testing import images, registry

LAYERS = 4


def image(files: int) -> images.Image:
    """Return an image of ``files`` files of 200 to 3,000 bytes that gzip packs about as well as program text."""
    dice = random.Random(1)
    words = [bytes(dice.choices(b"abcdefghijklmnopqrstuvwxyz_", k=dice.randint(2, 12))) for _ in range(2000)]
    layers = []
    for layer in range(LAYERS):
        names = (f"srv/{layer}/{number // 100:03}/file-{number}" for number in range(files // LAYERS))
        layers.append(images.layer({name: b" ".join(dice.choices(words, k=dice.randint(30, 400))) for name in names}))
    return images.image(layers)


def main() -> None:
    """Measure and print."""
    with common.bench(__doc__) as bench, registry.running() as server:
        reference = server.push(image(bench.size(30000, 4000)), "bench/manyfiles:1")

        def measure(engine: common.Engine) -> common.Figures:
            pull = common.timed(lambda: engine.ctr("images", "pull", "--plain-http", reference))
            return {
                "pull and unpack [ms]": pull,
                "images rm --sync [ms]": common.timed(lambda: engine.ctr("images", "rm", "--sync", reference)),
            }

        bench.alternate(bench.size(5, 2), measure)


if __name__ == "__main__":
    main()
