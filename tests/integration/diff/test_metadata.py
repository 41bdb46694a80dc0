"""Owner, mode, time, attributes and links of what is unpacked, and what an overlay upper directory takes from the layers below."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from pydock.base import errors
from pydock.testing import layers
from pydock_plugins.diff import whiteouts

pytestmark = pytest.mark.root

D, F, S, L, M = layers.directory, layers.file, layers.symlink, layers.hardlink, layers.Meta
CAPABILITY = struct.pack("<IIIII", 0x0200_0001, 1 << 10, 0, 0, 0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_set_id_and_sticky_bits_survive_the_change_of_owner(unpack: Any, root: Path) -> None:
    unpack(
        layers.tar(
            F(b"su", b"x", M(mode=0o4755, uid=7, gid=8)), F(b"sg", b"x", M(mode=0o2711)), D(b"tmp", 0o1777), D(b"sgd", 0o2775),
            F(b"sgd/f", b"x", M(mode=0o640)), D(b"sgd/d", 0o700), layers.entry(b"p", b"6", meta=M(mode=0o6777, uid=7)),
        ),
        root,
    )  # fmt: skip
    assert [mode(root / name) for name in ("su", "sg", "tmp", "sgd", "sgd/f", "sgd/d", "p")] == [
        0o4755, 0o2711, 0o1777, 0o2775, 0o640, 0o700, 0o6777,
    ]  # fmt: skip
    assert ((root / "su").stat().st_uid, (root / "su").stat().st_gid) == (7, 8)


def test_the_umask_does_not_matter_and_missing_parents_are_0755(unpack: Any, root: Path) -> None:
    os.umask(0o077)
    try:
        unpack(layers.tar(F(b"a/b/c", b"x", M(mode=0o666)), D(b"d", 0o777)), root)
    finally:
        os.umask(0o022)
    assert [mode(root / name) for name in ("a", "a/b", "a/b/c", "d")] == [0o755, 0o755, 0o666, 0o777]


def test_a_group_or_default_acl_of_the_target_is_not_inherited(unpack: Any, root: Path) -> None:
    os.chown(root, 0, 500)
    root.chmod(0o2755)
    unpack(layers.tar(F(b"f", b"x"), D(b"d"), F(b"d/f", b"x"), S(b"t", b"s"), F(b"implied/f", b"x")), root)
    for name in ("f", "d", "d/f", "s", "implied", "implied/f"):
        assert (root / name).lstat().st_gid == 0
        assert not (root / name).lstat().st_mode & stat.S_ISGID


def test_times_are_exact_and_those_of_directories_are_set_last(unpack: Any, root: Path) -> None:
    when = layers.pax({b"mtime": b"1234567890.123456789"})
    unpack(layers.tar(when, D(b"d"), when, F(b"d/f", b"x"), when, S(b"t", b"d/s"), D(b"d/e", 0o700), F(b"d/e/g", b"x")), root)
    for name in ("d", "d/f", "d/s"):
        assert (root / name).lstat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (root / "d/e").stat().st_mtime == 1_600_000_000


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [(b"0.5", 500_000_000), (b"-1.5", 0), (b"9223372037", 0), (b"1.0000000019", 1_000_000_001), (b"2.", 2_000_000_000), (b"-0.25", 0)],
)
def test_times_out_of_range_are_the_epoch(unpack: Any, root: Path, text: bytes, nanoseconds: int) -> None:
    unpack(layers.tar(layers.pax({b"mtime": text}), F(b"f")), root)
    assert (root / "f").stat().st_mtime_ns == nanoseconds


def test_attributes_are_set_but_overlayfs_own_are_dropped(unpack: Any, root: Path) -> None:
    records = {
        b"SCHILY.xattr.user.a": b"\0\xff=\n", b"SCHILY.xattr.trusted.overlay.opaque": b"y", b"SCHILY.xattr.trusted.x": b"y",
        b"SCHILY.xattr.user.overlay.redirect": b"/etc", b"SCHILY.xattr.security.capability": CAPABILITY,
    }  # fmt: skip
    unpack(layers.tar(layers.pax(records), F(b"f", b"x", M(mode=0o755, uid=3))), root)
    assert sorted(os.listxattr(root / "f")) == ["security.capability", "user.a"]
    assert os.getxattr(root / "f", "user.a") == b"\0\xff=\n"
    assert os.getxattr(root / "f", "security.capability") == CAPABILITY
    unpack(layers.tar(layers.pax({b"SCHILY.xattr.trusted.overlay.opaque": b"y"}), D(b"d")), root, "overlay")
    assert os.listxattr(root / "d") == []


def test_a_user_attribute_on_a_symlink_is_dropped_not_an_error(unpack: Any, root: Path) -> None:
    unpack(layers.tar(layers.pax({b"SCHILY.xattr.user.a": b"v"}), S(b"t", b"s")), root)
    assert (root / "s").is_symlink()


def test_a_directory_that_comes_twice_takes_the_last_metadata_and_keeps_its_content(unpack: Any, root: Path) -> None:
    unpack(layers.tar(D(b"d", 0o700), F(b"d/f", b"x"), D(b"d", meta=M(mode=0o711, uid=4, gid=5, mtime=77))), root)
    status = (root / "d").stat()
    assert (mode(root / "d"), status.st_uid, status.st_gid, status.st_mtime) == (0o711, 4, 5, 77)
    assert (root / "d/f").exists()


def test_a_hard_link_entry_may_change_the_metadata_of_the_file(unpack: Any, root: Path) -> None:
    unpack(layers.tar(F(b"f", b"x"), L(b"f", b"g", M(mode=0o4711, uid=9, mtime=5))), root)
    status = (root / "f").stat()
    assert (mode(root / "f"), status.st_uid, status.st_mtime, status.st_nlink) == (0o4711, 9, 5, 2)


def test_a_file_replaced_by_a_later_entry_is_a_new_file(unpack: Any, root: Path) -> None:
    unpack(layers.tar(F(b"f", b"old"), L(b"f", b"g"), F(b"f", b"new")), root)
    assert ((root / "f").read_bytes(), (root / "g").read_bytes()) == (b"new", b"old")


def test_sparse_files_keep_their_holes(unpack: Any, root: Path) -> None:
    records = {b"GNU.sparse.size": b"104857600", b"GNU.sparse.name": b"a", b"GNU.sparse.map": b"104857596,4"}
    unpack(layers.tar(layers.pax(records), F(b"x", b"tail")), root)
    status = (root / "a").stat()
    assert status.st_size == 100 << 20
    assert status.st_blocks < 100


def test_whiteouts_in_an_upper_directory_are_overlayfs_marks(unpack: Any, overlay: Any) -> None:
    unpack(layers.tar(F(b"gone"), D(b"d"), F(b"d/low")), overlay.lower)
    gone = layers.entry(b".wh.gone", b"0", meta=M(uid=3, gid=4))
    unpack(layers.tar(gone, D(b"d"), F(b"d/.wh..wh..opq"), F(b"d/f")), overlay.upper, "overlay", (overlay.lower,))
    status = (overlay.upper / "gone").stat()
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    assert (status.st_uid, status.st_gid) == (3, 4)
    assert os.getxattr(overlay.upper / "d", whiteouts.OPAQUE_XATTR) == b"y"
    assert os.listdir(overlay.upper / "d") == ["f"]


def test_no_mark_is_left_where_there_is_nothing_to_hide(unpack: Any, overlay: Any) -> None:
    unpack(layers.tar(D(b"d"), F(b"d/low")), overlay.lower)
    layer = layers.tar(F(b"new/.wh.x"), F(b"d/.wh.low"), F(b"d/.wh..wh..opq"), F(b"d/.wh.other"), F(b"d/sub/.wh.x"))
    unpack(layer, overlay.upper, "overlay", (overlay.lower,))
    assert sorted(path.relative_to(overlay.upper).as_posix() for path in overlay.upper.rglob("*")) == ["d", "d/sub", "new"]


def test_an_upper_directory_that_was_used_before_takes_a_further_layer(unpack: Any, overlay: Any) -> None:
    unpack(layers.tar(D(b"d"), F(b"d/old", b"x"), F(b"f", b"x"), F(b"g", b"x")), overlay.upper, "overlay")
    unpack(layers.tar(F(b".wh.f"), F(b"d/.wh..wh..opq"), F(b"d/new", b"x")), overlay.upper, "overlay")
    with overlay.mounted() as merged:
        assert sorted(path.relative_to(merged).as_posix() for path in merged.rglob("*")) == ["d", "d/new", "g"]


def test_missing_parents_take_after_the_layers_below(unpack: Any, overlay: Any, tmp_path: Path) -> None:
    unpack(
        layers.tar(D(b"a", 0o700), layers.pax({b"SCHILY.xattr.user.k": b"v"}), D(b"a/b", meta=M(mode=0o2750, uid=5, gid=6, mtime=99))),
        overlay.lower,
    )
    above = tmp_path / "above"
    above.mkdir()
    unpack(layers.tar(D(b"a", 0o711)), above)
    unpack(layers.tar(F(b"a/b/c/f", b"x")), overlay.upper, "overlay", (above, overlay.lower))
    a, b, c = (overlay.upper / name for name in ("a", "a/b", "a/b/c"))
    assert [mode(path) for path in (a, b, c)] == [0o711, 0o2750, 0o755]
    assert (b.stat().st_uid, b.stat().st_gid, b.stat().st_mtime) == (5, 6, 99)
    assert os.getxattr(b, "user.k") == b"v"


def test_a_parent_hidden_by_a_layer_between_is_not_asked(unpack: Any, overlay: Any, tmp_path: Path) -> None:
    unpack(layers.tar(D(b"a", 0o700), D(b"b", 0o700), D(b"o"), D(b"o/in", 0o700)), overlay.lower)
    between = tmp_path / "between"
    between.mkdir()
    unpack(layers.tar(F(b".wh.a"), F(b"b", b"x"), D(b"o", 0o755), F(b"o/.wh..wh..opq")), between, "overlay", (overlay.lower,))
    unpack(layers.tar(F(b"a/f"), F(b"b/f"), F(b"o/in/f")), overlay.upper, "overlay", (between, overlay.lower))
    assert [mode(overlay.upper / name) for name in ("a", "b", "o/in")] == [0o755] * 3


def test_a_hard_link_to_a_lower_file_copies_it_up(unpack: Any, overlay: Any) -> None:
    records = layers.pax({b"SCHILY.xattr.user.k": b"v"})
    unpack(layers.tar(D(b"d", 0o711), records, F(b"d/f", b"content", M(mode=0o4755, uid=5, mtime=88)), S(b"t", b"s")), overlay.lower)
    unpack(layers.tar(L(b"d/f", b"g", M(mode=0o4755, uid=5, mtime=88)), L(b"s", b"s2")), overlay.upper, "overlay", (overlay.lower,))
    with overlay.mounted() as merged:
        assert (merged / "g").stat().st_ino == (merged / "d/f").stat().st_ino
        assert (merged / "g").read_bytes() == b"content"
        assert (mode(merged / "g"), mode(merged / "d"), (merged / "g").stat().st_mtime) == (0o4755, 0o711, 88)
        assert os.getxattr(merged / "g", "user.k") == b"v"
        assert os.readlink(merged / "s2") == "t"


def test_a_hard_link_to_what_a_layer_below_removed_is_refused(unpack: Any, overlay: Any, tmp_path: Path) -> None:
    unpack(layers.tar(F(b"f", b"x")), overlay.lower)
    between = tmp_path / "between"
    between.mkdir()
    unpack(layers.tar(F(b".wh.f")), between, "overlay", (overlay.lower,))
    with pytest.raises(errors.InvalidArgument, match="not there"):
        unpack(layers.tar(L(b"f", b"g")), overlay.upper, "overlay", (between, overlay.lower))
    with pytest.raises(errors.InvalidArgument, match="hard link"):
        unpack(layers.tar(F(b".wh.f"), L(b"f", b"g")), overlay.upper, "overlay", (overlay.lower,))


def test_links_in_layers_below_lead_nowhere_else(unpack: Any, overlay: Any, outside: Any) -> None:
    (overlay.lower / "out").symlink_to(outside.folder)
    (overlay.lower / "secret").symlink_to(outside.folder / "secret")
    with pytest.raises(errors.InvalidArgument, match="not there"):
        unpack(layers.tar(L(b"out/secret", b"g")), overlay.upper, "overlay", (overlay.lower,))
    unpack(layers.tar(L(b"secret", b"g"), F(b"out/f", b"x")), overlay.upper, "overlay", (overlay.lower,))
    assert (overlay.upper / "g").is_symlink()
    assert (overlay.upper / "out/f").read_bytes() == b"x"
