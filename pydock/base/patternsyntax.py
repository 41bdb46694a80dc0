"""RE2's syntax read into a tree; see `pydock.base.patterns`.

Vocabulary: a *predicate* tells whether one character is accepted; *fold* is case-insensitive comparison.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

Predicate = Callable[[str], bool]

LONGEST = 1024
DEEPEST = 100
MOST_REPEATS = 1000


class Node:
    """Base of the tree."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Literal(Node):
    text: str
    fold: bool = False


@dataclass(frozen=True, slots=True)
class Chars(Node):
    accepts: Predicate


@dataclass(frozen=True, slots=True)
class Assertion(Node):
    """``kind``: "^" and "$" of a line, "A" and "z" of the text, "b" and "B" of a word."""

    kind: str


@dataclass(frozen=True, slots=True)
class Sequence(Node):
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice(Node):
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat(Node):
    part: Node
    low: int
    high: int | None


def _word(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char == "_")


def _between(low: str, high: str) -> Predicate:
    return lambda char: low <= char <= high


_PERL: dict[str, Predicate] = {"d": _between("0", "9"), "w": _word, "s": lambda char: char in "\t\n\f\r "}
_POSIX: dict[str, Predicate] = {
    "alnum": lambda char: char.isascii() and char.isalnum(),
    "alpha": lambda char: char.isascii() and char.isalpha(),
    "ascii": str.isascii,
    "blank": lambda char: char in "\t ",
    "cntrl": lambda char: char < " " or char == "\x7f",
    "digit": _between("0", "9"),
    "graph": _between("!", "~"),
    "lower": _between("a", "z"),
    "print": _between(" ", "~"),
    "punct": lambda char: char.isascii() and char.isprintable() and not char.isalnum() and char != " ",
    "space": lambda char: char in "\t\n\v\f\r ",
    "upper": _between("A", "Z"),
    "word": _word,
    "xdigit": lambda char: char in "0123456789abcdefABCDEF",
}
_SIMPLE = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def one(char: str, fold: bool) -> Predicate:
    """Return what accepts exactly ``char``."""
    if fold:
        return lambda found: found == char or found.casefold() == char.casefold()
    return lambda found: found == char


def asserts(kind: str, text: str, at: int) -> bool:
    """Tell whether an `Assertion` holds between the characters before and at ``at``."""
    if kind == "A":
        return at == 0
    if kind == "z":
        return at == len(text)
    if kind == "^":
        return at == 0 or text[at - 1] == "\n"
    if kind == "$":
        return at == len(text) or text[at] == "\n"
    edge = (at > 0 and _word(text[at - 1])) != (at < len(text) and _word(text[at]))
    return edge == (kind == "b")


def parse(pattern: str) -> Node:
    """Return the tree of ``pattern``. Raises ValueError with what is wrong."""
    if len(pattern) > LONGEST:
        raise ValueError("expression too large")
    reader = _Reader(pattern)
    tree = reader.choice()
    if reader.at < len(pattern):
        raise ValueError("unexpected )")
    return tree


def _not(accepts: Predicate) -> Predicate:
    return lambda char: not accepts(char)


def _any_of(predicates: list[Predicate], *, fold: bool, negate: bool) -> Predicate:
    def accepts(char: str) -> bool:
        if any(predicate(char) for predicate in predicates):
            return not negate
        if fold and (any(predicate(char.lower()) or predicate(char.upper()) for predicate in predicates)):
            return not negate
        return negate

    return accepts


