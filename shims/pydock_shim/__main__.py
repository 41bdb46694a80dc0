"""Entry point of the shim package: the launcher, and containerd's stand-alone shim commands.

``python3 -I -S -E PATH/pydock_shim/__main__.py launch --fd N`` runs the launcher; anything else is the command line of
``containerd-shim-pydock-v1`` (see ``standalone``).  Run by path, with nothing on ``sys.path`` but the standard library, so the package's
own parent directory is put there first.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main(argv: list[str] | None = None) -> int:
    """Run the command in ``argv`` (default: the process's own arguments); its exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words[:2] == ["launch", "--fd"] and len(words) == 3:
        from pydock_shim import launcher

        launcher.main(int(words[2]))
        return 0
    from pydock_shim import standalone

    return standalone.main(words)


if __name__ == "__main__":
    sys.exit(main())
