"""A registry that wants a password, as small as one can be."""

from __future__ import annotations

import base64
import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator

import pytest

from pydock.testing import images

Guarded = Callable[[images.Image, str], contextlib.AbstractContextManager[str]]


@pytest.fixture
def guarded() -> Guarded:
    """Serve an image under every name to who signs in with "user:password"; the context gives the host."""
    return _serving


@contextlib.contextmanager
def _serving(image: images.Image, secret: str) -> Iterator[str]:
    wanted = "Basic " + base64.b64encode(secret.encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="here"'})
                return
            name = self.path.rpartition("/")[2]
            data = image.blobs.get(name if ":" in name else image.digest, b"{}")
            kind = images.MANIFEST if "/manifests/" in self.path else "application/octet-stream"
            self.answer(200, data, {"Content-Type": kind, "Docker-Content-Digest": images.digest(data)})

        do_HEAD = do_GET

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
