#!/usr/bin/env python3
"""Generate ``pydock/_proto`` from ``protos``, or check that it is up to date.

    tools/gen_protos.py            write the generated tree
    tools/gen_protos.py --check    write nothing; exit 1 and name every file that is missing, stale or differs

For each ``a/b/c.proto`` two files are made, ``a/b/c_pb2.py`` by protoc and ``a/b/c_pb2.pyi`` by mypy-protobuf, and in each folder an
``__init__.py``. No gRPC stubs: the daemon builds its handlers from descriptors.

What protoc writes is changed in three ways:

- it imports other files by their proto path (``from containerd.types import ...``); ours live below ``pydock._proto``;
- message classes get their real module name, for the same reason;
- its version stamp and the call that compares it with the installed protobuf are dropped: the dependency range in ``pyproject.toml``
  says the same, and the files stay equal over patch releases of protoc.

The top ``__init__.py`` is written by hand and left alone.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "protos"
TARGET = ROOT / "pydock" / "_proto"
PACKAGE = "pydock._proto"
BY_HAND = Path("__init__.py")

_STAMP = re.compile(r"^# Protobuf Python Version: .*\n", re.MULTILINE)
_IMPORT_CHECK = "from google.protobuf import runtime_version as _runtime_version\n"
_CALL_CHECK = re.compile(r"^_runtime_version\.ValidateProtobufRuntimeVersion\(\n(?:    .*\n)*\)\n", re.MULTILINE)
_OWN_MODULE = re.compile(r"(BuildTopDescriptorsAndMessages\(DESCRIPTOR, ')")


class GenerationError(Exception):
    """The sources could not be compiled; the message says why, as protoc does."""


def run_protoc(out: Path) -> None:
    """Compile all of ``SOURCES`` into ``out``, as protoc and mypy-protobuf leave it.

    Raises `GenerationError` when a source does not compile or an include is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    status = find_spec("google.rpc.status_pb2")
    if status is None or status.origin is None:
        raise GenerationError("googleapis-common-protos is not installed: google/rpc/status.proto comes from it")
    google = Path(status.origin).parents[2]
    protos = sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.proto"))
    argv = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCES}", f"-I{google}", f"--plugin=protoc-gen-mypy={plugin}"]
    argv += [f"--python_out={out}", "--mypy_opt=quiet", f"--mypy_out={out}", *protos]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GenerationError(done.stderr.strip())


def relocate(text: str, tops: list[str]) -> str:
    """Return a generated module's ``text`` as it has to be below ``PACKAGE``; ``tops`` are the first folders of our proto paths."""
    own = "|".join(map(re.escape, tops))
    text = re.sub(rf"^(from|import) ({own})(?=[. ])", rf"\1 {PACKAGE}.\2", text, flags=re.MULTILINE)
    text = _OWN_MODULE.sub(rf"\1{PACKAGE}.", text)
    text = _CALL_CHECK.sub("", text.replace(_IMPORT_CHECK, ""))
    return _STAMP.sub("", text)


def generate(out: Path) -> None:
    """Write the whole generated tree, without the part written by hand, to the directory ``out``."""
    run_protoc(out)
    tops = sorted(path.name for path in out.iterdir())
    for module in sorted(out.rglob("*_pb2.py*")):
        module.write_text(relocate(module.read_text(), tops))
    for folder in sorted(path for path in out.rglob("*") if path.is_dir()):
        source = folder.relative_to(out).as_posix()
        (folder / "__init__.py").write_text(f'"""Generated from ``protos/{source}``: see the sources there."""\n')


def tree(root: Path) -> dict[Path, bytes]:
    """Map each generated file below ``root``, by relative path, to its bytes."""
    found = {path.relative_to(root): path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {name: path.read_bytes() for name, path in found.items() if name != BY_HAND}


def differences(fresh: dict[Path, bytes], committed: dict[Path, bytes]) -> list[str]:
    """Say, one line a file, where ``committed`` is not what ``fresh`` is."""
    lines = []
    for name in sorted(fresh.keys() | committed.keys()):
        if name not in committed:
            lines.append(f"{name}: missing")
        elif name not in fresh:
            lines.append(f"{name}: stale, no source makes it")
        elif fresh[name] != committed[name]:
            lines.append(f"{name}: differs from what its source makes")
    return lines


def write(fresh: dict[Path, bytes], committed: dict[Path, bytes]) -> None:
    """Make ``TARGET`` hold exactly ``fresh``, touching only files that differ."""
    for name in committed.keys() - fresh.keys():
        (TARGET / name).unlink()
    for name, data in fresh.items():
        if committed.get(name) != data:
            (TARGET / name).parent.mkdir(parents=True, exist_ok=True)
            (TARGET / name).write_bytes(data)
    for folder in sorted((path for path in TARGET.rglob("*") if path.is_dir()), reverse=True):
        if folder.exists() and not any(folder.rglob("*.py")):
            shutil.rmtree(folder)


def main() -> int:
    """Run the command line; return its exit status."""
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--check", action="store_true", help="compare only, exit 1 on a difference")
    check = args.parse_args().check
    with tempfile.TemporaryDirectory() as tmp:
        try:
            generate(Path(tmp))
        except GenerationError as error:
            print(error, file=sys.stderr)
            return 2
        fresh, committed = tree(Path(tmp)), tree(TARGET)
    lines = differences(fresh, committed)
    if not check:
        write(fresh, committed)
        print(f"{len(fresh)} files, {len(lines)} changed")
        return 0
    if lines:
        tools = ", ".join(f"{name} {metadata.version(name)}" for name in ("grpcio-tools", "mypy-protobuf"))
        print("\n".join(lines), f"run tools/gen_protos.py and commit the result (generated here with {tools})", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
