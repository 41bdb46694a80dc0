"""The claim on root and state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydock.daemon import claim


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_new_directories_get_their_modes_under_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        claim.release(claim.claim(tmp_path / "a/root", tmp_path / "b/state"))
    finally:
        os.umask(before)
    assert (mode(tmp_path / "a/root"), mode(tmp_path / "b/state")) == (0o700, 0o711)


def test_looser_directories_are_tightened(tmp_path: Path) -> None:
    for name in ("root", "state"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    claim.release(claim.claim(tmp_path / "root", tmp_path / "state"))
    assert (mode(tmp_path / "root"), mode(tmp_path / "state")) == (0o700, 0o711)


@pytest.mark.parametrize("shared", ["root", "state"])
def test_a_second_claim_on_either_directory_names_the_holder_and_the_directory(tmp_path: Path, shared: str) -> None:
    first = claim.claim(tmp_path / "root", tmp_path / "state")
    places = {"root": tmp_path / "root2", "state": tmp_path / "state2", shared: tmp_path / shared}
    with pytest.raises(claim.Claimed, match=rf"pid {os.getpid()}\) holds {tmp_path / shared}"):
        claim.claim(places["root"], places["state"])
    claim.release(first)
    claim.release(claim.claim(places["root"], places["state"]))


def test_a_refused_claim_keeps_nothing_locked(tmp_path: Path) -> None:
    first = claim.claim(tmp_path / "root", tmp_path / "state")
    with pytest.raises(claim.Claimed):
        claim.claim(tmp_path / "free", tmp_path / "state")
    claim.release(claim.claim(tmp_path / "free", tmp_path / "other"))
    claim.release(first)


def test_one_directory_may_be_both(tmp_path: Path) -> None:
    claim.release(claim.claim(tmp_path / "one", tmp_path / "one"))
    assert mode(tmp_path / "one") == 0o700


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(claim.Unusable, match="file"):
        claim.claim(tmp_path / "file", tmp_path / "state")


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o700)
    (tmp_path / "root" / claim.LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(claim.Unusable):
        claim.claim(tmp_path / "root", tmp_path / "state")
    assert not (tmp_path / "victim").exists()
