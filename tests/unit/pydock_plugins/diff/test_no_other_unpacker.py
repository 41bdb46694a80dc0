"""No shipped code unpacks an archive by any way but ours: the library's have a history of escapes."""

from __future__ import annotations

import ast
from pathlib import Path

TREE = Path(__file__).parents[4]
SHIPPED = ("pydock", "plugins", "shims")
FORBIDDEN = {"extractall", "extract", "unpack_archive", "extractfile"}


def calls(source: str) -> list[str]:
    """The names of the functions ``source`` calls."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found.append(name)
    return found


def test_nobody_calls_the_library_to_unpack() -> None:
    files = [path for folder in SHIPPED for path in (TREE / folder).rglob("*.py")]
    assert len(files) > 20
    assert {str(path): name for path in files for name in calls(path.read_text()) if name in FORBIDDEN} == {}


def test_the_gate_sees_a_call() -> None:
    assert "extractall" in calls("import tarfile\ntarfile.open('x').extractall('/')")
