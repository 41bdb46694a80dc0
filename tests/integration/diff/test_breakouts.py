"""The 34 archives containerd's unpacker must survive, with the outcomes it promises, here and in a sealed helper."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pydock.base import errors
from pydock.testing import layers

pytestmark = pytest.mark.root

D, F, S, L = layers.directory, layers.file, layers.symlink, layers.hardlink
Check = Callable[[Path], None]
ETC = (D(b"etc", 0o770), F(b"/etc/passwd", b"inside"))


def inside(root: Path, name: str) -> Path:
    """Where ``name`` leads for a process that has ``root`` as its /."""
    fd = os.open(root, os.O_PATH)
    try:
        from pydock.base import safefs

        found = safefs.open_in_root(fd, name.encode(), os.O_PATH)
        try:
            return Path(os.readlink(f"/proc/self/fd/{found}"))
        finally:
            os.close(found)
    finally:
        os.close(fd)


def unbroken(root: Path) -> None:
    assert (root / "etc/unbroken").read_bytes() == b"unbroken"


def same(one: str, two: str) -> Check:
    def check(root: Path) -> None:
        assert inside(root, one).stat().st_ino == inside(root, two).stat().st_ino

    return check


def differ(one: str, two: str) -> Check:
    def check(root: Path) -> None:
        assert inside(root, one).stat().st_ino != inside(root, two).stat().st_ino

    return check


def same_link(one: str, two: str) -> Check:
    def check(root: Path) -> None:
        assert (root / one).is_symlink() and (root / two).is_symlink()
        assert os.readlink(root / one) == os.readlink(root / two)
        assert inside(root, one) == inside(root, two)

    return check


def holds(name: str, data: bytes) -> Check:
    def check(root: Path) -> None:
        assert (root / name).read_bytes() == data

    return check


def absent(name: str) -> Check:
    def check(root: Path) -> None:
        assert not os.path.lexists(root / name)

    return check


def etc_first(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc/passwd").write_bytes(b"inside")


def with_directory(root: Path) -> None:
    etc_first(root)
    (root / "localetc").mkdir()


def with_link(target: str) -> Check:
    def prepare(root: Path) -> None:
        etc_first(root)
        (root / "etc/whitedout").write_bytes(b"to go")
        (root / "localetc").symlink_to(target)

    return prepare


def with_link_and_second_name(root: Path) -> None:
    with_link("etc")(root)
    os.link(root / "etc/passwd", root / "etc/localpasswd")


@dataclass(frozen=True)
class Case:
    """An archive for a target that ``before`` prepares; either all ``after`` hold or it is refused."""

    name: str
    entries: tuple[bytes, ...]
    after: tuple[Check, ...] = ()
    before: Check | None = None
    refused: bool = False


CASES = (
    Case("absolute symlink as parent", (D(b"etc"), S(b"/etc", b"localetc"), F(b"/localetc/unbroken", b"unbroken")), (unbroken,)),
    Case(
        "symlink up and out",
        (D(b"etc"), D(b"dummy"), S(b"/dummy/../etc", b"localetc"), F(b"/localetc/unbroken", b"unbroken")),
        (unbroken,),
    ),
    Case(
        "two absolute symlinks",
        (D(b"etc"), D(b"dummy"), S(b"/etc", b"/dummy/etc"), S(b"/dummy/etc", b"localetc"), F(b"/dummy/etc/unbroken", b"unbroken")),
        (unbroken,),
    ),
    Case(
        "two symlinks, one relative",
        (D(b"etc"), D(b"dummy"), S(b"/etc", b"/dummy/etc"), S(b"./dummy/etc", b"localetc"), F(b"/dummy/etc/unbroken", b"unbroken")),
        (unbroken,),
    ),
    Case(
        "file emptied through a symlink",
        (D(b"etc"), F(b"etc/emptied", b"notempty"), S(b"/etc", b"localetc"), F(b"/localetc/emptied")),
        (holds("etc/emptied", b""),),
    ),
    Case(
        "hard link through a relative symlink",
        (*ETC, D(b"breakouts"), S(b"../../etc", b"breakouts/d1"), L(b"/breakouts/d1/passwd", b"breakouts/mypasswd")),
        (same("breakouts/mypasswd", "etc/passwd"),),
    ),
    Case(
        "hard link down and out",
        (*ETC, D(b"breakouts"), D(b"downandout"), S(b"../downandout/../../etc", b"breakouts/d1"),
         L(b"/breakouts/d1/passwd", b"breakouts/mypasswd")),
        (same("breakouts/mypasswd", "etc/passwd"),),
    ),
    Case("hard link through an absolute symlink", (*ETC, S(b"/etc", b"localetc"), L(b"/localetc/passwd", b"localpasswd")),
         (same("localpasswd", "etc/passwd"),)),
    Case("hard link through a long climb", (*ETC, S(b"../../../../../../../etc", b"localetc"), L(b"/localetc/passwd", b"localpasswd")),
         (same("localpasswd", "etc/passwd"),)),
    Case("hard link through a climb over a missing name",
         (*ETC, S(b"upandout/../../../etc", b"localetc"), L(b"/localetc/passwd", b"localpasswd")), (same("localpasswd", "etc/passwd"),)),
    Case("hard link to a climbing name", (*ETC, L(b"../../../../../etc/passwd", b"localpasswd")), (same("localpasswd", "etc/passwd"),)),
    Case("hard link to an absolute name", (*ETC, L(b"/etc/passwd", b"localpasswd")), (same("localpasswd", "etc/passwd"),)),
    Case("symlink named ..", (*ETC, S(b"/etc/", b".."), L(b"/etc/passwd", b"localpasswd")), (same("localpasswd", "etc/passwd"),)),
    Case("symlink without a name", (*ETC, S(b"/etc/", b""), L(b"/etc/passwd", b"localpasswd")), (same("localpasswd", "etc/passwd"),)),
    Case("symlink named by a climb", (*ETC, S(b"/etc/", b"localetc/sub/.."), L(b"/etc/passwd", b"/localetc/localpasswd")),
         (same("localetc/localpasswd", "etc/passwd"),)),
    Case("directory with a slash", (*ETC, D(b"localetc/", 0o770), L(b"/etc/passwd", b"/localetc/localpasswd")),
         (same("localetc/localpasswd", "etc/passwd"),)),
    Case("symlink over a directory", (S(b"/etc", b"localetc"), L(b"/etc/passwd", b"/localetc/localpasswd")),
         (same("localetc/localpasswd", "etc/passwd"), same("etc/localpasswd", "etc/passwd")), with_directory),
    Case("climbing symlink over a directory", (S(b"../../etc", b"localetc"), L(b"/etc/passwd", b"/localetc/localpasswd")),
         (same("localetc/localpasswd", "etc/passwd"),), with_directory),
    Case("directory over a symlink", (D(b"/localetc/"), L(b"/etc/passwd", b"/localetc/localpasswd")),
         (same("localetc/localpasswd", "etc/passwd"), absent("etc/localpasswd")), with_link("/etc")),
    Case("directory over a symlink, then its file", (D(b"/localetc/"), F(b"/localetc/localpasswd", b"different")),
         (differ("localetc/localpasswd", "etc/passwd"), holds("etc/passwd", b"inside")), with_link_and_second_name),
    Case("whiteout of .. in the root", (F(b".wh..."),), (), etc_first, refused=True),
    Case("whiteout of ..", (F(b"etc/.wh..."),), (), etc_first, refused=True),
    Case("whiteout of . in the root", (F(b".wh.."),), (), etc_first, refused=True),
    Case("whiteout of .", (F(b"etc/.wh.."),), (), etc_first, refused=True),
    Case("whiteout of a symlink", (F(b".wh.localetc"),), (holds("etc/passwd", b"inside"), absent("localetc")), with_link("/etc")),
    Case("whiteout through a symlink", (F(b"localetc/.wh.whitedout"),), (holds("etc/passwd", b"inside"), absent("etc/whitedout")),
         with_link("/etc")),
    Case("whiteout name as a directory", (F(b".wh.etc/somefile", b"non-empty"),),
         (holds("etc/passwd", b"inside"), holds(".wh.etc/somefile", b"non-empty")), with_link("/etc")),
    Case("whiteout below a dangling symlink", (F(b"localetc/.wh.etc"),), (holds("etc/passwd", b"inside"),), with_link("/dne")),
    Case("whiteout by a climb over a missing name", (F(b"dne/../.wh.etc"),), (absent("etc/passwd"), absent("etc")), with_link("/dne")),
    Case(
        "symlink to / over a directory and back",
        (D(b"foo"), D(b"foo/tmp"), F(b"foo/tmp/breakout", b"1"), S(b"/", b"foo"), F(b"foo/tmp/breakout", b"2"), D(b"foo"), D(b"foo/tmp"),
         F(b"foo/tmp/breakout", b"3")),
        (holds("foo/tmp/breakout", b"3"), holds("tmp/breakout", b"2")),
    ),
    Case(
        "hard link to a symlink made before its target",
        (D(b"etc", 0o770), S(b"/etc/passwd", b"localpasswd"), L(b"localpasswd", b"localpasswd-dup"), F(b"/etc/passwd", b"after")),
        (same("localpasswd-dup", "etc/passwd"),),
    ),
    Case("hard link to a climbing symlink", (*ETC, S(b"../../../../../etc/passwd", b"passwdlink"), L(b"/passwdlink", b"localpasswd")),
         (same_link("localpasswd", "passwdlink"), same("localpasswd", "etc/passwd"))),
    Case("hard link to an absolute symlink", (*ETC, S(b"/etc/passwd", b"passwdlink"), L(b"/passwdlink", b"localpasswd")),
         (same_link("localpasswd", "passwdlink"), same("localpasswd", "etc/passwd"))),
)  # fmt: skip


def test_all_cases_are_here() -> None:
    assert len(CASES) + 1 == 34, "and the one below, which needs names of files outside"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_nothing_leaves_the_root(case: Case, unpack: Any, root: Path, outside: Any) -> None:
    if case.before is not None:
        case.before(root)
    if case.refused:
        with pytest.raises(errors.InvalidArgument):
            unpack(layers.tar(*case.entries), root)
        assert (root / "etc/passwd").read_bytes() == b"inside"
        return
    unpack(layers.tar(*case.entries), root)
    for check in case.after:
        check(root)


@pytest.mark.parametrize("case", [case for case in CASES if case.before is None], ids=lambda case: case.name.replace(" ", "-"))
def test_nothing_leaves_an_overlay_upper_directory(case: Case, unpack: Any, root: Path, outside: Any) -> None:
    unpack(layers.tar(*case.entries), root, "overlay")
    for check in case.after:
        check(root)


async def test_a_sealed_helper_gives_the_same_outcomes(seal: Any, tmp_path: Path, outside: Any) -> None:
    for number, case in enumerate(CASES):
        root = tmp_path / str(number)
        root.mkdir()
        if case.before is not None:
            case.before(root)
        if case.refused:
            with pytest.raises(errors.InvalidArgument):
                await seal(layers.tar(*case.entries), root)
            continue
        await seal(layers.tar(*case.entries), root)
        for check in case.after:
            check(root)


def test_a_hard_link_to_a_symlink_changes_no_mode_outside(unpack: Any, root: Path, outside: Any) -> None:
    secret, tool = os.fsencode(outside.folder / "secret"), os.fsencode(outside.folder / "tool")
    unpack(layers.tar(S(secret, tool), L(tool, b"sketchylink", layers.Meta(mode=0o777, uid=1, gid=1))), root)
    assert os.readlink(root / "sketchylink") == str(outside.folder / "secret")


def test_a_directory_swapped_for_a_link_while_unpacking_leads_nowhere(root: Path, outside: Any) -> None:
    from pydock_plugins.diff import apply, limits

    def pieces() -> Iterator[bytes]:
        yield D(b"d") + F(b"d/a", b"x") + D(b"e")  # "d" is held open from here on, "e" not yet
        for name in ("d", "e"):
            (root / name).rename(root / (name + "-away"))
            (root / name).symlink_to(outside.folder / "deep")
        yield F(b"d/b", b"x") + L(b"d/a", b"d/c") + F(b"d/.wh.passwd") + F(b"e/passwd", b"x") + layers.END

    fd = os.open(root, os.O_PATH)
    try:
        with pytest.raises(errors.InvalidArgument, match='"e/passwd": Not a directory'):
            apply.apply(functools.partial(next, pieces(), b""), apply.Target(fd, "plain"), limits.Limits())
    finally:
        os.close(fd)
    assert sorted(os.listdir(root / "d-away")) == ["a", "b", "c"]
