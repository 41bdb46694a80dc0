"""Decompression: every form, bounded output, and no broken stream taken for a whole one."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable

import pytest
import zstandard

from pydock.base import errors
from pydock_plugins.diff import inflate, limits, stream

DATA = random.Random(1).randbytes(300_000) + bytes(700_000) + b"end"
WINDOW = 128 << 20
SKIPPABLE = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"


def feed(data: bytes, step: int) -> Callable[[], bytes]:
    pieces = iter([data[at : at + step] for at in range(0, len(data), step)])
    return lambda: next(pieces, b"")


def inflated(data: bytes, step: int = 4096, window: int = WINDOW) -> bytes:
    return b"".join(inflate.pieces(feed(data, step), window))


def zstd(data: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)  # type: ignore[arg-type]


def streamed(data: bytes) -> bytes:
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return packer.compress(data) + packer.flush()


FORMS = {
    "plain": DATA,
    "gzip": gzip.compress(DATA),
    "gzip-members": gzip.compress(DATA[:5]) + gzip.compress(b"") + gzip.compress(DATA[5:]),
    "zstd": zstd(DATA),
    "zstd-checksum": zstd(DATA, write_checksum=True),
    "zstd-unknown-size": streamed(DATA),
    "zstd-frames": zstd(DATA[:9]) + SKIPPABLE + zstd(DATA[9:]) + SKIPPABLE,
    "zstd-skippable-first": SKIPPABLE + zstd(DATA),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [3, 4096, 1 << 20])
def test_every_form_is_read_whatever_the_pieces(form: str, step: int) -> None:
    data = FORMS[form]
    assert inflated(data, step if step > 3 or len(data) < 1 << 19 else 4096) == DATA


@pytest.mark.parametrize("form", [form for form in FORMS if form != "plain"])
def test_a_stream_that_ends_early_is_an_error(form: str) -> None:
    data = FORMS[form]
    for size in (5, 12, len(data) // 2, len(data) - 9, len(data) - 1):
        with pytest.raises(errors.InvalidArgument):
            inflated(data[:size])


def test_nothing_is_nothing() -> None:
    assert inflated(b"") == inflated(gzip.compress(b"")) == inflated(zstd(b"")) == inflated(SKIPPABLE) == b""


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_other_bytes_after_the_end_are_an_error(form: str) -> None:
    for tail in (b"x", b"rubbish", bytes(512)):
        with pytest.raises(errors.InvalidArgument):
            inflated(FORMS[form] + tail)


@pytest.mark.parametrize("form", ["gzip", "zstd-checksum"])
def test_a_wrong_checksum_is_an_error(form: str) -> None:
    data = bytearray(FORMS[form])
    data[-6] ^= 1
    with pytest.raises(errors.InvalidArgument, match="not valid"):
        inflated(bytes(data))


def test_damage_inside_is_an_error() -> None:
    for form in ("gzip", "zstd-checksum"):
        data = bytearray(FORMS[form])
        data[len(data) // 2] ^= 0xFF
        with pytest.raises(errors.InvalidArgument):
            inflated(bytes(data))


def test_a_huge_zstd_window_is_refused_before_it_is_made() -> None:
    window_of_2_gib = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([21 << 3]) + b"\x01\x00\x00"
    with pytest.raises(errors.ResourceExhausted, match="window of 2147483648 bytes"):
        inflated(window_of_2_gib)
    single = b"\x28\xb5\x2f\xfd" + b"\xe0" + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(errors.ResourceExhausted, match="window"):
        inflated(single)


@pytest.mark.parametrize("pack", [lambda data: gzip.compress(data, 9), zstd], ids=["gzip", "zstd"])
def test_a_bomb_comes_out_in_bounded_pieces(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(64 << 20))
    assert len(bomb) < 70_000
    sizes = [len(piece) for piece in inflate.pieces(feed(bomb, 1 << 20), WINDOW)]
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= 1 << 20


def test_size_and_digest_are_of_the_whole_stream(tmp_path: object) -> None:
    import hashlib
    import os

    fd = os.memfd_create("blob")
    try:
        os.write(fd, FORMS["gzip"])
        pieces = stream.Stream(stream.Blob(fd, len(FORMS["gzip"]), final=True), limits.Limits())
        with stream.Ahead(pieces) as ahead:
            assert b"".join(iter(ahead.pull, b"")) == DATA
            assert ahead.pull() == b"", "the end is the end, however often one asks"
        assert (pieces.size, pieces.diff_id) == (len(DATA), "sha256:" + hashlib.sha256(DATA).hexdigest())
    finally:
        os.close(fd)


def test_a_reader_that_leaves_early_ends_the_thread() -> None:
    import os
    import threading

    fd = os.memfd_create("blob")
    try:
        os.write(fd, bytes(32 << 20))
        before = threading.active_count()
        with stream.Ahead(stream.Stream(stream.Blob(fd, 32 << 20, final=True), limits.Limits())) as ahead:
            ahead.pull()
        assert threading.active_count() == before
    finally:
        os.close(fd)
