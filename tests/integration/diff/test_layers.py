"""Layer archives of every odd kind, as a table: what each leaves behind, or the error that names it."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pydock.base import errors
from pydock.testing import layers
from pydock_plugins.diff import limits

pytestmark = pytest.mark.root

D, F, S, L, M = layers.directory, layers.file, layers.symlink, layers.hardlink, layers.Meta
BAD, MUCH = errors.InvalidArgument, errors.ResourceExhausted
CHAR, BLOCK, FIFO = b"3", b"4", b"6"


def look(root: Path) -> dict[bytes, str]:
    """Every path below ``root`` with its type, mode and content or target."""
    seen: dict[bytes, str] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            seen[path[len(top) + 1 :]] = _describe(path)
    return seen


def _describe(path: bytes) -> str:
    status = os.lstat(path)
    mode = f"{stat.S_IMODE(status.st_mode):o}"
    if stat.S_ISLNK(status.st_mode):
        return "-> " + os.readlink(path).decode("latin-1")
    if stat.S_ISREG(status.st_mode):
        data = Path(os.fsdecode(path)).read_bytes()
        return f"file {mode} {data.decode('latin-1') if len(data) < 100 else len(data)}"
    if stat.S_ISDIR(status.st_mode):
        return f"dir {mode}"
    kind = {stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFIFO: "fifo"}[stat.S_IFMT(status.st_mode)]
    device = "" if kind == "fifo" else f" {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return f"{kind} {mode}{device}"


@dataclass(frozen=True)
class Case:
    """``layer`` over the layer ``below`` gives the tree ``after``, or the error with ``says`` in it."""

    name: str
    layer: bytes
    after: dict[bytes, str] | None = None
    error: type[errors.PydockError] | None = None
    says: str = ""
    below: bytes = b""


def good(name: str, *entries: bytes, after: dict[bytes, str], below: bytes = b"") -> Case:
    return Case(name, layers.tar(*entries), after, below=below)


def bad(name: str, *entries: bytes, says: str, error: type[errors.PydockError] = BAD) -> Case:
    return Case(name, layers.tar(*entries), None, error, says)


LONG = b"n" * 255
DEEP = b"/".join([b"d"] * 2047)
PLAIN = "file 644 x"
BELOW = layers.tar(D(b"d"), F(b"d/low", b"l"), D(b"d/sub"), F(b"d/sub/low", b"l"), F(b"f", b"l"))

NAMES = (
    good("no-name", F(b"", b"x"), after={}),
    good("dot", D(b"."), after={}),
    good("dot-slash", D(b"./", 0o700), F(b"./a", b"x"), after={b"a": PLAIN}),
    good("slash", D(b"/"), after={}),
    good("two-slashes", F(b"//a", b"x"), after={b"a": PLAIN}),
    good("dot-dot", F(b"..", b"x"), after={}),
    good("climb", F(b"a/../../b", b"x"), after={b"b": PLAIN}),
    good("climb-at-the-start", F(b"../../../b", b"x"), after={b"b": PLAIN}),
    good("doubled-slash-inside", F(b"a//b", b"x"), after={b"a": "dir 755", b"a/b": PLAIN}),
    good("slash-at-the-end-of-a-file", F(b"a/", b"x"), after={b"a": PLAIN}),
    good("old-archive-directory-by-slash", layers.entry(b"a/", b"\0"), after={b"a": "dir 644"}),
    good("old-archive-file", layers.entry(b"a", b"\0", b"x"), after={b"a": PLAIN}),
    good("name-ends-at-nul", F(b"a\0b", b"x"), after={b"a": PLAIN}),
    good("newline", F(b"a\nb", b"x"), after={b"a\nb": PLAIN}),
    good("not-utf-8", F(b"\xff\xfe", b"x"), after={b"\xff\xfe": PLAIN}),
    good("hidden-file", F(b"a/.b", b"x"), F(b".c", b"x"), after={b"a": "dir 755", b"a/.b": PLAIN, b".c": PLAIN}),
    good("component-255", F(LONG, b"x"), after={LONG: PLAIN}),
    bad("component-256", F(LONG + b"n", b"x"), says="too long"),
    bad("path-over-4095", F(b"/".join([LONG] * 17), b"x"), says="longer than 4095"),
    good("name-of-100", F(b"n" * 100, b"x"), after={b"n" * 100: PLAIN}),
    good("ustar-prefix", F(b"b", b"x", M(raw={345: b"p/q"})), after={b"p": "dir 755", b"p/q": "dir 755", b"p/q/b": PLAIN}),
    good("gnu-has-no-prefix", F(b"b", b"x", M(magic=layers.GNU, raw={345: b"p/q"})), after={b"b": PLAIN}),
    good("last-of-two-gnu-names",
         layers.entry(b"L", b"L", b"one\0"), layers.entry(b"L", b"L", b"two\0"), F(b"b", b"x"), after={b"two": PLAIN}),
    bad("endless-extensions", *[layers.entry(b"L", b"L", b"one\0")] * 20, F(b"b"), says="extension headers in a row", error=MUCH),
)  # fmt: skip

TYPES = (
    good("same-name-twice", F(b"a", b"1"), F(b"a", b"22"), after={b"a": "file 644 22"}),
    good("directory-to-file", D(b"a"), F(b"a/b", b"x"), F(b"a", b"x"), after={b"a": PLAIN}),
    good("file-to-directory", F(b"a", b"x"), D(b"a"), F(b"a/b", b"x"), after={b"a": "dir 755", b"a/b": PLAIN}),
    good("symlink-to-directory", S(b"x", b"a"), D(b"a"), F(b"a/b", b"x"), after={b"a": "dir 755", b"a/b": PLAIN}),
    good("directory-to-symlink", D(b"b"), D(b"a"), F(b"a/b", b"x"), S(b"b", b"a"), F(b"a/c", b"x"),
         after={b"b": "dir 755", b"a": "-> b", b"b/c": PLAIN}),
    good("fifo-to-file", layers.entry(b"a", FIFO), F(b"a", b"x"), after={b"a": PLAIN}),
    bad("file-as-parent", F(b"a", b"x"), F(b"a/b", b"x"), says="Not a directory"),
    good("hard-link", F(b"a", b"x"), L(b"a", b"b"), after={b"a": PLAIN, b"b": PLAIN}),
    bad("hard-link-to-nothing", L(b"a", b"b"), says="not there"),
    bad("hard-link-to-a-later-file", L(b"a", b"b"), F(b"a"), says="not there"),
    bad("hard-link-to-itself", F(b"a"), L(b"a", b"a"), says="to itself"),
    bad("hard-link-to-itself-by-a-climb", F(b"a"), L(b"x/../a", b"./a"), says="to itself"),
    bad("hard-link-to-a-directory", D(b"a"), L(b"a", b"b"), says="not permitted"),
    bad("hard-link-to-the-root", L(b"/", b"b"), says="to a directory"),
    bad("hard-link-to-no-name", L(b"", b"b"), says="to a directory"),
    bad("hard-link-to-a-climb-out", L(b"../..", b"b"), says="to a directory"),
    bad("hard-link-with-a-slash", F(b"a"), L(b"a/", b"b"), says="to a directory"),
    bad("hard-link-below-a-file", F(b"a"), L(b"a/b", b"b"), says="Not a directory"),
    good("hard-link-over-a-file", F(b"a", b"x"), F(b"b", b"old"), L(b"a", b"b"), after={b"a": PLAIN, b"b": PLAIN}),
    bad("hard-link-over-the-directory-of-its-target", D(b"d"), F(b"d/a", b"x"), L(b"d/a", b"d"), says="not there"),
    good("data-after-a-link-is-none", layers.entry(b"a", b"2", link=b"t", meta=M(size=600)), F(b"b", b"x"),
         after={b"a": "-> t", b"b": PLAIN}),
    bad("unknown-type", layers.entry(b"a", b"Z"), says="unknown entry type"),
    bad("contiguous-file", layers.entry(b"a", b"7"), says="unknown entry type"),
)  # fmt: skip

LINKS = (
    bad("symlink-loop", S(b"b", b"a"), S(b"a", b"b"), F(b"a/x"), says="too many symbolic links"),
    bad("symlink-to-itself", S(b"a", b"a"), F(b"a/x"), says="too many symbolic links"),
    good("symlink-to-itself-alone", S(b"a", b"a"), after={b"a": "-> a"}),
    bad("symlink-target-empty", S(b"", b"a"), says="No such file"),
    bad("symlink-target-64k", S(b"t" * 65536, b"a"), says="too long"),
    good("symlink-target-not-utf-8", S(b"\xff", b"a"), after={b"a": "-> \xff"}),
    good("dangling-symlink-as-parent", S(b"/new/place", b"a"), F(b"a/x", b"x"),
         after={b"a": "-> /new/place", b"new": "dir 755", b"new/place": "dir 755", b"new/place/x": PLAIN}),
    bad("symlink-to-a-file-as-parent", F(b"f"), S(b"f", b"a"), F(b"a/x"), says="Not a directory"),
)  # fmt: skip

DEVICES = (
    good("char-device", layers.entry(b"a", CHAR, meta=M(mode=0o620, major=5, minor=1)), after={b"a": "char 620 5:1"}),
    good("block-device", layers.entry(b"a", BLOCK, meta=M(mode=0o660, major=8, minor=0)), after={b"a": "block 660 8:0"}),
    good("fifo", layers.entry(b"a", FIFO, meta=M(mode=0o600)), after={b"a": "fifo 600"}),
    good("overlay-whiteout-as-device", layers.entry(b"a", CHAR), F(b"b", b"x"), after={b"b": PLAIN}),
    bad("negative-major", layers.entry(b"a", CHAR, meta=M(major=-1)), says="out of range"),
    bad("negative-minor", layers.entry(b"a", BLOCK, meta=M(major=1, minor=-5)), says="out of range"),
    bad("huge-major", layers.entry(b"a", CHAR, meta=M(major=1 << 32)), says="out of range"),
    bad("major-over-12-bits", layers.entry(b"a", CHAR, meta=M(major=4096)), says="out of range"),
    bad("minor-over-20-bits", layers.entry(b"a", CHAR, meta=M(major=1, minor=1 << 20)), says="out of range"),
)

WHITEOUTS = (
    bad("whiteout-of-nothing", F(b".wh."), says="whiteout of no name"),
    bad("whiteout-of-dot", F(b".wh.."), says="whiteout of no name"),
    bad("whiteout-of-dot-dot", F(b"d/.wh..."), says="whiteout of no name"),
    good("whiteout-of-a-missing-name", F(b".wh.none"), F(b"a", b"x"), after={b"a": PLAIN}),
    good("whiteout-of-a-file", F(b".wh.f"),
         after={b"d": "dir 755", b"d/low": "file 644 l", b"d/sub": "dir 755", b"d/sub/low": "file 644 l"},
         below=BELOW),
    good("whiteout-of-a-directory", F(b".wh.d"), after={b"f": "file 644 l"}, below=BELOW),
    good("whiteout-then-the-name", F(b".wh.d"), D(b"d", 0o700), F(b"d/new", b"x"),
         after={b"d": "dir 700", b"d/new": PLAIN, b"f": "file 644 l"}, below=BELOW),
    good("the-name-then-its-whiteout", D(b"d", 0o700), F(b"d/new", b"x"), F(b".wh.d"),
         after={b"d": "dir 700", b"d/new": PLAIN, b"f": "file 644 l"}, below=BELOW),
    good("whiteout-of-a-file-of-the-same-layer", F(b"f", b"x"), F(b".wh.f"), F(b".wh.d"), after={b"f": PLAIN}, below=BELOW),
    good("whiteout-twice", F(b".wh.d"), F(b".wh.d"), after={b"f": "file 644 l"}, below=BELOW),
    good("opaque-before", D(b"d"), F(b"d/.wh..wh..opq"), F(b"d/new", b"x"),
         after={b"d": "dir 755", b"d/new": PLAIN, b"f": "file 644 l"}, below=BELOW),
    good("opaque-after", D(b"d"), F(b"d/new", b"x"), F(b"d/.wh..wh..opq"),
         after={b"d": "dir 755", b"d/new": PLAIN, b"f": "file 644 l"}, below=BELOW),
    good("opaque-keeps-a-parent-not-in-the-archive", F(b"d/sub/new", b"x"), F(b"d/.wh..wh..opq"),
         after={b"d": "dir 755", b"d/sub": "dir 755", b"d/sub/new": PLAIN, b"f": "file 644 l"}, below=BELOW),
    good("opaque-of-a-lower-then-a-higher-directory", F(b"d/sub/.wh..wh..opq"), F(b"d/sub/a", b"x"), F(b"d/.wh..wh..opq"), F(b"d/b", b"x"),
         after={b"d": "dir 755", b"d/sub": "dir 755", b"d/sub/a": PLAIN, b"d/b": PLAIN, b"f": "file 644 l"}, below=BELOW),
    good("opaque-root", F(b".wh..wh..opq"), F(b"new", b"x"), after={b"new": PLAIN}, below=BELOW),
    good("opaque-root-after", F(b"new", b"x"), F(b"d/new", b"x"), F(b".wh..wh..opq"),
         after={b"new": PLAIN, b"d": "dir 755", b"d/new": PLAIN}, below=BELOW),
    good("opaque-of-a-new-directory", F(b"n/.wh..wh..opq"), F(b"n/a", b"x"), after={b"n": "dir 755", b"n/a": PLAIN}),
    good("aufs-book-keeping", F(b".wh..wh.plnk"), F(b".wh..wh.x"), D(b".wh..wh.orph"), after={}),
    good("directory-named-as-whiteout", D(b".wh.d"), after={b"f": "file 644 l"}, below=BELOW),
    bad("hard-link-to-what-the-layer-removed", F(b".wh.f"), L(b"f", b"g"), says="hard link"),
)  # fmt: skip


def time(value: bytes) -> bytes:
    return layers.pax({b"mtime": value})


PAX = (
    good("pax-path", layers.pax({b"path": b"p/q"}), F(b"a", b"x"), after={b"p": "dir 755", b"p/q": PLAIN}),
    good("pax-linkpath", layers.pax({b"linkpath": b"t" * 300}), S(b"short", b"a"), after={b"a": "-> " + "t" * 300}),
    good("pax-size", layers.pax({b"size": b"1"}), F(b"a", b"x", M(size=0)), after={b"a": PLAIN}),
    good("pax-path-empty-keeps-the-header", layers.pax({b"path": b""}), F(b"a", b"x"), after={b"a": PLAIN}),
    good("pax-path-escaping", layers.pax({b"path": b"../../../../b"}), F(b"a", b"x"), after={b"b": PLAIN}),
    good("pax-global-is-dropped", layers.pax({b"path": b"evil", b"uid": b"7"}, b"g"), F(b"a", b"x"), after={b"a": PLAIN}),
    good("pax-global-alone", layers.pax({b"comment": b"c"}, b"g"), after={}),
    good("pax-key-unknown", layers.pax({b"VENDOR.x": b"1"}), F(b"a", b"x"), after={b"a": PLAIN}),
    bad("pax-path-with-nul", layers.pax({b"path": b"a\0b"}), F(b"a"), says="no key=value"),
    bad("pax-length-too-long", layers.raw_pax(b"99 path=a\n"), F(b"a"), says="wrong length"),
    bad("pax-length-too-short", layers.raw_pax(b"5 path=a\n"), F(b"a"), says="wrong length"),
    bad("pax-length-missing", layers.raw_pax(b" path=a\n"), F(b"a"), says="without a length"),
    bad("pax-length-negative", layers.raw_pax(b"-9 path=a\n"), F(b"a"), says="without a length"),
    bad("pax-length-huge", layers.raw_pax(b"9" * 30 + b" path=a\n"), F(b"a"), says="without a length"),
    bad("pax-without-equals", layers.raw_pax(b"8 patha\n"), F(b"a"), says="no key=value"),
    bad("pax-time-nan", time(b"nan"), F(b"a"), says="no number"),
    bad("pax-time-exponent", time(b"1e309"), F(b"a"), says="no number"),
    bad("pax-time-underscore", time(b"1_0"), F(b"a"), says="no number"),
    good("pax-time-negative", time(b"-1.5"), F(b"a", b"x"), after={b"a": PLAIN}),
    good("pax-time-far", time(b"9223372036854775807"), F(b"a", b"x"), after={b"a": PLAIN}),
    bad("pax-uid-negative", layers.pax({b"uid": b"-1"}), F(b"a"), says="out of range"),
    bad("pax-uid-wraps", layers.pax({b"uid": b"4294967296"}), F(b"a"), says="out of range"),
    bad("pax-uid-keep", layers.pax({b"uid": b"4294967295"}), F(b"a"), says="out of range"),
    bad("pax-gid-huge", layers.pax({b"gid": b"9223372036854775808"}), F(b"a"), says="out of range"),
    bad("pax-size-negative", layers.pax({b"size": b"-1"}), F(b"a"), says="negative size"),
    bad("pax-size-arabic-digits", layers.pax({b"size": "٣".encode()}), F(b"a"), says="no number"),
    bad("pax-of-2-mib", layers.pax({b"comment": b"c" * (2 << 20)}), F(b"a"), says="extension header of", error=MUCH),
    bad("pax-said-to-be-100-gib", layers.entry(b"x", b"x", meta=M(size=100 << 30)), says="extension header of", error=MUCH),
    bad("pax-describes-nothing", layers.pax({b"path": b"a"}), says="describes nothing"),
    bad("base-256-negative-size", F(b"a", meta=M(size=-5)), says="negative size"),
    bad("base-256-negative-uid", F(b"a", meta=M(uid=-5)), says="out of range"),
    good("base-256-uid", F(b"a", b"x", M(uid=3_000_000)), after={b"a": PLAIN}),
    bad("octal-field-with-letters", F(b"a", meta=M(raw={124: b"0o17\0"})), says="no octal number"),
    bad("octal-field-with-underscore", F(b"a", meta=M(raw={124: b"1_0\0"})), says="no octal number"),
    bad("many-xattrs", layers.pax([(b"SCHILY.xattr.user.%d" % n, b"v") for n in range(300)]), F(b"a"),
        says="extended attributes", error=MUCH),
    bad("xattr-over-64k", layers.pax({b"SCHILY.xattr.user.big": b"v" * 70000}), F(b"a"), says="too long", error=MUCH),
    bad("xattr-without-name", layers.pax({b"SCHILY.xattr.": b"v"}), F(b"a"), says="proper name"),
    good("xattr-of-no-namespace", layers.pax({b"SCHILY.xattr.nonsense": b"v"}), F(b"a", b"x"), after={b"a": PLAIN}),
)  # fmt: skip


def gnu_sparse(pieces: list[tuple[int, int]], real: int, data: bytes) -> bytes:
    table = b"".join(layers.number(offset, 12) + layers.number(size, 12) for offset, size in pieces)
    return layers.entry(b"a", b"S", data, meta=M(magic=layers.GNU, raw={386: table, 483: layers.number(real, 12)}))


def sparse_1_0(text: bytes, real: int, data: bytes) -> bytes:
    records = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"a", b"GNU.sparse.realsize": b"%d" % real}
    return layers.pax(records) + F(b"GNUSparseFile.0/a", text + bytes(-len(text) % 512) + data)


HOLES = "file 644 \0\0xy\0\0z\0"
SPARSE = (
    good("sparse-gnu", gnu_sparse([(2, 2), (6, 1), (8, 0)], 8, b"xyz"), F(b"b", b"x"), after={b"a": HOLES, b"b": PLAIN}),
    good("sparse-pax-0.0", layers.pax([(b"GNU.sparse.size", b"8"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.offset", b"2"),
         (b"GNU.sparse.numbytes", b"2"), (b"GNU.sparse.offset", b"6"), (b"GNU.sparse.numbytes", b"1")]), F(b"a", b"xyz"),
         after={b"a": HOLES}),
    good("sparse-pax-0.1", layers.pax({b"GNU.sparse.size": b"8", b"GNU.sparse.name": b"a", b"GNU.sparse.map": b"2,2,6,1"}),
         F(b"GNUSparseFile.0/a", b"xyz"), after={b"a": HOLES}),
    good("sparse-pax-1.0", sparse_1_0(b"2\n2\n2\n6\n1\n", 8, b"xyz"), F(b"b", b"x"), after={b"a": HOLES, b"b": PLAIN}),
    bad("sparse-overlapping", gnu_sparse([(2, 2), (3, 1)], 8, b"xyz"), says="overlaps"),
    bad("sparse-past-the-end", gnu_sparse([(2, 3)], 4, b"xyz"), says="leaves the file"),
    bad("sparse-negative", gnu_sparse([(-2, 3)], 4, b"xyz"), says="leaves the file"),
    bad("sparse-more-than-the-data", gnu_sparse([(0, 3)], 4, b"xy"), says="add up"),
    bad("sparse-map-huge", sparse_1_0(b"99999999\n", 8, b"xyz"), says="pieces in a sparse file", error=MUCH),
    bad("sparse-map-endless-line", sparse_1_0(b"1" * 2000, 8, b"xyz"), says="sparse map"),
    bad("sparse-of-an-exabyte", gnu_sparse([(0, 1), (1 << 60, 0)], 1 << 60, b"x"), says="sparse file of", error=MUCH),
)  # fmt: skip

WHOLE = layers.tar(D(b"d"), F(b"d/a", b"x" * 600), S(b"t", b"l"))
STREAM = (
    Case("empty-blob", b"", {}),
    Case("only-end-blocks", layers.END, {}),
    Case("no-end-blocks", F(b"a", b"x"), {b"a": PLAIN}),
    Case("one-end-block", F(b"a", b"x") + bytes(512), {b"a": PLAIN}),
    Case("end-block-then-more", F(b"a", b"x") + bytes(512) + F(b"b"), None, BAD, "end-of-archive"),
    Case("bytes-after-the-end", layers.tar(F(b"a", b"x")) + b"rubbish", {b"a": PLAIN}),
    Case("a-second-archive-after-the-end", layers.tar(F(b"a", b"x")) + layers.tar(F(b"b", b"x")), {b"a": PLAIN}),
    Case("bad-checksum", layers.tar(F(b"a", b"x")).replace(b"a", b"b", 1), None, BAD, "checksum"),
    Case("not-an-archive", b"hello world" * 100, None, BAD, "octal|checksum"),
    Case("size-over-the-data", F(b"a", b"x", M(size=5000)) + layers.END, None, BAD, "cut short"),
    Case("gzip-in-gzip", layers.gzipped(layers.gzipped(WHOLE)), None, BAD, "cut short"),
    Case("gzip", layers.gzipped(layers.tar(F(b"a", b"x"))), {b"a": PLAIN}),
    Case(
        "gzip-members",
        layers.gzipped(F(b"a", b"x")) + layers.gzipped(F(b"b", b"x")) + layers.gzipped(layers.END),
        {b"a": PLAIN, b"b": PLAIN},
    ),
    Case("gzip-of-nothing", layers.gzipped(b""), {}),
    Case("gzip-with-rubbish-after", layers.gzipped(WHOLE) + b"rubbish", None, BAD, "after its last member|follow its last member"),
    Case("gzip-crc-wrong-after-the-archive", layers.gzipped(WHOLE)[:-8] + struct.pack("<II", 1, len(WHOLE)), None, BAD, "not valid gzip"),
)

ALL = NAMES + TYPES + LINKS + DEVICES + WHITEOUTS + PAX + SPARSE + STREAM


def test_the_table_is_as_large_as_promised() -> None:
    assert len(ALL) >= 90
    assert len({case.name for case in ALL}) == len(ALL)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_layer_on_a_plain_directory(case: Case, unpack: Any, root: Path, outside: Any) -> None:
    if case.below:
        unpack(case.below, root)
    if case.error is not None:
        with pytest.raises(case.error, match=case.says):
            unpack(case.layer, root)
    else:
        unpack(case.layer, root)
        assert look(root) == case.after


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_layer_seen_through_overlayfs_is_the_same(case: Case, unpack: Any, overlay: Any, outside: Any) -> None:
    if case.below:
        unpack(case.below, overlay.lower)
    below = (overlay.lower,) if case.below else ()
    if case.error is not None:
        with pytest.raises(case.error, match=case.says):
            unpack(case.layer, overlay.upper, "overlay", below)
        return
    unpack(case.layer, overlay.upper, "overlay", below)
    with overlay.mounted() as merged:
        assert look(merged) == case.after


async def test_a_sealed_helper_ends_every_case_the_same_way(seal: Any, unpack: Any, tmp_path: Path) -> None:
    for number, case in enumerate(ALL):
        root = tmp_path / str(number)
        root.mkdir()
        if case.below:
            unpack(case.below, root)
        if case.error is not None:
            with pytest.raises(case.error, match=case.says):
                await seal(case.layer, root)
        else:
            await seal(case.layer, root)
            assert look(root) == case.after, case.name


def test_an_archive_cut_at_any_block_is_refused_or_whole(unpack: Any, root: Path) -> None:
    between_entries = {0: 0, 512: 1, 512 * 4: 2, 512 * 5: 3}
    for size, entries in between_entries.items():
        assert unpack(WHOLE[:size], root).entries == entries
    for size in {1, 511, 513, 1025, 1500, *range(0, 512 * 5, 512)} - set(between_entries):
        with pytest.raises(errors.InvalidArgument, match="cut short"):
            unpack(WHOLE[:size], root)


def test_limits_name_the_entry(unpack: Any, root: Path) -> None:
    many = layers.tar(*[F(b"f%d" % n) for n in range(20)])
    with pytest.raises(MUCH, match='"f10": more than 10 entries'):
        unpack(many, root, bounds=limits.Limits(entries=10))
    with pytest.raises(MUCH, match="over 1000 bytes uncompressed"):
        unpack(layers.tar(F(b"a", b"x" * 2000)), root, bounds=limits.Limits(bytes=1000))
    with pytest.raises(MUCH, match="grows more than 50 times"):
        unpack(layers.gzipped(layers.tar(F(b"a", bytes(8 << 20)))), root, bounds=limits.Limits(ratio=50, ratio_floor=1 << 20))
    with pytest.raises(MUCH, match="parent directories"):
        unpack(layers.tar(F(b"/".join([b"d"] * 40))), root, bounds=limits.Limits(entries=10))


def test_a_chain_of_directories_as_deep_as_a_path_can_be(unpack: Any, root: Path) -> None:
    unpack(layers.tar(F(DEEP + b"/f", b"x"), L(DEEP + b"/f", b"g"), F(b".wh.none")), root)
    assert (root / "g").stat().st_nlink == 2
    unpack(layers.tar(F(b".wh.d")), root)
    assert os.listdir(root) == ["g"]


def test_links_cannot_chain_directories_beyond_all_bounds(unpack: Any, root: Path) -> None:
    half = b"/".join([b"d"] * 1500)
    with pytest.raises(BAD, match="deeper than"):
        unpack(layers.tar(D(half), S(half, b"l"), F(b"l/" + half + b"/f")), root)
