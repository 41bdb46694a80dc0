"""Services made from descriptors."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import pydock.services
from pydock.services import routing


@pytest.mark.parametrize(
    ("wire", "python"), [("ListStatuses", "list_statuses"), ("CloseIO", "close_io"), ("Get", "get"), ("ResizePty", "resize_pty")]
)
def test_wire_names_become_snake_case(wire: str, python: str) -> None:
    assert routing.snake_case(wire) == python


def _classes() -> list[Any]:
    modules = [importlib.import_module(f"pydock.services.{item.name}") for item in pkgutil.iter_modules(pydock.services.__path__)]
    return [
        item
        for module in modules
        for item in vars(module).values()
        if inspect.isclass(item) and hasattr(item, "wire") and hasattr(item, "raw")
    ]


NOT_OFFERED_YET: set[str] = {
    f"containerd.services.sandbox.v1.Controller.{name}"
    for name in ("Create", "Start", "Platform", "Stop", "Wait", "Status", "Shutdown", "Metrics", "Update")
}


def test_every_method_of_every_service_is_offered_but_those_said_not_to_be() -> None:
    classes = [item for item in _classes() if item.__name__ != "ServiceClass"]
    missing = {method.full_name for item in classes for method in item.wire.methods if not hasattr(item, routing.snake_case(method.name))}
    assert len(classes) >= 13 and missing == NOT_OFFERED_YET
