"""Compressed archives: told by their magic, inflated within bounds, and refused when damaged."""

from __future__ import annotations

import gzip
import random
from collections.abc import AsyncIterator, Callable

import pytest
import zstandard

from pydock.base import errors
from pydock.domain import inflating

NOISE = random.Random(1).randbytes(300_000)
PLAIN = NOISE + b"text " * 50_000


async def inflate(data: bytes, size: int = 70_000) -> bytes:
    """Return what comes out when it comes in pieces of ``size``."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(data), size):
            yield data[at : at + size]

    return b"".join([part async for part in inflating.inflated(pieces())])


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, 1),
    "zstd": zstandard.compress,
    "members of gzip": lambda data: gzip.compress(data[:1000], 1) + gzip.compress(data[1000:], 1),
    "frames of zstd": lambda data: zstandard.compress(data[:1000]) + zstandard.compress(data[1000:]),
    "gzip and padding": lambda data: gzip.compress(data, 1) + bytes(20_000),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1 << 20, 4093])
async def test_an_archive_comes_out_as_it_went_in(form: str, size: int) -> None:
    assert await inflate(FORMS[form](PLAIN), size) == PLAIN


@pytest.mark.parametrize("data", [b"", b"x", b"\x1f", b"\x28\xb5"])
async def test_what_is_too_short_for_a_magic_is_plain(data: bytes) -> None:
    assert await inflate(data, 1) == data


async def test_a_byte_at_a_time_is_enough() -> None:
    assert await inflate(gzip.compress(b"abc" * 100), 1) == b"abc" * 100
    assert await inflate(zstandard.compress(b"abc" * 100), 1) == b"abc" * 100


@pytest.mark.parametrize("form", ["gzip", "zstd"])
async def test_what_is_cut_is_said_to_be(form: str) -> None:
    packed = FORMS[form](PLAIN)
    for end in (10, len(packed) // 2, len(packed) - 1):
        with pytest.raises(errors.InvalidArgument, match="cut short"):
            await inflate(packed[:end])


@pytest.mark.parametrize("form", ["gzip", "zstd"])
async def test_what_is_damaged_is_said_to_be(form: str) -> None:
    packed = bytearray(FORMS[form](b"text " * 1000))
    packed[6:] = b"\xff" * len(packed[6:])
    with pytest.raises(errors.InvalidArgument, match=r"damaged|cut short"):
        await inflate(bytes(packed))


async def test_a_wrong_checksum_is_damage() -> None:
    packed = gzip.compress(PLAIN, 1)
    with pytest.raises(errors.InvalidArgument, match="damaged"):
        await inflate(packed[:-8] + bytes(4) + packed[-4:])


async def test_garbage_behind_the_end_is_damage() -> None:
    with pytest.raises(errors.InvalidArgument, match="damaged"):
        await inflate(gzip.compress(PLAIN, 1) + b"garbage" * 10)


async def test_a_bomb_is_noticed_before_it_has_grown() -> None:
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(400 << 20))
    with pytest.raises(errors.ResourceExhausted, match="grows more than"):
        await inflate(bomb)


async def test_a_window_of_gigabytes_is_refused() -> None:
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, 0xA8]) + b"\x01\x00\x00"  # window descriptor: 2 GiB
    with pytest.raises(errors.InvalidArgument, match="damaged"):
        await inflate(frame + bytes(20))
