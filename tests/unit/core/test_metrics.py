"""Where figures may be served."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydock.base import errors
from pydock.core import metrics


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("unix:///run/m.sock", Path("/run/m.sock")),
        ("/run/m.sock", Path("/run/m.sock")),
        ("127.0.0.1:1338", ("127.0.0.1", 1338)),
        ("tcp://127.8.0.1:1", ("127.8.0.1", 1)),
        ("[::1]:9", ("::1", 9)),
    ],
)
def test_a_unix_socket_or_a_loopback_port_is_an_address(address: str, where: object) -> None:
    assert metrics.endpoint(address) == where


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1338", ":1338", "localhost:80", "10.0.0.1:80", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "unix://m", "x"]
)
def test_what_others_could_reach_is_refused(address: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="loopback"):
        metrics.endpoint(address)
