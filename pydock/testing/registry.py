"""A real registry for tests: Debian's ``docker-registry`` as a process on a loopback port, and pushes to it.

Invariant: it listens on 127.0.0.1 alone, keeps its data in a directory of its own and is gone with the ``with`` block.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from pydock.testing import daemon as harness
from pydock.testing import images

START_SECONDS = 15
CONFIG = """version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "{host}"}}
"""


class RegistryFailed(Exception):
    """The registry did not start, or refused a push; the text says what it answered."""


class Registry:
    """A registry that answers plain HTTP at ``host`` ("127.0.0.1:port")."""

    def __init__(self, host: str) -> None:
        self.host = host

    def push(self, image: images.Image, name: str) -> str:
        """Store ``image`` as ``name`` ("repository:tag") and return its full reference, "127.0.0.1:port/repository:tag"."""
        repository, _, tag = name.partition(":")
        manifests = {key: data for key, data in image.blobs.items() if data.startswith(b'{"schemaVersion"')}
        for key, data in image.blobs.items():
            if key not in manifests:
                self._push_blob(repository, key, data)
        for key, data in sorted(manifests.items(), key=lambda item: item[0] == image.digest):
            self._push_manifest(repository, key, data)
        self._push_manifest(repository, tag or "latest", image.manifest)
        return f"{self.host}/{repository}:{tag or 'latest'}"

    def _push_blob(self, repository: str, key: str, data: bytes) -> None:
        location = self._ask("POST", f"/v2/{repository}/blobs/uploads/", (202,)).getheader("Location", "")
        path = location.partition(self.host)[2] or location
        separator = "&" if "?" in path else "?"
        self._ask("PUT", f"{path}{separator}digest={key}", (201,), data, "application/octet-stream")

    def _push_manifest(self, repository: str, reference: str, data: bytes) -> None:
        kind = images.INDEX if b'"manifests":' in data else images.MANIFEST
        self._ask("PUT", f"/v2/{repository}/manifests/{reference}", (201,), data, kind)

    def _ask(self, method: str, path: str, good: tuple[int, ...], body: bytes = b"", kind: str = "") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            headers = {"Accept": f"{images.MANIFEST}, {images.INDEX}"}
            connection.request(method, path, body, headers | ({"Content-Type": kind} if kind else {}))
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status not in good:
            raise RegistryFailed(f"{method} {path}: {answer.status} {text[:300]!r}")
        return answer

    def answers(self) -> bool:
        """Tell whether it is up."""
        with contextlib.suppress(OSError, RegistryFailed):
            self._ask("GET", "/v2/", (200,))
            return True
        return False


def program() -> str | None:
    """Return the path of the registry's program, None where it is neither on PATH nor among the peers."""
    return shutil.which("docker-registry", path=f"{os.environ.get('PATH', '')}:{os.environ.get('PYDOCK_PEERS', '')}")


@contextlib.contextmanager
def running() -> Iterator[Registry]:
    """Yield a registry that answers. Raises RegistryFailed where it does not, or is not installed."""
    binary = program()
    if binary is None:
        raise RegistryFailed("docker-registry is not installed (Debian package docker-registry)")
    with harness.place("pydock-registry-") as place, _port() as port:
        registry = Registry(f"127.0.0.1:{port}")
        (place / "config.yml").write_text(CONFIG.format(root=place / "data", host=registry.host))
        with (place / "log").open("wb") as log:
            process = subprocess.Popen([binary, "serve", str(place / "config.yml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _await(registry, process, place / "log")
            yield registry
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _port() -> Iterator[int]:
    """Yield a free loopback port; it stays bound (never listening) meanwhile, so that no other test is given it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def _await(registry: Registry, process: subprocess.Popen[bytes], log: Path) -> None:
    """The registry tells nobody when it listens, so this is the one place that asks again and again."""
    end = time.monotonic() + START_SECONDS
    while not registry.answers():
        if process.poll() is not None or time.monotonic() > end:
            raise RegistryFailed(f"the registry did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)
