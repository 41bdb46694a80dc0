"""Filters: grammar, meaning and messages as the real containerd has them."""

from __future__ import annotations

import pytest

from pydock.base import errors, filters

ITEM = {"name": "docker.io/library/alpine:3", "id": "c1", "a.b/c": "x", "empty": ""}


def adaptor(path: filters.Path) -> tuple[str, bool]:
    if path[0] == "labels":
        return filters.pick(ITEM, path[1:])
    return filters.text(ITEM.get(".".join(path), ""))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name==docker.io/library/alpine:3", True),
        ("name==other", False),
        ("name!=other", True),
        ("missing!=other", True),
        ("missing==", None),
        ("name~=alpine", True),
        ("name~=^alpine", False),
        ('name~="alpine:[0-9]+$"', True),
        ("name~=|library/alp|", True),
        ("name~=/alp/", True),
        ("missing~=x*", True),
        ("id", True),
        ("missing", False),
        ("empty", False),
        ("labels.empty", True),
        ('labels."a.b/c"==x', True),
        ('labels."a.b/c"!=x', False),
        ("labels.missing", False),
        ("labels", False),
        ("id==c1,name", True),
        ("id==c1,missing", False),
        (" id ==  c1", True),
        ('id=="c1"', True),
        ('"id"==c1', True),
        ('id=="\\x631"', True),
        ('id=="\\1431"', True),
        ('id=="\\u00631"', True),
    ],
)
def test_a_filter_picks_what_it_says(text: str, found: bool | None) -> None:
    if found is None:
        with pytest.raises(errors.InvalidArgument):
            filters.parse([text])
    else:
        assert filters.parse([text]).match(adaptor) is found


def test_of_several_filters_any_may_pick() -> None:
    assert filters.parse(["id==no", "id==c1"]).match(adaptor)
    assert not filters.parse(["id==no", "id==nor"]).match(adaptor)


def test_no_filter_or_an_empty_one_picks_all() -> None:
    assert filters.parse([]).match(adaptor)
    assert filters.parse(["id==no", ""]).match(adaptor)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id==", "[id==]: expected value or quoted"),
        ("name==/foo", "[name== >|/|< foo]: quoted literal not terminated"),
        ("name==/foo/", "[name== >|/|< foo/]: invalid quote encountered"),
        (r"name~=/a\.b/", r"[name~= >|/|< a\.b/]: illegal escape sequence"),
        (r"name~=|\d|", r"[name~= >|||< \d|]: illegal escape sequence"),
        ("name ==  foo , labels.x", "[name ==  foo >| |< , labels.x]: unexpected input:  "),
        ("name=foo", '[name >|=|< foo]: unsupported operator "="'),
        ("name====x", '[name >|=|< ===x]: unsupported operator "===="'),
        ("na-me==x", '[na >|-|< me==x]: expected an operator ("=="|"!="|"~=")'),
        ('name=="a', '[name== >|"|< a]: quoted literal not terminated'),
        (r'name=="\q"', r'[name== >|"|< \q"]: illegal escape sequence'),
        ("name==.x", "[name== >|.|< x]: expected value or quoted"),
        ("name==a b", "[name==a >| |< b]: unexpected input:  "),
        (",", "[ >|,|< ]: expected field or quoted"),
        ("name,", "[name,]: expected field or quoted"),
        ("name==a,,", "[name==a, >|,|< ]: expected field or quoted"),
        ("name==!x", '[name >|=|< =!x]: unsupported operator "==!"'),
    ],
)
def test_an_error_points_at_its_place_in_the_words_of_containerd(text: str, message: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        filters.parse([text])
    assert str(caught.value) == f"filters: parse error: {message}: invalid argument"


@pytest.mark.parametrize("text", ['name~="(a"', "name~=[", 'name~="(?=a)"', "name~=a{2000}"])
def test_a_pattern_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="bad pattern"):
        filters.parse([text])


def test_filters_are_bounded() -> None:
    with pytest.raises(errors.InvalidArgument, match="are more than"):
        filters.parse(["id"] * 257)
    with pytest.raises(errors.InvalidArgument, match="are more than"):
        filters.parse(["i" * 4097])
