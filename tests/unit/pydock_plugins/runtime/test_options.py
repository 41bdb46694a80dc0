"""Which shim and runtime a container gets."""

from __future__ import annotations

import pytest

from pydock.base import errors
from pydock.core import containers
from pydock_plugins.runtime import options
from pydock_shim import wire


def packed(**fields: object) -> containers.Any:
    return containers.Any(f"types.example/{options.OPTIONS}", wire.encode(options.OPTIONS, fields))


@pytest.mark.parametrize("name", ["", "io.containerd.runc.v2", "io.containerd.pydock.v1"])
def test_the_usual_names_mean_our_shim_and_a_probed_runtime(name: str) -> None:
    assert options.choose(name, "", None).runtime == options.AUTO


def test_options_name_the_runtime_and_its_root() -> None:
    choice = options.choose("io.containerd.runc.v2", "", packed(binary_name="/usr/sbin/runc", root="/run/x"))
    assert (choice.runtime, choice.root) == ("/usr/sbin/runc", "/run/x")


def test_options_of_another_type_are_left_to_the_shim() -> None:
    foreign = containers.Any("runtimeoptions.v1.Options", b"\x0a\x01x")
    assert options.choose("io.containerd.runc.v2", "", foreign) == options.Choice(options.AUTO, "", foreign)


def test_an_unknown_runtime_is_refused_as_containerd_does() -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        options.choose("io.containerd.kata.v2", "", None)
    words = 'runtime "io.containerd.kata.v2" binary not installed "containerd-shim-kata-v2": file does not exist'
    assert str(caught.value) == f"failed to resolve runtime path: {words}: invalid argument"


@pytest.mark.parametrize("name", ["runc", "io.containerd", "/no/such/shim", "../shim", "io.containerd.runc.v2\n"])
def test_a_name_out_of_its_grammar_is_an_invalid_argument(name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        options.choose(name, "", None)


@pytest.mark.parametrize("fields", [{"binary_name": "../runc"}, {"binary_name": "-x"}, {"root": "relative"}, {"root": "/a\0b"}])
def test_options_out_of_bounds_are_an_invalid_argument(fields: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidArgument):
        options.choose("", "", packed(**fields))


def test_options_that_are_no_message_are_an_invalid_argument() -> None:
    with pytest.raises(errors.InvalidArgument):
        options.choose("", "", containers.Any(options.OPTIONS, b"\xff\xff"))
