"""What HTTP is left to itself: pauses and proxies."""

from __future__ import annotations

from typing import Any

import pytest

from pydock.base import errors
from pydock_plugins.remotes import http


class Told:
    """An answer with one header."""

    def __init__(self, text: str) -> None:
        self.headers = {"Retry-After": text}


PAUSES = [
    ("0", 0.0),
    ("7", 7.0),
    ("1000000000", 10.0),
    ("9" * 4000, 10.0),
    ("", 0.4),
    ("-1", 0.4),
    ("Fri, 31 Dec 1999 23:59:59 GMT", 0.4),
    ("\u0663", 0.4),
]


@pytest.mark.parametrize(("text", "seconds"), PAUSES)
def test_a_registry_may_ask_for_a_pause_of_bounded_length(text: str, seconds: float) -> None:
    answer: Any = Told(text)
    assert http._pause(answer, 1, 10.0) == pytest.approx(seconds)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_the_proxy_of_the_environment_is_used_but_for_this_machine(environment: pytest.MonkeyPatch) -> None:
    assert http._proxy("https://registry.example.com/v2") is None
    environment.setenv("HTTPS_PROXY", "http://proxy:3128")
    environment.setenv("NO_PROXY", "internal.example.com,10.0.0.1")
    assert http._proxy("https://registry.example.com/v2") == "http://proxy:3128"
    assert http._proxy("http://registry.example.com/v2") is None
    for near in (
        "https://127.0.0.1:5000/",
        "https://localhost/",
        "https://[::1]:5000/",
        "https://internal.example.com/",
        "https://10.0.0.1/",
    ):
        assert http._proxy(near) is None


@pytest.mark.parametrize("name", ["missing.pem", "empty.pem"])
def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Any, name: str) -> None:
    (tmp_path / "empty.pem").touch()
    with pytest.raises(errors.FailedPrecondition, match=name):
        http._tls(False, (str(tmp_path / name),), ())
    with pytest.raises(errors.FailedPrecondition, match=name):
        http._tls(False, (), ((str(tmp_path / name), str(tmp_path / name)),))
