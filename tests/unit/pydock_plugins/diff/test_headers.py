"""The tar header parser, against the archives Python's own writer makes and against wrong ones."""

from __future__ import annotations

import io
import tarfile

import pytest

from pydock.base import errors
from pydock.testing import layers
from pydock_plugins.diff import fields, headers, limits, pax, tape


def reader(archive: bytes, piece: int = 1 << 20) -> headers.Reader:
    pieces = iter([archive[at : at + piece] for at in range(0, len(archive), piece)])
    return headers.Reader(tape.Tape(lambda: next(pieces, b"")), limits.Limits())


def entries(archive: bytes, piece: int = 1 << 20) -> list[tuple[headers.Entry, bytes]]:
    found, source = [], reader(archive, piece)
    while (entry := source.next()) is not None:
        found.append((entry, source.tape.read_all()))
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("piece", [1, 500, 512, 1 << 20])
def test_what_another_writer_wrote_is_read_back(form: int, piece: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for number, name in enumerate(("short", "d" * 90 + "/" + "f" * 90, "é/ü")):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid, info.mtime = number * 300, 0o4755, 1000 + number, 5, 1_500_000_000 + number
            archive.addfile(info, io.BytesIO(b"x" * info.size))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * 90
        archive.addfile(link)
    found = entries(out.getvalue(), piece)
    assert [entry.name for entry, _ in found] == [b"short", b"d" * 90 + b"/" + b"f" * 90, "é/ü".encode(), b"link"]
    assert [data for _, data in found] == [b"", b"x" * 300, b"x" * 600, b""]
    assert [(entry.mode, entry.uid, entry.gid) for entry, _ in found[:3]] == [(0o4755, 1000 + number, 5) for number in range(3)]
    assert [entry.mtime for entry, _ in found[:3]] == [(1_500_000_000 + number) * pax.SECOND for number in range(3)]
    assert found[3][0].link == b"t" * 90


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_does_not_fit_a_header_comes_from_its_extension(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        info = tarfile.TarInfo("n" * 500)
        info.type, info.linkname, info.uid = tarfile.SYMTYPE, "l" * 500, 3_000_000
        archive.addfile(info)
    ((entry, _),) = entries(out.getvalue())
    assert (entry.name, entry.link, entry.uid) == (b"n" * 500, b"l" * 500, 3_000_000)


def test_an_old_archive_without_magic_is_read() -> None:
    ((entry, data),) = entries(layers.tar(layers.file(b"a", b"x", layers.Meta(magic=b""))))
    assert (entry.name, data) == (b"a", b"x")


def test_a_checksum_over_signed_bytes_is_taken() -> None:
    block = bytearray(layers.file(b"\xe9\xff", b"")[:512])
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in block)
    ((entry, _),) = entries(bytes(block))
    assert entry.name == b"\xe9\xff"


@pytest.mark.parametrize("at", [0, 50, 148, 300, 511])
def test_any_changed_byte_is_seen_by_the_checksum(at: int) -> None:
    block = bytearray(layers.file(b"name")[:512])
    block[at] ^= 0x05
    with pytest.raises(errors.InvalidArgument):
        entries(bytes(block))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644), (b"   644 \0", 0o644), (b"\0" * 8, 0), (b"        ", 0), (b"644\0garb", 0o644), (b"\x80\0\0\0\0\0\1\0", 256),
        (b"\xff" * 8, -1), (b"\xff\xff\xff\xff\xff\xff\xff\0", -256), (b"77777777", 0o77777777),
    ],
)  # fmt: skip
def test_numbers_in_headers(field: bytes, value: int) -> None:
    assert fields.number(field) == value


@pytest.mark.parametrize("field", [b"0o17\0\0\0\0", b"-17\0\0\0\0\0", b"+17\0\0\0\0\0", b"1_7\0\0\0\0\0", b"0000689\0", b"12 34567"])
def test_what_is_no_octal_number(field: bytes) -> None:
    with pytest.raises(errors.InvalidArgument, match="no octal number"):
        fields.number(field)


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"0", 0), (b"1.5", 1_500_000_000), (b"-1.5", -1_500_000_000), (b"-0.5", -500_000_000), (b".5", 500_000_000), (b"1.", 10**9),
     (b"1.1234567899", 1_123_456_789)],
)  # fmt: skip
def test_pax_times(text: bytes, value: int) -> None:
    assert pax.nanoseconds(text, b"") == value


@pytest.mark.parametrize("text", [b"nan", b"inf", b"1e5", b"1_0", b"", b"-", b"1.x", b"1.-5", b"--1", b"9" * 40, "٣".encode()])
def test_what_is_no_pax_time(text: bytes) -> None:
    if text in (b"", b"-"):
        assert pax.nanoseconds(text, b"") == 0
        return
    with pytest.raises(errors.InvalidArgument):
        pax.nanoseconds(text, b"")


def test_pax_values_may_hold_anything_but_a_nul_in_a_path() -> None:
    data = layers.record(b"SCHILY.xattr.user.x", b"a\n9 b=c\n\0=") + layers.record(b"k", b"")
    assert pax.records(data, b"") == [(b"SCHILY.xattr.user.x", b"a\n9 b=c\n\0="), (b"k", b"")]
    with pytest.raises(errors.InvalidArgument):
        pax.records(layers.record(b"path", b"a\0"), b"")


def test_the_error_names_the_entry() -> None:
    with pytest.raises(errors.InvalidArgument, match='layer entry "some/name": negative size'):
        entries(layers.tar(layers.file(b"some/name", meta=layers.Meta(size=-1))))


def test_data_left_unread_is_skipped() -> None:
    source = reader(layers.tar(layers.file(b"a", b"x" * 3000), layers.file(b"b", b"y")), 700)
    assert source.next() is not None
    second = source.next()
    assert second is not None
    assert second.name == b"b"
    assert source.tape.read_all() == b"y"
