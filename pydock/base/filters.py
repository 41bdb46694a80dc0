"""containerd's filters: the small language in which clients pick objects.

Grammar (spaces before a token are skipped, but not before a comma or the end)::

    filter   := selector ("," selector)*            all must hold; of several filters any may
    selector := path | path ("==" | "!=" | "~=") value     a path alone: the field is present
    path     := field ("." field)*
    field    := [A-Za-z0-9_]+ | quoted
    value    := quoted | anything printable but "," and spaces, not beginning with a quote or operator character
    quoted   := "..." with Go's escapes; after "~=" also /.../ and |...|

Vocabulary: an *adaptor* gives the text of a field by path and whether it is present.
Invariant: parsing is linear in the input and matching in the input times the pattern (see base.patterns).
Source: containerd's filters package (grammar and the wording of its errors).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydock.base import errors, patterns

Path = tuple[str, ...]
Adaptor = Callable[[Path], tuple[str, bool]]
Test = Callable[[Adaptor], bool]

LONGEST = 4096
MOST = 256
ABSENT = ("", False)
_QUOTES = frozenset('"/|')
_NO_VALUE = frozenset(("", *"=!~,."))
_OPERATORS = "=!~"
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_FIELD = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_NUMBERED = {"x": (16, 2), "u": (16, 4), "U": (16, 8)}


@dataclass(frozen=True)
class Filter:
    """Any of ``alternatives``, each a conjunction; without alternatives everything matches."""

    alternatives: tuple[tuple[Test, ...], ...]

    def match(self, adaptor: Adaptor) -> bool:
        """Tell whether the object behind ``adaptor`` is picked."""
        return not self.alternatives or any(all(test(adaptor) for test in tests) for tests in self.alternatives)


def parse(texts: Iterable[str]) -> Filter:
    """Return the filter that matches what any of ``texts`` matches; none, or an empty one, matches all.

    Raises InvalidArgument with the place of the error.
    """
    given = tuple(texts)
    if len(given) > MOST:
        raise errors.InvalidArgument(f"filters: {len(given)} filters are more than {MOST}")
    return _parse_all(given)


@functools.lru_cache(128)
def _parse_all(texts: tuple[str, ...]) -> Filter:
    if any(text == "" for text in texts):
        return Filter(())
    return Filter(tuple(_Parser(text).filter() for text in texts))


def pick(values: Mapping[str, str], path: Path) -> tuple[str, bool]:
    """Adapt a map (labels, annotations): the rest of the path, joined by dots, is the key."""
    key = ".".join(path)
    return values.get(key, ""), bool(path) and key in values


def text(value: str) -> tuple[str, bool]:
    """Adapt a plain field: it is present when it is not empty."""
    return value, value != ""


def _present(path: Path) -> Test:
    return lambda adaptor: adaptor(path)[1]


def _equal(path: Path, value: str) -> Test:
    return lambda adaptor: adaptor(path) == (value, True)


def _unequal(path: Path, value: str) -> Test:
    return lambda adaptor: adaptor(path)[0] != value


def _matches(path: Path, pattern: str) -> Test:
    found = patterns.compile(pattern)
    return lambda adaptor: found(adaptor(path)[0])


class _Parser:
    """Recursive descent over one filter; ``at`` is the position, ``_fail`` words an error as clients know it."""

    def __init__(self, source: str) -> None:
        if len(source) > LONGEST:
            raise errors.InvalidArgument(f"filters: {len(source)} characters are more than {LONGEST}")
        self.source = source
        self.at = 0

    def filter(self) -> tuple[Test, ...]:
        tests = [self._selector()]
        while self._peek():
            if self._peek() != ",":
                raise self._fail(self.at, f"unexpected input: {self._peek()}")
            self.at += 1
            tests.append(self._selector())
        return tuple(tests)

    def _selector(self) -> Test:
        path = self._path()
        if self._peek() in ("", ","):
            return _present(path)
        operator = self._operator()
        start = self._skip()
        value = self._value(alternative_quotes=operator == "~=")
        if operator == "==":
            return _equal(path, value)
        if operator == "!=":
            return _unequal(path, value)
        try:
            return _matches(path, value)
        except ValueError as error:
            raise self._fail(start, f"bad pattern: {error}") from error

    def _path(self) -> Path:
        fields = [self._field()]
        while self._peek() == ".":
            self.at += 1
            fields.append(self._field())
        return tuple(fields)

    def _field(self) -> str:
        start = self._skip()
        if self._peek() in _QUOTES:
            return self._quoted(alternative_quotes=False)
        match = _FIELD.match(self.source, start)
        if match is None:
            raise self._fail(start, "expected field or quoted")
        self.at = match.end()
        return match[0]

    def _operator(self) -> str:
        start = self._skip()
        while self.at < len(self.source) and self.source[self.at] in _OPERATORS:
            self.at += 1
        found = self.source[start : self.at]
        if not found:
            raise self._fail(start, 'expected an operator ("=="|"!="|"~=")')
        if found not in ("==", "!=", "~="):
            raise self._fail(start, f'unsupported operator "{found}"')
        return found

    def _value(self, *, alternative_quotes: bool) -> str:
        start = self._skip()
        first = self._peek()
        if first in _QUOTES:
            return self._quoted(alternative_quotes=alternative_quotes)
        if first in _NO_VALUE:
            raise self._fail(start, "expected value or quoted")
        while self.at < len(self.source) and _is_value(self.source[self.at]):
            self.at += 1
        if self.at == start:
            raise self._fail(start, "expected value or quoted")
        return self.source[start : self.at]

    def _quoted(self, *, alternative_quotes: bool) -> str:
        start = self.at
        quote = self.source[start]
        self.at += 1
        found = []
        while True:
            char = self._take(start)
            if char == quote:
                break
            found.append(self._escape(start, quote) if char == "\\" else char)
        if quote != '"' and not alternative_quotes:
            raise self._fail(start, "invalid quote encountered")
        return "".join(found)

    def _escape(self, start: int, quote: str) -> str:
        char = self._take(start)
        if char == quote:
            return quote
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char in "01234567":
            self.at -= 1
            return self._number(8, 3)
        if char in _NUMBERED:
            return self._number(*_NUMBERED[char])
        raise self._fail(start, "illegal escape sequence")

    def _number(self, base: int, count: int) -> str:
        digits = self.source[self.at : self.at + count]
        self.at += count
        try:
            if len(digits) < count or not digits.isalnum():
                raise ValueError
            return chr(int(digits, base))
        except (ValueError, OverflowError):
            raise self._fail(min(self.at, len(self.source)), "illegal numeric escape sequence") from None

    def _take(self, start: int) -> str:
        if self.at >= len(self.source) or self.source[self.at] == "\n":
            raise self._fail(start, "quoted literal not terminated")
        self.at += 1
        return self.source[self.at - 1]

    def _skip(self) -> int:
        while self.at < len(self.source) and self.source[self.at].isspace():
            self.at += 1
        return self.at

    def _peek(self) -> str:
        """Return the next character, "" at the end; spaces count, so that one behind a value is an error as in containerd."""
        return self.source[self.at : self.at + 1]

    def _fail(self, at: int, problem: str) -> errors.InvalidArgument:
        source = self.source
        shown = f"[{source[:at]} >|{source[at]}|< {source[at + 1 :]}]" if at < len(source) else f"[{source}]"
        return errors.InvalidArgument(f"filters: parse error: {shown}: {problem}")


def _is_value(char: str) -> bool:
    return char != "," and not char.isspace() and char.isprintable()
