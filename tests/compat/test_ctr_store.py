"""The real ``ctr`` on what it stores: layers made from snapshots, leases, pruning, sandboxes, deprecations."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pydock.testing import images

pytestmark = pytest.mark.root

Ctr = Any
LAYER = "application/vnd.oci.image.layer.v1.tar"


def made(ctr: Ctr, *words: str) -> bytes:
    """Return the layer that ``ctr snapshots diff`` writes."""
    return subprocess.run(ctr.argv("snapshots", "diff", *words), capture_output=True, timeout=60, check=True).stdout


def test_a_containers_changes_become_a_layer(ctr: Ctr) -> None:
    script = "echo data >/new; ln /new /other; rm /bin/ls; mkdir /made; rm -r /etc; mkdir /etc; echo x >/etc/x"
    ctr("run", ctr.image, "changed", "sh", "-c", script)
    try:
        data = made(ctr, "--media-type", LAYER, "changed")
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            members = {member.name: member for member in tar}
        assert {"new", "other", "made", "bin/.wh.ls", "etc/x"} <= set(members)
        assert {members["new"].type, members["other"].type} == {tarfile.REGTYPE, tarfile.LNKTYPE}
        assert made(ctr, "--media-type", LAYER, "changed") == data
        packed = made(ctr, "changed")
        assert subprocess.run(["gzip", "-dc"], input=packed, capture_output=True, check=True).stdout == data
        assert "not implemented" in ctr("snapshots", "diff", "--media-type", "x/y", "changed", status=1, errors=True)
        assert ctr.rows("leases", "ls") == []
    finally:
        ctr("containers", "rm", "changed")


def test_a_kept_layer_is_labelled_and_stays(ctr: Ctr) -> None:
    parent = images.digest(images.busybox_layer())
    ctr("snapshots", "prepare", "unchanged", parent)
    try:
        made(ctr, "--keep", "--ref", "mine", "--label", f"by={ctr.namespace}", "unchanged")
        [row] = [row for row in ctr.rows("content", "ls") if f"by={ctr.namespace}" in row[-1]]
        assert "containerd.io/uncompressed=sha256:" in row[-1]
        assert ctr.rows("content", "active") == []
        ctr("content", "rm", row[0])
    finally:
        ctr("snapshots", "rm", "unchanged")


def test_a_lease_is_made_listed_and_dropped(ctr: Ctr) -> None:
    assert ctr("leases", "create", "--id", "held", "a=b").strip() == "held"
    [row] = ctr.rows("leases", "ls")
    assert row[0] == "held"
    assert "a=b" in row[-1]
    ctr("leases", "delete", "--sync", "held")
    assert ctr.rows("leases", "ls") == []
    assert 'lease "held": not found' in ctr("leases", "delete", "held", status=1, errors=True)


def test_references_are_pruned(ctr: Ctr) -> None:
    ctr("content", "prune", "references", "--dry")
    ctr("content", "prune", "references")
    assert "complete (" in ctr("images", "check", f"name=={ctr.image}")


def test_no_deprecation_is_in_use(ctr: Ctr) -> None:
    if ctr.new:  # the other does not know the command
        assert ctr("deprecations", "list").strip() == ""


def test_a_sandbox_is_a_record_that_nobody_runs(ctr: Ctr, tmp_path: Path) -> None:
    if not ctr.new:
        assert "No help topic" in ctr("sandboxes", status=3, errors=True)
        return
    (tmp_path / "config.json").write_text(json.dumps({"ociVersion": "1.1.0"}))
    complaint = ctr("sandboxes", "create", str(tmp_path / "config.json"), "pod", status=1, errors=True)
    assert "sandbox controller name can not be empty" in complaint
    [row] = ctr.rows("sandboxes", "ls")
    assert (row[0], row[-1]) == ("pod", "io.containerd.runc.v2")
    ctr("sandboxes", "rm", "--force", "pod")
    assert ctr.rows("sandboxes", "ls") == []