class _Reader:
    """Recursive descent; ``flags`` holds those of "ims" that are on."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.flags: frozenset[str] = frozenset()
        self.depth = 0

    def choice(self) -> Node:
        before = self.flags
        parts = [self._sequence()]
        while self._next("|"):
            parts.append(self._sequence())
        self.flags = before
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self.at < len(self.source) and self.source[self.at] not in "|)":
            part = self._repeated()
            last = parts[-1] if parts else None
            if isinstance(part, Literal) and isinstance(last, Literal) and part.fold == last.fold:
                parts[-1] = Literal(last.text + part.text, part.fold)
            else:
                parts.append(part)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeated(self) -> Node:
        if self._next("\\Q"):
            end = self.source.find("\\E", self.at)
            text = self.source[self.at : end if end >= 0 else len(self.source)]
            self.at += len(text) + 2
            self.at = min(self.at, len(self.source))
            return Literal(text, "i" in self.flags)
        part = self._atom()
        bounds = self._bounds()
        if bounds is None:
            return part
        self._next("?")
        if self.at < len(self.source) and (self.source[self.at] in "*+?" or self._peek_bounds() is not None):
            raise ValueError("invalid nested repetition operator")
        return Repeat(part, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._next(sign):
                return bounds
        found = self._peek_bounds()
        if found is None:
            return None
        self.at, low, high = found
        if low > MOST_REPEATS or (high or 0) > MOST_REPEATS or (high is not None and high < low):
            raise ValueError("invalid repeat count")
        return low, high

    def _peek_bounds(self) -> tuple[int, int, int | None] | None:
        """Return (end, low, high) of "{n}", "{n,}" or "{n,m}" here; a brace that is none of them is a literal."""
        end = self.source.find("}", self.at)
        if not self.source.startswith("{", self.at) or end < 0:
            return None
        low, comma, high = self.source[self.at + 1 : end].partition(",")
        if not (low.isascii() and low.isdigit()) or len(low) > 5 or len(high) > 5 or (high and not (high.isascii() and high.isdigit())):
            return None
        return end + 1, int(low), int(high) if high else (None if comma else int(low))

    def _atom(self) -> Node:
        char = self.source[self.at]
        self.at += 1
        if char == "(":
            return self._group()
        if char == "[":
            return Chars(self._class())
        if char == ".":
            return Chars((lambda _: True) if "s" in self.flags else (lambda found: found != "\n"))
        if char == "^":
            return Assertion("^" if "m" in self.flags else "A")
        if char == "$":
            return Assertion("$" if "m" in self.flags else "z")
        if char in "*+?":
            raise ValueError(f"missing argument to repetition operator: {char}")
        if char == "\\":
            return self._escape()
        return Literal(char, "i" in self.flags)

    def _group(self) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError("expression nests too deeply")
        before = self.flags
        if self._next("?") and self._flags_only():
            self.depth -= 1
            return Sequence(())
        tree = self.choice()
        if not self._next(")"):
            raise ValueError("missing closing )")
        self.flags = before
        self.depth -= 1
        return tree

    def _flags_only(self) -> bool:
        """Read what follows "(?": a name, or flags; tell whether the group ended there, so that they hold for the rest."""
        if self._next("P<") or self._next("<"):
            name, closing, _ = self.source[self.at :].partition(">")
            if not closing or not name.isidentifier() or not name.isascii():
                raise ValueError("invalid named capture")
            self.at += len(name) + 1
            return False
        negative = False
        while self.at < len(self.source):
            char = self.source[self.at]
            self.at += 1
            if char in ":)":
                return char == ")"
            if char == "-" and not negative:
                negative = True
            elif char in "imsU":
                self.flags = self.flags - {char} if negative else self.flags | {char}
            else:
                break
        raise ValueError("invalid or unsupported Perl syntax")

    def _escape(self) -> Node:
        char = self.source[self.at : self.at + 1]
        if char and char in "AzbB":
            self.at += 1
            return Assertion(char)
        found = self._class_escape()
        if found is not None:
            return Chars(found)
        return Literal(self._char_escape(), "i" in self.flags)

    def _class_escape(self) -> Predicate | None:
        """Read the part of "\\d", "\\W", "\\pL" or "\\P{Lu}" behind the backslash; None for any other escape."""
        char = self.source[self.at : self.at + 1]
        if char and char.lower() in _PERL:
            self.at += 1
            return _PERL[char.lower()] if char.islower() else _not(_PERL[char.lower()])
        if not char or char not in "pP":
            return None
        self.at += 1
        name = self.source[self.at : self.at + 1]
        self.at += 1
        if name == "{":
            name, _, _ = self.source[self.at :].partition("}")
            self.at += len(name) + 1
        wanted, negate = name.removeprefix("^"), (char == "P") != name.startswith("^")
        if not (1 <= len(wanted) <= 2 and wanted[0] in "CLMNPSZ"):
            raise ValueError(f"invalid character class range: {name!r}")
        return lambda found: unicodedata.category(found).startswith(wanted) != negate

    def _char_escape(self) -> str:
        char = self.source[self.at : self.at + 1]
        self.at += 1
        if not char:
            raise ValueError("trailing backslash at end of expression")
        if char in _SIMPLE:
            return _SIMPLE[char]
        if char == "x":
            return self._hexadecimal()
        if char in "01234567":
            digits = char
            while len(digits) < 3 and self.source[self.at : self.at + 1] and self.source[self.at] in "01234567":
                digits += self.source[self.at]
                self.at += 1
            if char != "0" and len(digits) < 2:
                raise ValueError(f"invalid escape sequence: \\{char}")
            return chr(int(digits, 8))
        if (char.isascii() and not char.isalnum()) or char == "_":
            return char
        raise ValueError(f"invalid escape sequence: \\{char}")

    def _hexadecimal(self) -> str:
        if self._next("{"):
            digits, closing, _ = self.source[self.at :].partition("}")
            self.at += len(digits) + 1
        else:
            digits, closing = self.source[self.at : self.at + 2], "}"
            self.at += 2
            if len(digits) != 2:
                closing = ""
        if not closing or not 1 <= len(digits) <= 6 or not all(_POSIX["xdigit"](digit) for digit in digits) or int(digits, 16) > 0x10FFFF:
            raise ValueError("invalid escape sequence: \\x")
        return chr(int(digits, 16))

    def _class(self) -> Predicate:
        negate = self._next("^")
        predicates: list[Predicate] = []
        first = True
        while first or not self._next("]"):
            if self.at >= len(self.source):
                raise ValueError("missing closing ]")
            first = False
            predicates.append(self._class_member())
        return _any_of(predicates, fold="i" in self.flags, negate=negate)

    def _class_member(self) -> Predicate:
        if self._next("[:"):
            name, closing, _ = self.source[self.at :].partition(":]")
            wanted = _POSIX.get(name.removeprefix("^"))
            if not closing or wanted is None:
                raise ValueError("invalid character class range")
            self.at += len(name) + 2
            return _not(wanted) if name.startswith("^") else wanted
        if self.source[self.at] == "\\":
            self.at += 1
            found = self._class_escape()
            if found is not None:
                return found
            self.at -= 1
        low = self._class_char()
        if self.source.startswith("-", self.at) and not self.source.startswith("-]", self.at) and self.at + 1 < len(self.source):
            self.at += 1
            high = self._class_char()
            if high < low:
                raise ValueError("invalid character class range")
            return _between(low, high)
        return one(low, fold=False)

    def _class_char(self) -> str:
        char = self.source[self.at]
        self.at += 1
        return self._char_escape() if char == "\\" else char

    def _next(self, text: str) -> bool:
        """Consume ``text`` if it comes next."""
        if not self.source.startswith(text, self.at):
            return False
        self.at += len(text)
        return True
