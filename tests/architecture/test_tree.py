"""The clone as a whole: what it must hold, what it must not, and that it agrees with itself."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import pydock
import pydock_plugins
from pydock.base import errors, version

TOP = {"pyproject.toml", "README.md", "protos", "pydock", "plugins", "shims", "tests", "tools", ".ci", ".gitignore", "LICENSE"}

MADE = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "dist"}

# Of one machine, or of where packages come from on it. Written in two parts, so that this file does not find itself.
NOT_OURS = tuple(
    first + second
    for first, second in (
        ("/wo", "rk/main"),
        ("/wo", "rk/shared"),
        ("/ro", "ot/."),
        ("shared", "/tools"),
        ("pydock-", "lab"),
        ("pydock-", "peers"),
        ("deb.", "debian.org"),
        ("snapshot.", "debian.org"),
        ("pypi.", "org"),
        ("pythonhosted", ".org"),
    )
)


def project_files(root: Path) -> Iterator[Path]:
    """Yield every file of the clone that is not made by a tool."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in MADE and not name.endswith(".egg-info"))
        yield from (Path(folder) / name for name in sorted(names) if name not in MADE)


def test_the_top_level_is_as_fixed(root: Path) -> None:
    assert sorted({path.relative_to(root).parts[0] for path in project_files(root)} - TOP) == []


def test_nothing_names_this_machine_or_a_package_mirror(root: Path) -> None:
    found = []
    for path in project_files(root):
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path.relative_to(root)}: {needle}" for needle in NOT_OURS if needle in text]
    assert found == []


def test_the_version_is_the_same_everywhere(root: Path) -> None:
    assert tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"] == version.VERSION


def test_every_command_exists(root: Path) -> None:
    scripts: dict[str, str] = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    for name, target in scripts.items():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function, None)), f"{name} -> {target}"


def every_module() -> list[str]:
    """Return the name of every module of the daemon's side, the generated ones apart."""
    found = []
    for package in (pydock, pydock_plugins):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not info.name.startswith(("pydock._proto", "pydock.testing")):
                found.append(info.name)
    return found


def every_error(start: type[errors.PydockError] = errors.PydockError) -> Iterator[type[errors.PydockError]]:
    """Yield a class and all below it."""
    yield start
    for below in start.__subclasses__():
        yield from every_error(below)


def test_every_error_has_an_answer_on_both_wires_and_says_what_it_is() -> None:
    statuses = pytest.importorskip("pydock.services.errors").STATUSES
    for name in every_module():
        importlib.import_module(name)
    for error in every_error():
        assert error.code in statuses, error
        assert error.__doc__, error
    assert set(errors.Code) == set(statuses)
    assert all(code.value == status.grpc.value[0] for code, status in statuses.items())


def test_the_generated_code_is_what_the_generator_makes(root: Path) -> None:
    ended = subprocess.run([sys.executable, "tools/gen_protos.py", "--check"], cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def readme_rows(root: Path, header: str) -> list[list[str]]:
    """Return the cells of each row of the table below a heading of README.md."""
    section = (root / "README.md").read_text().partition(f"## {header}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]


CLIENTS = ("ctr", "pctr", "nerdctl", "docker", "docker compose", "docker build", "crictl", "containerd")


def test_the_readme_says_for_every_client_whether_it_works_and_which_tests_show_it(root: Path) -> None:
    rows = {row[0].strip("`"): row for row in readme_rows(root, "What works")}
    assert [client for client in CLIENTS if not any(name.startswith(client) for name in rows)] == []
    for name, (_, works, tests, *_) in rows.items():
        assert works in ("yes", "partly", "no"), name
        paths = re.findall(r"`(tests/[^`]*)`", tests)
        assert works == "no" or paths, f"{name}: no test shows it"
        assert [path for path in paths if not (root / path).exists()] == [], name


def test_the_readme_maps_only_what_is_there(root: Path) -> None:
    paths = re.findall(r"^((?:pydock|plugins|shims|tests|tools|protos|\.ci)/\S*)", (root / "README.md").read_text(), re.MULTILINE)
    assert paths
    assert [path for path in paths if not (root / path).exists()] == []


def test_the_readme_starts_with_how_to_start(root: Path) -> None:
    first = "\n".join((root / "README.md").read_text().splitlines()[:12])
    assert "./tools/dev up" in first
    assert "./tools/dev test" in first


def test_scripts_can_be_executed(root: Path) -> None:
    for path in project_files(root):
        if path.read_bytes()[:2] == b"#!":
            assert path.stat().st_mode & 0o111, path
