"""The source tree, parsed once for all architecture tests."""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("pydock", "plugins/pydock_plugins", "shims/pydock_shim")
BESIDE = ("tests", "tools")
GENERATED = "pydock/_proto/"


@dataclasses.dataclass(frozen=True)
class Source:
    """One Python file: its path below the clone, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Return the dotted name under which it is imported."""
        path = self.path.removeprefix("plugins/").removeprefix("shims/").removesuffix(".py").removesuffix("/__init__")
        return path.replace("/", ".")

    @property
    def part(self) -> str:
        """Return the layer it belongs to: ``base``, ``pydock_plugins`` ..."""
        names = self.module.split(".")
        return names[1] if names[0] == "pydock" and len(names) > 1 else names[0]

    @property
    def shipped(self) -> bool:
        """Tell whether it is installed with pydock."""
        return self.path.startswith(SHIPPED)

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Yield every function and method."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield line and full name of everything imported, a module or a name in one, wherever the import stands."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield node.lineno, f"{self._base(node)}.{alias.name}".strip(".")

    def loads(self) -> Iterator[tuple[int, str]]:
        """Yield what of the imports is carried out at run time: all but those for the type checker alone."""
        guarded = {
            inner.lineno
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for inner in node.body
        }
        return ((line, name) for line, name in self.imports() if line not in guarded)

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.module if self.path.endswith("__init__.py") else self.module.rpartition(".")[0]
        for _ in range(node.level - 1):
            package = package.rpartition(".")[0]
        return f"{package}.{node.module}" if node.module else package


@functools.cache
def read_all() -> tuple[Source, ...]:
    """Return every Python file of the project that is written by hand."""
    found = []
    for folder in (*SHIPPED, *BESIDE):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(GENERATED):
                text = path.read_text()
                found.append(Source(name, text, ast.parse(text, name)))
    return tuple(found)


@pytest.fixture
def sources() -> tuple[Source, ...]:
    """Every Python file."""
    return read_all()


@pytest.fixture
def shipped() -> tuple[Source, ...]:
    """Every Python file that is installed."""
    return tuple(source for source in read_all() if source.shipped)


@pytest.fixture
def root() -> Path:
    """The clone."""
    return ROOT
