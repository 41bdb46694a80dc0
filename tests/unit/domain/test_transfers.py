"""Names of imported images: containerd's rules as its client sends them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pydock.core import transfer
from pydock.domain import archives, transfers
from pydock.oci import image

DIGEST = "sha256:" + "a" * 64
Rule = transfer.NameRule
PREFIX = Rule("import-day", is_prefix=True, allow_overwrite=True)
BASE = Rule("foo.com/bar", is_prefix=True)
DIGESTS = Rule("foo.com/bar", is_prefix=True, add_digest=True)
SKIPPING = Rule("foo.com/bar", is_prefix=True, add_digest=True, skip_named_digest=True)

CASES: list[tuple[str, str, Sequence[Rule], list[str]]] = [
    ("docker.io/library/x:1", "1", (), ["docker.io/library/x:1"]),
    ("", "docker.io/library/x:1", (), ["docker.io/library/x:1"]),
    ("", "latest", (), []),
    ("", "", (), []),
    ("docker.io/library/x:1", "1", [PREFIX], ["docker.io/library/x:1"]),
    ("", "v2", [PREFIX], ["import-day:v2"]),
    ("", "v2", [BASE], ["foo.com/bar:v2"]),
    ("foo.com/bar:1", "", [BASE], ["foo.com/bar:1"]),
    ("foo.com/bar/sub:1", "", [BASE], ["foo.com/bar/sub:1"]),
    ("foo.com/barn:1", "", [BASE], []),
    ("other.com/bar:1", "", [BASE], []),
    ("", "", [BASE], []),
    ("", "", [DIGESTS], [f"foo.com/bar@{DIGEST}"]),
    ("", "v2", [DIGESTS], ["foo.com/bar:v2", f"foo.com/bar@{DIGEST}"]),
    ("", "v2", [SKIPPING], ["foo.com/bar:v2"]),
    ("", "", [SKIPPING], [f"foo.com/bar@{DIGEST}"]),
    ("foo.com/x:1", "", [Rule("foo.com/x:1")], ["foo.com/x:1"]),
    ("foo.com/y:1", "", [Rule("foo.com/x:1")], []),
    ("foo.com/bar:1", "", [BASE, BASE], ["foo.com/bar:1"]),
]


@pytest.mark.parametrize(("name", "ref", "rules", "expected"), CASES)
def test_an_imported_image_gets_the_names_of_the_rules(name: str, ref: str, rules: Sequence[Rule], expected: list[str]) -> None:
    said = {key: value for key, value in ((archives.NAME_ANNOTATION, name), (archives.REF_ANNOTATION, ref)) if value}
    item = image.Descriptor(image.MANIFEST, DIGEST, 5, annotations=said)
    assert list(transfers.names_for(item, transfer.Store(extra_references=rules))) == expected
