"""Bundles: born once, buried whole, never walked out of."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pydock.base import errors
from pydock_plugins.runtime import bundle


@pytest.fixture
def bundles(tmp_path: Path) -> bundle.Bundles:
    return bundle.Bundles(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "-a", "a" * 77, "a\n", "ä", "a\0b"])
def test_a_name_that_is_no_identifier_never_becomes_a_path(bundles: bundle.Bundles, name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        bundles.create("default", name)
    with pytest.raises(errors.InvalidArgument):
        bundles.create(name, "web")


def test_one_creator_wins(bundles: bundle.Bundles) -> None:
    made = bundles.create("default", "web")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    with pytest.raises(errors.AlreadyExists, match="task web"):
        bundles.create("default", "web")


def test_a_spec_that_maps_users_opens_the_way_for_their_root(bundles: bundle.Bundles) -> None:
    made = bundles.create("default", "web")
    data = b'{"linux": {"uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}]}}'
    made.write_spec(data, bundle.parse_spec(data))
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o711
    assert (made.path / "config.json").read_bytes() == data


@pytest.mark.parametrize("data", [b"", b"[]", b'"x"', b"{", b"\xff", b'{"linux": 3}', b"[" * 100_000, b" " * (bundle.LARGEST_SPEC + 1)])
def test_a_spec_that_is_no_bounded_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(errors.InvalidArgument):
        bundle.parse_spec(data)


def test_burying_removes_everything_and_frees_the_id(bundles: bundle.Bundles, tmp_path: Path) -> None:
    made = bundles.create("default", "web")
    (made.path / "deep" / "er").mkdir(parents=True)
    (made.path / "deep" / "er" / "file").touch()
    (made.path / "link").symlink_to("/etc")
    made.bury()
    made.bury()
    assert list((tmp_path / "default").iterdir()) == []
    assert Path("/etc").is_dir()
    bundles.create("default", "web")


def test_burying_never_walks_into_a_root_file_system_in_use(bundles: bundle.Bundles) -> None:
    made = bundles.create("default", "web")
    (made.rootfs / "precious").touch()
    with pytest.raises(errors.FailedPrecondition):
        made.bury()
    assert [path.name for path in made.path.parent.glob("*/rootfs/*")] == ["precious"]


def test_a_scan_finds_bundles_and_removes_what_an_interrupted_burial_left(bundles: bundle.Bundles, tmp_path: Path) -> None:
    for ns, id in (("a", "one"), ("a", "two"), ("b", "one")):
        bundles.create(ns, id)
    (tmp_path / "a" / f"{bundle.BURIED}old-1" / "rootfs").mkdir(parents=True)
    (tmp_path / "a" / "not an id").mkdir()
    assert [(found.ns, found.id) for found in bundles.scan()] == [("a", "one"), ("a", "two"), ("b", "one")]
    assert not (tmp_path / "a" / f"{bundle.BURIED}old-1").exists()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"1" * (bundle.LARGEST_RECORD + 1)])
def test_a_damaged_record_is_no_record(bundles: bundle.Bundles, data: bytes) -> None:
    made = bundles.create("default", "web")
    (made.path / "exit.json").write_bytes(data)
    assert made.read_record("exit.json") is None
    assert made.exit_records() == []


def test_a_record_that_is_a_fifo_or_a_link_is_not_read(bundles: bundle.Bundles, tmp_path: Path) -> None:
    import os

    made = bundles.create("default", "web")
    os.mkfifo(made.path / "shim.json")
    (tmp_path / "secret").write_text("{}")
    (made.path / "exit.json").symlink_to(tmp_path / "secret")
    assert made.read_record("shim.json") is None
    assert made.read_record("exit.json") is None


def test_the_execs_that_left_a_trace_are_known(bundles: bundle.Bundles) -> None:
    made = bundles.create("default", "web")
    for name in ("exit-one.json", "exec-two.process.json", "config.json", "exit.json"):
        (made.path / name).write_text("{}")
    assert {"one", "two"} <= made.exec_ids()
    assert len(made.exit_records()) == 2
