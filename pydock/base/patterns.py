"""Regular expressions in RE2's syntax whose matching takes time linear in the text, whatever the pattern.

Python's ``re`` backtracks: a client's ``(a+)+$`` would stop the daemon. This one runs all states side by side (Thompson, CACM 1968)
and only answers "does it match somewhere", which is all that filters ask.

Vocabulary: a *program* is a list of instructions: (CHAR, predicate, next), (SPLIT, next, next), (ASSERT, kind, next) and (MATCH,).
Supported: literals, ``.``, classes (ranges, negation, ``[:alpha:]``, ``\\d \\w \\s``, ``\\pL``), groups, ``|``, ``* + ? {n,m}`` and their
lazy forms, ``^ $ \\A \\z \\b \\B``, the flags i, m, s (U changes nothing here) and ``\\Q...\\E``.
Not in RE2, so refused: back references and look-around.
Source: github.com/google/re2 wiki, "Syntax".
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pydock.base import patternsyntax as syntax

MOST_INSTRUCTIONS = 2000
CHAR, SPLIT, ASSERT, MATCH = range(4)

Instruction = tuple[Any, ...]


@functools.lru_cache(128)
def compile(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether ``pattern`` matches anywhere in a text. Raises ValueError for a bad pattern."""
    tree = syntax.parse(pattern)
    if isinstance(tree, syntax.Literal) and not tree.fold:
        return functools.partial(_holds, tree.text)
    program: list[Instruction] = [(MATCH,)]
    start = _emit(tree, 0, program)
    return functools.partial(_search, program, start)


def _holds(needle: str, text: str) -> bool:
    return needle in text


def _add(program: list[Instruction], instruction: Instruction) -> int:
    if len(program) >= MOST_INSTRUCTIONS:
        raise ValueError("expression too large")
    program.append(instruction)
    return len(program) - 1


def _emit(tree: syntax.Node, follow: int, program: list[Instruction]) -> int:
    """Append the instructions of ``tree`` leading to ``follow``; return where they begin."""
    match tree:
        case syntax.Literal(text, fold):
            for char in reversed(text):
                follow = _add(program, (CHAR, syntax.one(char, fold), follow))
        case syntax.Chars(accepts):
            follow = _add(program, (CHAR, accepts, follow))
        case syntax.Assertion(kind):
            follow = _add(program, (ASSERT, kind, follow))
        case syntax.Sequence(parts):
            for part in reversed(parts):
                follow = _emit(part, follow, program)
        case syntax.Choice(parts):
            starts = [_emit(part, follow, program) for part in parts]
            follow = functools.reduce(lambda rest, start: _add(program, (SPLIT, start, rest)), reversed(starts))
        case syntax.Repeat(part, low, high):
            follow = _emit_repeat(part, low, high, follow, program)
    return follow


def _emit_repeat(part: syntax.Node, low: int, high: int | None, follow: int, program: list[Instruction]) -> int:
    if high is None:
        loop = _add(program, (SPLIT, 0, follow))
        program[loop] = (SPLIT, _emit(part, loop, program), follow)
        follow = loop
    else:
        done = follow
        for _ in range(high - low):
            follow = _add(program, (SPLIT, _emit(part, follow, program), done))
    for _ in range(low):
        follow = _emit(part, follow, program)
    return follow


def _search(program: list[Instruction], start: int, text: str) -> bool:
    """Run the program over ``text`` from every position at once."""
    states: set[int] = set()
    for at in range(len(text) + 1):
        if _close(program, states, start, text, at):
            return True
        if at == len(text):
            return False
        char = text[at]
        following = {program[state][2] for state in states if program[state][0] == CHAR and program[state][1](char)}
        states = set()
        for state in following:
            if _close(program, states, state, text, at + 1):
                return True
    return False


def _close(program: list[Instruction], states: set[int], begin: int, text: str, at: int) -> bool:
    """Add to ``states`` what is reachable from ``begin`` without a character; tell whether the match is."""
    todo = [begin]
    while todo:
        state = todo.pop()
        if state in states:
            continue
        states.add(state)
        instruction = program[state]
        kind = instruction[0]
        if kind == MATCH:
            return True
        if kind == SPLIT:
            todo += instruction[1:]
        elif kind == ASSERT and syntax.asserts(instruction[1], text, at):
            todo.append(instruction[2])
    return False
