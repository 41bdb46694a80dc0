"""The version of pydock, written once; a test holds ``pyproject.toml`` to it."""

VERSION = "0.1.0"
