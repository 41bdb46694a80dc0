"""Who a container runs as, from what was asked and what the image's own files say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock.base import errors
from pydock.oci import user

PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/:/bin/false
# a comment
broken line
app:x:1000:2000::/home:/bin/sh
1000:x:0:0:a name of digits:/:/bin/sh
2147483648:x:0:0::/:/bin/sh
4294967296:x:0:0::/:/bin/sh
0x0:x:0:0::/:/bin/sh
-1:x:0:0::/:/bin/sh
٣:x:0:0::/:/bin/sh
big:x:4294967296:0::/:/bin/sh
7zip:x:77:78::/:/bin/sh
"""
GROUP = """root:x:0:
daemon:x:1:
app:x:2000:app
audio:x:29:app,daemon
video:x:44:daemon, app
bad:x:nonsense:app
staff:x:50:root
"""


def test_nothing_asked_is_root_with_the_groups_that_list_root() -> None:
    assert user.resolve("", PASSWD, GROUP) == user.Ids(0, 0, (50,))


def test_a_name_gives_its_ids_and_all_groups_that_list_it_but_its_own() -> None:
    assert user.resolve("app", PASSWD, GROUP) == user.Ids(1000, 2000, (29, 44))


def test_a_number_is_an_id_though_an_account_has_it_for_a_name() -> None:
    assert user.resolve("1000", PASSWD, GROUP) == user.Ids(1000, 2000, (29, 44))


def test_a_number_nobody_has_gets_group_zero_and_no_others() -> None:
    assert user.resolve("4242", PASSWD, GROUP) == user.Ids(4242, 0)


def test_an_image_without_account_files_takes_numbers() -> None:
    assert user.resolve("12:34", "", "") == user.Ids(12, 34)
    assert user.resolve("", "", "") == user.Ids(0, 0)


@pytest.mark.parametrize(("text", "uid", "gid"), [("app:daemon", 1000, 1), ("app:7", 1000, 7), ("5:video", 5, 44), ("7zip", 77, 78)])
def test_names_and_ids_mix(text: str, uid: int, gid: int) -> None:
    found = user.resolve(text, PASSWD, GROUP)
    assert (found.uid, found.gid) == (uid, gid)


@pytest.mark.parametrize(
    "text",
    ["2147483648", "4294967295", "4294967296", "99999999999", "-1", "+1", "0x0", "0 ", " 0", "٣", "1_000", "1000:4294967296", "0:-1",
     "0:0x0", "app:٣", "9" * 400],
)  # fmt: skip
def test_what_another_reader_could_take_for_another_number_is_an_error_and_no_name(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        user.resolve(text, PASSWD, f"4294967296:x:0:\n٣:x:0:\n{GROUP}")


@pytest.mark.parametrize("text", ["nobody", "app:nogroup", ":", "app:", ":audio", "a:b:c", "app\n", "app\0", "../x", "big"])
def test_who_is_not_in_the_image_is_an_error(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="invalid USER value"):
        user.resolve(text, PASSWD, GROUP)


@given(st.text(max_size=30), st.text(max_size=200), st.text(max_size=200))
def test_any_text_gives_ids_in_range_or_a_typed_error(text: str, passwd: str, group: str) -> None:
    try:
        found = user.resolve(text, passwd, group)
    except errors.InvalidArgument:
        return
    assert all(0 <= number <= user.LARGEST_ID for number in (found.uid, found.gid, *found.groups))
