"""The committed code below ``pydock/_proto`` is what the sources make, loads quietly, and loads no more than it needs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted((ROOT / "protos").rglob("*.proto"))
GENERATOR = ROOT / "tools" / "gen_protos.py"
LOADED = "import sys; print(*sorted(m for m in sys.modules if m.startswith('pydock._proto') and m.endswith('_pb2')))"


def run_python(*args: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in the checkout with warnings as errors."""
    return subprocess.run([sys.executable, "-W", "error", *args], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """tools/gen_protos.py as a module."""
    spec = importlib.util.spec_from_file_location("gen_protos", GENERATOR)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_code_is_what_the_sources_make() -> None:
    done = run_python(str(GENERATOR), "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_names_files_that_are_missing_stale_or_different(generator: ModuleType) -> None:
    fresh = {Path("same_pb2.py"): b"1", Path("new_pb2.py"): b"1", Path("changed_pb2.pyi"): b"1"}
    committed = {Path("same_pb2.py"): b"1", Path("gone_pb2.py"): b"1", Path("changed_pb2.pyi"): b"2"}
    lines = generator.differences(fresh, committed)
    assert [line.split(":")[0] for line in lines] == ["changed_pb2.pyi", "gone_pb2.py", "new_pb2.py"]


def test_only_imports_of_our_own_protos_are_moved(generator: ModuleType) -> None:
    text = "from containerd.types import a_pb2 as x\nfrom google.protobuf import any_pb2\nfrom iota import b\nimport io.c_pb2\n"
    moved = generator.relocate(text, ["containerd", "io"])
    assert moved == (
        "from pydock._proto.containerd.types import a_pb2 as x\nfrom google.protobuf import any_pb2\nfrom iota import b\n"
        "import pydock._proto.io.c_pb2\n"
    )


def test_a_source_lies_in_the_folder_its_package_names() -> None:
    wrong = []
    for path in SOURCES:
        package = re.search(r"^package ([\w.]+);$", path.read_text(), re.MULTILINE)
        if package is None or package[1].replace(".", "/") != path.parent.relative_to(ROOT / "protos").as_posix():
            wrong.append(path.name)
    assert SOURCES
    assert wrong == []


def test_every_service_is_explained_in_its_source() -> None:
    lines = [(path.name, *pair) for path in SOURCES for pair in pairwise(path.read_text().splitlines())]
    services = [(name, before) for name, before, line in lines if line.startswith("service ")]
    assert len(services) > 20
    assert [name for name, before in services if not before.startswith("// ")] == []


def test_all_generated_modules_import_without_a_warning() -> None:
    names = [path.relative_to(ROOT / "protos").with_suffix("").as_posix().replace("/", ".") for path in SOURCES]
    done = run_python("-c", "\n".join(f"import pydock._proto.{name}_pb2" for name in names))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("module", "brought"),
    [
        ("containerd.services.content.v1.content_pb2", []),
        ("containerd.services.version.v1.version_pb2", []),
        ("containerd.services.snapshots.v1.snapshots_pb2", ["containerd.types.mount_pb2"]),
        ("containerd.task.v3.task_pb2", ["containerd.types.mount_pb2", "containerd.v1.types.task_pb2"]),
        ("io.containerd.cgroups.v2.metrics_pb2", []),
    ],
)
def test_a_module_loads_only_what_its_source_imports(module: str, brought: list[str]) -> None:
    done = run_python("-c", f"import pydock._proto.{module}; {LOADED}")
    assert done.stdout.split() == sorted(f"pydock._proto.{name}" for name in [module, *brought])
