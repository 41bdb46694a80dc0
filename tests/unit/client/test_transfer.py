"""What a transfer tells to whom, and when an archive has come whole."""

from __future__ import annotations

import io

from pydock.client import transfer


def test_credentials_are_for_the_registry_they_were_given_for() -> None:
    assert transfer.same_host("quay.io", "quay.io")
    assert not transfer.same_host("evil.example", "quay.io")
    assert not transfer.same_host("quay.io:8443", "quay.io")


def test_docker_hub_answers_under_two_names() -> None:
    assert transfer.same_host("registry-1.docker.io", "docker.io")
    assert not transfer.same_host("registry-1.docker.io", "quay.io")


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(transfer.Registry("a/b", credentials=transfer.Credentials("u", "hunter2")))


def test_an_archive_is_whole_when_two_zero_blocks_came_last() -> None:
    sink = io.BytesIO()
    tail = transfer.Tail(sink)
    for data, whole in ((b"abc" * 100, False), (bytes(1000), False), (bytes(24), True), (b"", True), (b"x", False), (bytes(2048), True)):
        tail.write(data)
        assert tail.complete is whole
    assert tail.total == len(sink.getvalue()) == 300 + 1024 + 1 + 2048
