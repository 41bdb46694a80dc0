"""Unix sockets with exact permissions."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from pydock.base import errors, sockets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "s"
    made.mkdir(mode=0o711)
    return made


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_socket_has_exactly_its_mode_under_any_umask(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        listener = sockets.bind(folder / "x.sock", sockets.Access(mode=0o660))
    finally:
        os.umask(before)
    with listener:
        found = (folder / "x.sock").stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert os.listdir(folder) == ["x.sock"]


def test_a_client_connects_at_the_path(folder: Path) -> None:
    with sockets.bind(folder / "x.sock") as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "x.sock"))
        listener.setblocking(True)
        accepted, _ = listener.accept()
        accepted.close()


def test_a_stale_socket_is_replaced_and_a_served_one_is_not(folder: Path) -> None:
    sockets.bind(folder / "x.sock").close()
    with sockets.bind(folder / "x.sock"):
        with pytest.raises(errors.FailedPrecondition, match="something else listens"):
            sockets.bind(folder / "x.sock")
    assert os.listdir(folder) == ["x.sock"]


def test_what_is_not_a_socket_is_never_replaced(folder: Path) -> None:
    (folder / "x.sock").write_text("precious")
    with pytest.raises(errors.FailedPrecondition, match="is not a socket"):
        sockets.bind(folder / "x.sock")
    assert (folder / "x.sock").read_text() == "precious"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(errors.FailedPrecondition, match="may be written by others"):
        sockets.bind(folder / "x.sock")


@pytest.mark.parametrize("path", ["relative.sock", "/" + "x" * 107])
def test_a_path_no_socket_can_have_is_refused(path: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        sockets.bind(Path(path))


def test_a_missing_directory_is_made(folder: Path) -> None:
    with sockets.bind(folder / "new/x.sock"):
        assert (folder / "new").stat().st_mode & 0o777 == 0o711
