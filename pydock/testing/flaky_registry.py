"""A registry that misbehaves on request: small images over the distribution protocol, with faults where a test wants them.

Vocabulary: a *rule* is a method, a pattern of the path and an *action*, which is given the right `Answer` and returns the one to send; it
counts down when it is for some times only.  An *authority* decides who may come in (`Basic`, `Bearer`).  *Seen* is a request as it came.
Invariant: it listens on 127.0.0.1 alone, answers by threads of its own and is gone with the ``with`` block, stalled answers included.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.server
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from pydock.testing import images

_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
_BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>[a-z0-9]+:[^/]+)")
_UPLOAD = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<id>[^/]*)")
_RANGE = re.compile(r"bytes=(\d+)-")


@dataclasses.dataclass
class Seen:
    """One request: ``sent`` is how many bytes of body it was answered with so far."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    status: int = 0
    sent: int = 0

    @property
    def authorization(self) -> str:
        """Return the credentials it carried."""
        return self.headers.get("authorization", "")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is sent: ``declared`` is the Content-Length (-1 for none at all), ``cut`` ends it after so many bytes, ``stall`` sends no more
    after so many, ``drip`` sends it in pieces of (bytes, seconds between)."""

    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    declared: int | None = None
    cut: int | None = None
    stall: int | None = None
    drip: tuple[int, float] | None = None


Action = Callable[[Answer, Seen], Answer]


class Authority(Protocol):
    """Lets a request in, or says with which answer it is turned away; ``serve`` answers paths of its own."""

    def check(self, seen: Seen, registry: FlakyRegistry) -> Answer | None: ...
    def serve(self, seen: Seen, registry: FlakyRegistry) -> Answer | None: ...


@dataclasses.dataclass
class Rule:
    """An action for the requests it fits; ``left`` None is for ever."""

    method: str
    pattern: re.Pattern[str]
    action: Action
    left: int | None = None

    def take(self, seen: Seen) -> bool:
        """Tell whether it applies to a request, which it then counts."""
        if seen.method not in self.method.split("|") or not self.pattern.search(seen.path) or self.left == 0:
            return False
        self.left = None if self.left is None else self.left - 1
        return True


class FlakyRegistry:
    """A registry at ``host``, ``url`` with its scheme; tests read ``requests`` and set ``authority``."""

    def __init__(self, host: str, scheme: str = "http") -> None:
        self.host, self.scheme = host, scheme
        self.authority: Authority | None = None
        self.requests: list[Seen] = []
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.elsewhere = ""  # where uploads are sent, "" is here
        self.held = threading.Event()  # set when an answer has stalled
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    @property
    def url(self) -> str:
        """Return its base without "/v2"."""
        return f"{self.scheme}://{self.host}"

    def add(self, image: images.Image, name: str) -> str:
        """Offer an image as ``name`` ("repository:tag"); returns its full reference."""
        repository, _, tag = name.partition(":")
        for key, data in image.blobs.items():
            self.blobs[key] = data
            if data.startswith(b'{"schemaVersion"'):
                self.put_manifest(repository, key, data)
        self.put_manifest(repository, tag or "latest", image.manifest)
        return f"{self.host}/{repository}:{tag or 'latest'}"

    def put_manifest(self, repository: str, reference: str, data: bytes, kind: str = "") -> None:
        """Offer a document, well formed or not."""
        found = kind or (images.INDEX if b'"manifests":' in data else images.MANIFEST)
        for one in {reference, images.digest(data)}:
            self.manifests[repository, one] = data, found

    def on(self, method: str, pattern: str, action: Action, times: int | None = None) -> None:
        """Let an action change the answers to ``method`` ("GET|HEAD") of paths that ``pattern`` is found in."""
        with self._lock:
            self._rules.append(Rule(method, re.compile(pattern), action, times))

    def heal(self) -> None:
        """Forget all rules and what was seen."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()
        self._over.set()  # lets what has stalled go
        self._over = threading.Event()
        self.held.clear()

    def seen(self, pattern: str, method: str = "GET") -> list[Seen]:
        """Return the requests whose path has ``pattern`` in it."""
        with self._lock:
            return [one for one in self.requests if one.method == method and re.search(pattern, one.path)]

    def served(self, pattern: str) -> int:
        """Return how many bytes of body went out for paths with ``pattern``."""
        return sum(one.sent for one in self.seen(pattern))

    # --- answering

    def answer(self, seen: Seen) -> Answer:
        """Return what is to be sent to a request."""
        if self.authority and (own := self.authority.serve(seen, self)):
            found = own
        elif self.authority and (refused := self.authority.check(seen, self)):
            found = refused
        else:
            found = self._right(seen)
        with self._lock:
            rules = [rule.action for rule in self._rules if rule.take(seen)]
        for action in rules:
            found = action(found, seen)
        return found

    def note(self, seen: Seen) -> None:
        """Keep a request that was answered."""
        with self._lock:
            self.requests.append(seen)

    def hold(self) -> None:
        """Wait until the registry is healed or ended."""
        over = self._over
        self.held.set()
        over.wait(60)

    def over(self, seconds: float) -> bool:
        """Wait; tells whether the registry was healed or ended meanwhile."""
        return self._over.wait(seconds)

    def end(self) -> None:
        """Let go of what has stalled."""
        self._over.set()

    def _right(self, seen: Seen) -> Answer:
        if seen.method in ("POST", "PUT"):
            return self._pushed(seen)
        if match := _MANIFEST.fullmatch(seen.path):
            found = self.manifests.get((match["name"], match["reference"]))
            if found is None:
                return refusal(404, "MANIFEST_UNKNOWN", "manifest unknown")
            headers = {"Content-Type": found[1], "Docker-Content-Digest": images.digest(found[0])}
            return Answer(headers=headers, body=found[0])
        if match := _BLOB.fullmatch(seen.path):
            data = self.blobs.get(match["digest"])
            return refusal(404, "BLOB_UNKNOWN", "blob unknown") if data is None else ranged(data, seen)
        return Answer() if seen.path == "/v2/" else refusal(404, "NAME_UNKNOWN", "no such page")

    def _pushed(self, seen: Seen) -> Answer:
        if match := _MANIFEST.fullmatch(seen.path):
            self.put_manifest(match["name"], match["reference"], seen.body, seen.headers.get("content-type", ""))
            return Answer(201, {"Docker-Content-Digest": images.digest(seen.body)})
        if (match := _UPLOAD.fullmatch(seen.path)) is None:
            return refusal(404, "NAME_UNKNOWN", "no such page")
        if seen.method == "POST":
            return Answer(202, {"Location": f"{self.elsewhere}/v2/{match['name']}/blobs/uploads/1?state=a%2Fb"})
        if seen.query.get("digest") != images.digest(seen.body):
            return refusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.blobs[seen.query["digest"]] = seen.body
        return Answer(201, {"Docker-Content-Digest": seen.query["digest"]})


def refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an error answer in the distribution specification's form."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, body)


def ranged(data: bytes, seen: Seen) -> Answer:
    """Return ``data``, or the part of it a Range asks for."""
    kind = {"Content-Type": "application/octet-stream"}
    match = _RANGE.fullmatch(seen.headers.get("range", ""))
    if match is None:
        return Answer(200, kind, data)
    at = int(match[1])
    if at >= len(data):
        return Answer(416, {"Content-Range": f"bytes */{len(data)}"})
    return Answer(206, {**kind, "Content-Range": f"bytes {at}-{len(data) - 1}/{len(data)}"}, data[at:])


# --- who may come in


@dataclasses.dataclass
class Basic:
    """One user by RFC 7617."""

    user: str
    secret: str

    def expected(self) -> str:
        """Return the header of the one user."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()

    def check(self, seen: Seen, registry: FlakyRegistry) -> Answer | None:
        """Turn everybody else away."""
        if seen.authorization == self.expected():
            return None
        return refusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": 'Basic realm="flaky"'})

    def serve(self, seen: Seen, registry: FlakyRegistry) -> Answer | None:
        """Answer nothing."""
        return None


@dataclasses.dataclass
class Bearer:
    """Tokens from ``/token``, to anybody or to one user; each is good for its scope and for ``uses`` requests (None: for ever)."""

    user: Basic | None = None
    uses: int | None = None
    realm: str = ""
    granted: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)  # token: scope, uses so far

    def check(self, seen: Seen, registry: FlakyRegistry) -> Answer | None:
        """Turn away who has no token of the right scope."""
        name = next((m["name"] for form in (_MANIFEST, _BLOB, _UPLOAD) if (m := form.fullmatch(seen.path))), "")
        wanted = f"repository:{name}:" + ("pull,push" if seen.method in ("POST", "PUT") else "pull")
        token = seen.authorization.removeprefix("Bearer ")
        scope, used = self.granted.get(token, ("", 0))
        if scope.startswith(wanted) and (self.uses is None or used < self.uses):
            self.granted[token] = scope, used + 1
            return None
        realm = self.realm or f"{registry.url}/token"
        challenge = f'Bearer realm="{realm}",service="flaky",scope="{wanted}"'
        return refusal(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})

    def serve(self, seen: Seen, registry: FlakyRegistry) -> Answer | None:
        """Answer who asks for a token."""
        if seen.path != "/token":
            return None
        if self.user and seen.authorization != self.user.expected():
            return refusal(401, "UNAUTHORIZED", "who is it")
        token = f"token-{len(self.granted)}"
        self.granted[token] = seen.query.get("scope", ""), 0
        return Answer(200, {"Content-Type": "application/json"}, json.dumps({"token": token, "expires_in": 300}).encode())


# --- actions


def change(**fields: Any) -> Action:
    """Replace fields of the answer."""
    return lambda answer, _: dataclasses.replace(answer, **fields)


def header(name: str, value: str) -> Action:
    """Set a header of the answer."""
    return lambda answer, _: dataclasses.replace(answer, headers={**answer.headers, name: value})


def instead(answer: Answer) -> Action:
    """Send another answer."""
    return lambda _, __: answer


def redirect(url: str, status: int = 307) -> Action:
    """Send elsewhere, with ``{path}`` in ``url`` replaced."""
    return lambda _, seen: Answer(status, {"Location": url.replace("{path}", seen.path)})


# --- the server


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    registry: FlakyRegistry

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests read ``requests``."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client may go at any time
            super().handle()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = Seen(self.command, parts.path, query, {key.lower(): value for key, value in self.headers.items()}, body)
        answer = self.registry.answer(seen)
        seen.status = answer.status
        self.registry.note(seen)
        self._send(answer, seen)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve

    def _send(self, answer: Answer, seen: Seen) -> None:
        self.send_response(answer.status)
        declared = len(answer.body) if answer.declared is None else answer.declared
        if "Content-Length" not in answer.headers and declared >= 0:
            self.send_header("Content-Length", str(declared))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if declared != len(answer.body) or answer.cut is not None:
            self.close_connection = True
        with contextlib.suppress(OSError):
            self.end_headers()
            if self.command != "HEAD":
                self._body(answer, seen)

    def _body(self, answer: Answer, seen: Seen) -> None:
        until = len(answer.body)
        for bound in (answer.cut, answer.stall):
            until = until if bound is None else min(until, bound)
        size, seconds = answer.drip or (until or 1, 0.0)
        for at in range(0, until, size):
            if seconds and at and self.registry.over(seconds):
                break
            self.wfile.write(answer.body[at : min(at + size, until)])
            seen.sent = min(at + size, until)
        if answer.stall is not None:
            self.wfile.flush()
            self.registry.hold()
            self.close_connection = True
        elif answer.cut is not None:
            self._reset()

    def _reset(self) -> None:
        """End the connection; all that was written still arrives."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR) if not isinstance(self.connection, ssl.SSLSocket) else None


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: failed handshakes are among the tests."""


@contextlib.contextmanager
def running(context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Iterator[FlakyRegistry]:
    """Yield a registry that answers, over TLS when a context is given; ``address`` is another one of the loopback net."""
    handler = type("_Bound", (_Handler,), {})
    with _Server((address, 0), handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        registry = FlakyRegistry(f"{address}:{server.server_address[1]}", "https" if context else "http")
        handler.registry = registry  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield registry
        finally:
            registry.end()
            server.shutdown()
            thread.join()
