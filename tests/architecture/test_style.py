"""The style of the house as far as a machine can see it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

LONGEST_FILE = 500
LONGEST_FUNCTION = 60
MOST_PARAMETERS = 6

# Tables: data whose length is that of what they describe.
TABLES = frozenset({"pydock/oci/seccomp.py", "pydock/daemon/builtins.py"})

# Commands, whose output is their result: a shim prints its address to who started it.
SPEAKS = ("cli", "pydock_shim")

# Who may end a failure of any kind, and why: elsewhere a handler that catches everything raises again.
MAY_CATCH_ALL = {
    "pydock/services/calls.py": "the gRPC edge: every failure becomes a status",
    "pydock/daemon/main.py": "the edge of the process: every failure becomes a log line and an exit status",
    "pydock/daemon/supervisor.py": "every failure of a loop becomes a log line and a restart",
    "pydock/base/offload.py": "a thread's failure is handed to its waiter",
    "plugins/pydock_plugins/diff/stream.py": "a thread's failure is handed to its reader",
    "plugins/pydock_plugins/diff/worker.py": "the edge of a helper process: every failure becomes its answer",
    "shims/pydock_shim/server.py": "the ttrpc edge: every failure becomes a status",
    "shims/pydock_shim/shim.py": "the shim's supervisor: a faulty call must not cost containers their shim",
}


def test_files_are_short(sources: Sequence[Any]) -> None:
    lengths = {source.path: source.text.count("\n") for source in sources if source.path not in TABLES}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_functions_are_short(sources: Sequence[Any]) -> None:
    found = {
        f"{source.path}:{node.lineno} {node.name}": length
        for source in sources
        for node in source.functions()
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert found == {}


def test_parameters_are_few(sources: Sequence[Any]) -> None:
    found = {}
    for source in sources:
        for node in source.functions():
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([one for one in every if one.arg not in ("self", "cls")])
            if count > MOST_PARAMETERS and not node.name.startswith("test_"):  # a test's are the columns of its table
                found[f"{source.path}:{node.lineno} {node.name}"] = count
    assert found == {}


def test_every_module_opens_with_its_purpose(sources: Sequence[Any]) -> None:
    assert [source.path for source in sources if not ast.get_docstring(source.tree)] == []


def public(body: Sequence[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield the public classes and functions of a module."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def is_record(node: ast.AST) -> bool:
    """Tell whether a class only lists its fields, which then speak for themselves."""
    return isinstance(node, ast.ClassDef) and (
        any("dataclass" in ast.unparse(one) for one in node.decorator_list)
        or any(last(base) in ("Enum", "IntEnum", "NamedTuple") for base in node.bases)
    )


def test_everything_public_and_shipped_says_what_it_is(shipped: Sequence[Any]) -> None:
    found = [
        f"{source.path}:{node.lineno} {node.name}"
        for source in shipped
        for node in public(source.tree.body)
        if not ast.get_docstring(node) and not is_record(node) and not node.name.startswith("test_")
    ]
    assert found == []


def test_annotations_are_never_evaluated_on_import(shipped: Sequence[Any]) -> None:
    wanted = "from __future__ import annotations"
    annotated = [source for source in shipped if any(source.functions()) or "\nclass " in source.text]
    assert [source.path for source in annotated if wanted not in source.text] == []


def test_shipped_code_has_no_assert_and_no_print(shipped: Sequence[Any]) -> None:
    found = []
    for source in shipped:
        if source.part == "testing":
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Assert):
                found.append(f"{source.path}:{node.lineno} assert")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" and source.part not in SPEAKS:
                found.append(f"{source.path}:{node.lineno} print")
    assert found == []


def broad(node: ast.ExceptHandler) -> bool:
    """Tell whether a handler catches everything."""
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(one is None or (isinstance(one, ast.Name) and one.id in ("Exception", "BaseException")) for one in caught)


def raises(body: Sequence[ast.stmt]) -> bool:
    """Tell whether a handler's last word is a raise."""
    return isinstance(body[-1], ast.Raise)


def test_what_catches_everything_raises_again_outside_the_edges(shipped: Sequence[Any]) -> None:
    found = []
    for source in shipped:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler) and broad(node) and not raises(node.body) and source.path not in MAY_CATCH_ALL:
                found.append(f"{source.path}:{node.lineno}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("contextlib.suppress", "suppress"):
                found += [f"{source.path}:{node.lineno}" for one in node.args if ast.unparse(one) in ("Exception", "BaseException")]
    assert found == []


def group_names(tree: ast.Module) -> set[str]:
    """Return the last part of every name that holds a TaskGroup: bound by a with, annotated as one, or assigned from such.

    ``groups.group()`` of the domain is a TaskGroup that raises its one error bare.
    """
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.withitem) and node.optional_vars is not None:
            opened = ast.unparse(node.context_expr)
            if opened.endswith(("TaskGroup()", "groups.group()")):
                names.add(last(node.optional_vars))
        elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None and "TaskGroup" in ast.unparse(node.annotation):
            names.add(node.arg if isinstance(node, ast.arg) else last(node.target))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and (last(node.value) in names or "TaskGroup()" in ast.unparse(node.value)):
            names.update(last(target) for target in node.targets)
    return names


def last(node: ast.expr) -> str:
    """Return ``c`` for ``a.b.c``."""
    return ast.unparse(node).rpartition(".")[2]


def test_every_task_has_a_task_group_for_a_parent(shipped: Sequence[Any]) -> None:
    found = []
    for source in shipped:
        groups = group_names(source.tree)
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            stray = node.func.attr == "create_task" and last(node.func.value) not in groups
            if stray or node.func.attr == "ensure_future":
                found.append(f"{source.path}:{node.lineno} {ast.unparse(node.func)}")
    assert found == []


def test_a_test_is_a_sentence_and_stands_for_itself(sources: Sequence[Any]) -> None:
    found = []
    for source in sources:
        names = [node.name for node in source.functions() if node.name.startswith("test_")]
        found += [f"{source.path} {name}" for name in names if name.count("_") < 2]
        found += [f"{source.path} {name} twice" for name in {name for name in names if names.count(name) > 1}]
    assert found == []
