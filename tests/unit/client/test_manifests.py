"""Descriptors and chain ids of images."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from pydock.base import errors
from pydock.client import manifests


def test_a_chain_id_names_all_layers_below() -> None:
    first, second = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    combined = "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert manifests.chain_ids([]) == []
    assert manifests.chain_ids([first]) == [first]
    assert manifests.chain_ids([first, second]) == [first, combined]


def test_a_descriptor_is_read_with_its_platform() -> None:
    found = manifests.parse({"mediaType": "m", "digest": "d", "size": 3, "annotations": {"a": "b", "c": 1},
                             "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}})  # fmt: skip
    assert (found.media_type, found.digest, found.size, dict(found.annotations)) == ("m", "d", 3, {"a": "b"})
    assert found.platform is not None
    assert found.platform.variant == "v7"


@pytest.mark.parametrize("size", [None, -1, "3", True, 1.5])
def test_a_descriptor_without_a_size_is_an_error(size: object) -> None:
    with pytest.raises(errors.InvalidArgument):
        manifests.parse({"digest": "d", "size": size})


@pytest.mark.parametrize("config", [{}, {"rootfs": []}, {"rootfs": {"diff_ids": "x"}}, {"rootfs": {"diff_ids": [1]}}])
def test_a_config_without_layer_digests_is_an_error(config: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument):
        manifests.diff_ids(config)
