"""Mount options and their shortening; what mounts really do is tested with root."""

from __future__ import annotations

import pytest

from pydock.core import mounts
from pydock_plugins.mounts import kernel


def test_options_are_flags_or_data() -> None:
    flags, data = kernel.parse(["ro", "nosuid", "size=1m", "rbind", "mode=755"])
    assert flags == kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_BIND | kernel.MS_REC
    assert data == ["size=1m", "mode=755"]


@pytest.mark.parametrize(("options", "flags"), [(["ro", "rw"], 0), (["rw", "ro"], 1), (["defaults"], 0), (["noexec", "exec", "nodev"], 4)])
def test_later_options_win(options: list[str], flags: int) -> None:
    assert kernel.parse(options) == (flags, [])


def test_only_overlays_beyond_a_page_are_long() -> None:
    long = "lowerdir=" + ":".join(f"/var/lib/somewhere/snapshots/{number}/fs" for number in range(128))
    assert kernel.is_long(mounts.Mount("overlay", "overlay", options=(long,)))
    assert not kernel.is_long(mounts.Mount("overlay", "overlay", options=("lowerdir=/a:/b",)))
    assert not kernel.is_long(mounts.Mount("bind", "/a", options=(long,)))
