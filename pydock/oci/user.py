"""Who a container's process runs as: the image's or the caller's "user[:group]" and the image's own account files.

Vocabulary: an *account* is a line of /etc/passwd, a *group* one of /etc/group; an *id text* is what must be read as a number and
nothing else.
Invariants: a text of digits is an id and is never looked up as a name; a number out of range is an error and never becomes 0; only ASCII
decimal digits are digits; a malformed line of an account file is skipped. Sources: OCI image-spec config.md ("User"), passwd(5), group(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydock.base import errors

LARGEST_ID = (1 << 31) - 1
LONGEST_LINE = 64 << 10
# Signs, bases and underscores count too: what another reader might take for a number must not be a name here.
_NUMBER_LIKE = re.compile(r"[+-]?(?:[0-9][0-9_]*|0[xXoObB][0-9a-fA-F_]*)", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,254}\$?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Account:
    """One line of /etc/passwd, as far as it matters."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Group:
    """One line of /etc/group."""

    name: str
    gid: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ids:
    """What the process gets; ``groups`` are the supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def resolve(text: str, passwd: str, group: str) -> Ids:
    """Return the ids of "user", "uid", "user:group" or any mix of names and ids; "" is root. Raises InvalidArgument.

    ``passwd`` and ``group`` are the contents of the image's files, "" where there is none.
    """
    wanted, colon, wanted_group = text.partition(":")
    if ":" in wanted_group or (colon and not (wanted and wanted_group)):
        raise errors.InvalidArgument(f"invalid USER value {text!r}")
    account = _account(text, wanted or "0", passwd)
    gid = _gid(text, wanted_group, group) if wanted_group else account.gid
    return Ids(account.uid, gid, tuple(_groups_of(account.name, group)))


def _account(text: str, wanted: str, passwd: str) -> Account:
    uid = _number(text, wanted, "uid")
    for account in accounts(passwd):
        if account.uid == uid if uid is not None else account.name == wanted:
            return account
    if uid is None:
        raise errors.InvalidArgument(f"invalid USER value {text!r}: the image has no user {wanted!r}")
    return Account("root" if uid == 0 else "", uid, 0)


def _gid(text: str, wanted: str, group: str) -> int:
    gid = _number(text, wanted, "gid")
    if gid is not None:
        return gid
    for found in groups(group):
        if found.name == wanted:
            return found.gid
    raise errors.InvalidArgument(f"invalid USER value {text!r}: the image has no group {wanted!r}")


def _groups_of(name: str, group: str) -> Iterator[int]:
    """Yield the groups that list ``name``; one of the same name is its own and not supplementary."""
    if name:
        yield from (found.gid for found in groups(group) if found.name != name and name in found.members)


def _number(text: str, part: str, kind: str) -> int | None:
    """Return an id, None for a name. Raises InvalidArgument for what is neither."""
    if _DIGITS.fullmatch(part) and int(part) <= LARGEST_ID:
        return int(part)
    if _NUMBER_LIKE.fullmatch(part):
        raise errors.InvalidArgument(f"invalid USER value {text!r}: {kind} out of range")
    if not _NAME.fullmatch(part):
        raise errors.InvalidArgument(f"invalid USER value {text!r}: {part!r} is neither a name nor an id")
    return None


def accounts(passwd: str) -> Iterator[Account]:
    """Yield the well-formed lines of /etc/passwd."""
    for fields in _lines(passwd, 4):
        uid, gid = _id(fields[2]), _id(fields[3])
        if uid is not None and gid is not None:
            yield Account(fields[0], uid, gid)


def groups(group: str) -> Iterator[Group]:
    """Yield the well-formed lines of /etc/group."""
    for fields in _lines(group, 3):
        gid = _id(fields[2])
        if gid is not None:
            members = fields[3].split(",") if len(fields) > 3 else []
            yield Group(fields[0], gid, tuple(member.strip() for member in members if member.strip()))


def _lines(text: str, fewest: int) -> Iterator[Sequence[str]]:
    for line in text.split("\n"):
        if len(line) > LONGEST_LINE or line.startswith("#"):
            continue
        fields = line.rstrip("\r").split(":")
        if len(fields) >= fewest and fields[0]:
            yield fields


def _id(text: str) -> int | None:
    """Return the id in an account file; None makes its line malformed, so that no overflow can turn it into another."""
    return int(text) if _DIGITS.fullmatch(text) and int(text) <= LARGEST_ID else None
