"""Builds small OCI images on the spot, so that no test and no first container needs a registry that is far away.

Vocabulary: an *image* is a descriptor and the blobs it reaches; a *layer* is an uncompressed tar, packed by gzip into its blob;
an *archive* is an OCI image layout in a tar (image-spec, image-layout.md), what ``ctr images import`` reads.
Command: ``python -m pydock.testing.images FILE [NAME]`` writes an archive with the busybox of this machine under NAME.
Invariant: the same input gives the same bytes, so digests do not vary between runs.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}
FIRST_NAME = "docker.io/library/pydock-busybox:latest"
EPOCH = "1970-01-01T00:00:00Z"


@dataclasses.dataclass(frozen=True)
class Image:
    """A descriptor (media type, digest, size, platform) and every blob below it by digest."""

    descriptor: dict[str, Any]
    blobs: dict[str, bytes]

    @property
    def digest(self) -> str:
        """Return the digest of the manifest or index."""
        return str(self.descriptor["digest"])

    @property
    def manifest(self) -> bytes:
        """Return the bytes of the manifest or index."""
        return self.blobs[self.digest]


def digest(data: bytes) -> str:
    """Return ``sha256:<hex>``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(files: Mapping[str, bytes | str], *, modes: Mapping[str, int] | None = None) -> bytes:
    """Return a tar of ``files`` by path: bytes are content, a str is the target of a symlink, a path that ends in "/" is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            tar.addfile(*_member(name, content, (modes or {}).get(name)))
    return buffer.getvalue()


def _member(name: str, content: bytes | str, mode: int | None) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name.rstrip("/"))
    info.mode = mode if mode is not None else 0o755
    if name.endswith("/"):
        info.type = tarfile.DIRTYPE
    elif isinstance(content, str):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, content, 0o777
    else:
        info.size = len(content)
        return info, io.BytesIO(content)
    return info, io.BytesIO()


def busybox_layer(extra: Mapping[str, bytes | str] | None = None) -> bytes:
    """Return a root file system with the static busybox of this machine. Raises FileNotFoundError without one."""
    binary = shutil.which("busybox")
    if binary is None:
        raise FileNotFoundError("busybox is not installed (Debian package busybox-static)")
    content = Path(binary).read_bytes()
    applets = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split()
    folders = ["bin/", "dev/", "etc/", "home/", "proc/", "root/", "run/", "sys/", "tmp/", "usr/", "usr/bin/", "var/", "var/tmp/"]
    files: dict[str, bytes | str] = dict.fromkeys(folders, "")
    files["bin/busybox"] = content
    files.update({f"bin/{applet}": "busybox" for applet in sorted(set(applets) - {"busybox"})})
    files["usr/bin/env"] = "../../bin/busybox"
    files["etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\nuser:x:1000:1000::/home:/bin/sh\n"
    files["etc/group"] = b"root:x:0:\nnogroup:x:65534:\nuser:x:1000:\n"
    files.update(extra or {})
    modes = {"tmp/": 0o1777, "var/tmp/": 0o1777, "root/": 0o700, "etc/passwd": 0o644, "etc/group": 0o644}
    return layer(files, modes=modes)


def image(layers: Sequence[bytes], config: Mapping[str, Any] | None = None, *, architecture: str = "") -> Image:
    """Return an image of uncompressed ``layers``; ``config`` is its "config" object (Cmd, Env, User ...)."""
    blobs: dict[str, bytes] = {}
    described = _described([gzip.compress(one, 6, mtime=0) for one in layers], LAYER, blobs)
    document = {
        "created": EPOCH,
        "architecture": architecture or own_architecture(),
        "os": "linux",
        "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]},
        "history": [{"created": EPOCH, "created_by": "pydock"} for _ in layers],
    }
    [about] = _described([_json(document)], CONFIG, blobs)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": described}
    [descriptor] = _described([_json(manifest)], MANIFEST, blobs)
    return Image({**descriptor, "platform": {"architecture": document["architecture"], "os": "linux"}}, blobs)


def index(images: Iterable[Image]) -> Image:
    """Return a multi-platform image of ``images``."""
    members = list(images)
    blobs = {name: data for member in members for name, data in member.blobs.items()}
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [member.descriptor for member in members]}
    [descriptor] = _described([_json(document)], INDEX, blobs)
    return Image(descriptor, blobs)


def busybox(config: Mapping[str, Any] | None = None) -> Image:
    """Return an image of one busybox layer."""
    return image([busybox_layer()], config)


def archive(content: Image, name: str) -> bytes:
    """Return an OCI layout tar that holds ``content`` under the full image name ``name``."""
    tag = name.rpartition(":")[2]
    entry = {**content.descriptor, "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}}
    files: dict[str, bytes | str] = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}),
        "blobs/": "",
        "blobs/sha256/": "",
    }
    files.update({f"blobs/{key.replace(':', '/')}": data for key, data in sorted(content.blobs.items())})
    return layer(files, modes={name: 0o644 for name in files if not name.endswith("/")})


def own_architecture() -> str:
    """Return this machine's architecture as images name it."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _described(parts: Iterable[bytes], media_type: str, blobs: dict[str, bytes]) -> list[dict[str, Any]]:
    """Add ``parts`` to ``blobs`` and return their descriptors."""
    described = []
    for data in parts:
        blobs[digest(data)] = data
        described.append({"mediaType": media_type, "digest": digest(data), "size": len(data)})
    return described


def main(arguments: Sequence[str]) -> int:
    """Write an archive of busybox to the file named first, under the image name named second."""
    Path(arguments[0]).write_bytes(archive(busybox(), arguments[1] if len(arguments) > 1 else FIRST_NAME))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
