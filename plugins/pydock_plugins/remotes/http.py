"""HTTP to registries: one request with authorization, redirects, retries and bounds; everything else is in `registry`.

Invariants: Authorization is sent to the registry's own scheme, host and port only, and only its own answers are taken for challenges; a
redirect never leaves TLS and at most ten are followed; what a registry sends as an error is read up to 64 KiB; no bytes for as long as
`Bounds` says is a failure, not a wait.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urljoin

import aiohttp
import yarl

from pydock.base import errors, offload
from pydock.core import remotes
from pydock_plugins.remotes import auth, hosts
from pydock_plugins.remotes.hosts import Host

AGENT = "pydock/0.1"
_REDIRECTS = 10
_ERROR_LIMIT = 64 << 10
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_ERRNO = {errno.ECONNREFUSED: "connection refused", errno.EHOSTUNREACH: "no route to host", errno.ENETUNREACH: "network is unreachable"}
_STATUS: dict[int, type[errors.PydockError]] = {
    400: errors.InvalidArgument, 401: errors.Unauthenticated, 403: errors.PermissionDenied, 404: errors.NotFound,
    416: errors.OutOfRange, 429: errors.ResourceExhausted,
}  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """How patient to be: ``stall`` seconds without a byte, ``slowest`` bytes in ``window`` seconds of waiting, ``tries`` of a request that
    may be repeated, ``longest`` seconds between two of them whatever the registry asks for."""

    stall: float = 30.0
    window: float = 30.0
    slowest: int = 64 << 10
    tries: int = 4
    longest: float = 10.0


@dataclass(frozen=True)
class Request:
    """One call below a host's base, or at ``url``; ``scope`` is what a token must allow ("repository:NAME:pull")."""

    method: str
    path: str
    scope: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[], AsyncIterator[bytes]] | None = None
    accept: frozenset[int] = frozenset({200})
    url: str = ""

    @property
    def repeatable(self) -> bool:
        """Tell whether sending it again cannot do harm."""
        return self.method in ("GET", "HEAD")


def open_session(bounds: Bounds) -> aiohttp.ClientSession:
    """Make a session: no cookies, no compression (digests are of the bytes sent), no credentials from anybody's ``.netrc``."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=bounds.stall, sock_read=bounds.stall)
    return aiohttp.ClientSession(
        auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout, trust_env=False, read_bufsize=1 << 20,
        headers={"User-Agent": AGENT, "Accept-Encoding": "identity"}, connector=aiohttp.TCPConnector(limit_per_host=16),
    )  # fmt: skip


class Client:
    """One user's requests: keeps tokens for its lifetime."""

    def __init__(self, session: aiohttp.ClientSession, credentials: remotes.CredentialsFor | None, bounds: Bounds) -> None:
        self._session = session
        self.bounds = bounds
        self._credentials = credentials
        self._tokens: dict[tuple[str, str], auth.Token] = {}
        self._basic: dict[str, str] = {}
        self._plain: set[str] = set()  # hosts found to speak no TLS
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def send(self, host: Host, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the answer whose status is in ``request.accept``; everything else is a typed error."""
        authorized, tries = 0, 0
        while True:
            response = await self._once(host, request)
            try:
                if response.status in request.accept:
                    yield response
                    return
                ours = _origin(str(response.url)) == _origin(self._base(host))
                if response.status == 401 and ours and authorized < 2:
                    authorized += 1
                    await self._authorize(host, request.scope, response, renew=authorized > 1)
                    continue
                if response.status not in _AGAIN or not request.repeatable or tries == self.bounds.tries - 1:
                    raise await failure(response)
                pause = _pause(response, tries, self.bounds.longest)
            finally:
                response.release() if response.method == "HEAD" else response.close()
            tries += 1
            await asyncio.sleep(pause)

    def _base(self, host: Host) -> str:
        return "http" + host.base.removeprefix("https") if host.base in self._plain else host.base

    async def _once(self, host: Host, request: Request) -> aiohttp.ClientResponse:
        url = request.url or self._base(host) + request.path
        if host.mirrors and not request.url:
            url += ("&" if "?" in url else "?") + urlencode({"ns": host.mirrors})
        try:
            return await self._follow(host, request, url)
        except aiohttp.ClientConnectorCertificateError as error:
            raise self._unreachable(request, url, error) from error
        except aiohttp.ClientConnectorSSLError as error:
            if not host.fallback_http or host.base in self._plain:
                raise self._unreachable(request, url, error) from error
            self._plain.add(host.base)  # as containerd: a loopback registry without TLS is spoken to in plain HTTP
            return await self._once(host, request)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(request, url, error) from error

    async def _follow(self, host: Host, request: Request, url: str) -> aiohttp.ClientResponse:
        origin, headers = _origin(self._base(host)), {**dict(host.headers), **request.headers}
        for _ in range(_REDIRECTS + 1):
            ours = _origin(url) == origin
            sent = {**headers, **self._authorization(host, request.scope)} if ours else dict(request.headers)
            response = await self._send(request, url, sent, await self._context(host if ours else None))
            if response.status not in (301, 302, 303, 307, 308) or "Location" not in response.headers:
                return response
            try:
                target = urljoin(url, response.headers["Location"])
            except ValueError:
                target = response.headers["Location"]
            response.close()
            auth.check_redirect(url, target)
            url = target
        raise errors.FailedPrecondition(f'{request.method.title()} "{host.base}{request.path}": stopped after {_REDIRECTS} redirects')

    async def _send(self, request: Request, url: str, headers: Mapping[str, str], context: ssl.SSLContext) -> aiohttp.ClientResponse:
        body = request.body() if callable(request.body) else request.body
        known = yarl.URL(url, encoded=url.isascii())  # a signature in a query is of its very bytes
        return await self._session.request(
            request.method, known, headers=headers, data=body, ssl=context, allow_redirects=False, proxy=_proxy(url)
        )

    def _authorization(self, host: Host, scope: str) -> dict[str, str]:
        token = self._tokens.get((host.base, scope))
        if token and token.fresh:
            return {"Authorization": f"Bearer {token.value}"}
        return {"Authorization": self._basic[host.base]} if host.base in self._basic else {}

    async def _context(self, host: Host | None) -> ssl.SSLContext:
        key = (host.skip_verify, host.ca, host.client) if host else (False, (), ())
        if key not in self._contexts:
            self._contexts[key] = await offload.run(_tls, *key)  # reading the system's CAs takes tens of ms
        return self._contexts[key]

    # --- authorization

    async def _authorize(self, host: Host, scope: str, response: aiohttp.ClientResponse, renew: bool) -> None:
        used = response.request_info.headers.get("Authorization", "")
        challenges = auth.parse_challenges(", ".join(response.headers.getall("WWW-Authenticate", [])))
        challenge = auth.choose(challenges)
        if challenge is None:
            raise await failure(response)
        async with self._lock:
            now = self._authorization(host, scope).get("Authorization", "")
            if now and now != used and not renew:
                return  # another request of ours has just renewed it
            if challenge.scheme == "basic":
                await self._use_basic(host, response, used)
            else:
                self._tokens[(host.base, scope)] = await self._token(host, challenge, scope)

    async def _ask(self, host: Host) -> remotes.Credentials | None:
        return await self._credentials(host.authority) if self._credentials else None

    async def _use_basic(self, host: Host, response: aiohttp.ClientResponse, used: str) -> None:
        credentials = await self._ask(host)
        if credentials is None or not (credentials.header or credentials.username):
            denied = "pull access denied, repository does not exist or may require authorization"
            raise errors.Unauthenticated(f"{denied}: authorization failed: no basic auth credentials")
        header = credentials.header or auth.basic(credentials)
        hosts.check_headers([("Authorization", header)])
        if header == used:
            raise await failure(response)
        self._basic[host.base] = header

    async def _token(self, host: Host, challenge: auth.Challenge, scope: str) -> auth.Token:
        realm, service = challenge.parameters.get("realm", ""), challenge.parameters.get("service", "")
        trusted = auth.check_realm(host.base, realm)
        credentials = await self._ask(host) if trusted else None
        fields = {"scope": challenge.parameters.get("scope") or scope} | ({"service": service} if service else {})
        context = await self._context(host if _origin(realm) == _origin(host.base) else None)
        ask = functools.partial(self._ask_token, realm, fields, credentials, context)
        for again in range(self.bounds.tries):
            try:
                async with ask() as answer:
                    if answer.status == 200:
                        return _token_of(await read_bounded(answer, auth.TOKEN_LIMIT), realm)
                    if answer.status not in _AGAIN or again == self.bounds.tries - 1:
                        raise _no_token(answer, "oauth" if credentials else "anonymous")
                    pause = _pause(answer, again, self.bounds.longest)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                cause = _cause(error, self.bounds.stall)
                raise errors.Unavailable(f"failed to authorize: failed to fetch token from {realm}: {cause}") from error
            await asyncio.sleep(pause)
        raise errors.Unavailable(f"failed to authorize: no token from {realm}")

    @asynccontextmanager
    async def _ask_token(
        self, realm: str, fields: Mapping[str, str], credentials: remotes.Credentials | None, context: ssl.SSLContext
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for a token once: by the OAuth2 form with a refresh token, else by GET."""
        if credentials and credentials.secret and not credentials.username:
            form = {**fields, "grant_type": "refresh_token", "refresh_token": credentials.secret, "client_id": "pydock"}
            call = self._session.post(realm, data=form, ssl=context, allow_redirects=False, proxy=_proxy(realm))
        else:
            known = credentials and (credentials.header or auth.basic(credentials))
            url = realm + ("&" if "?" in realm else "?") + urlencode(fields)
            headers = dict(hosts.check_headers([("Authorization", known)])) if known else {}
            call = self._session.get(url, headers=headers, ssl=context, allow_redirects=False, proxy=_proxy(realm))
        async with call as answer:
            yield answer

    def _unreachable(self, request: Request, url: str, error: BaseException) -> errors.PydockError:
        where = f'{request.method.title()} "{url.partition("?")[0]}"'
        return errors.Unavailable(f"failed to do request: {where}: {_cause(error, self.bounds.stall)}")


def _token_of(data: bytes, realm: str) -> auth.Token:
    try:
        return auth.parse_token(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise errors.Unauthenticated(f"token answer of {realm} is not JSON") from error


def _no_token(answer: aiohttp.ClientResponse, kind: str) -> errors.PydockError:
    known = errors.Unavailable if answer.status in _AGAIN else errors.Unauthenticated
    return known(f"failed to authorize: failed to fetch {kind} token: unexpected status from {_call(answer)}")


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a whole small body; ResourceExhausted when it is larger than ``limit`` bytes."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > limit:
            response.close()
            raise errors.ResourceExhausted(f"{_call(response)}: answer larger than {limit} bytes")
    return bytes(data)


async def failure(response: aiohttp.ClientResponse) -> errors.PydockError:
    """Return the typed error of an answer, with the registry's own words where it sent some (OCI distribution, "errors")."""
    words = ""
    try:
        document: Any = json.loads(await response.content.read(_ERROR_LIMIT)) if response.method != "HEAD" else {}
        first = document["errors"][0]
        words = f": {str(first.get('code', ''))[:80].lower()}: {str(first.get('message', ''))[:200]}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, aiohttp.ClientError, TimeoutError):
        words = ""  # no readable body is no reason for another error
    known = _STATUS.get(response.status, errors.Unavailable if response.status >= 500 else errors.Unknown)
    return known(f"unexpected status from {_call(response)}{words}")


def _call(response: aiohttp.ClientResponse) -> str:
    url = str(response.url.with_query(None))  # a redirect's query may hold a signature
    return f"{response.method} request to {url}: {response.status} {response.reason}"


def _cause(error: BaseException, stall: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer for {stall:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"lookup {error.host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno in _ERRNO:
        return f"dial tcp {error.host}:{error.port}: connect: {_ERRNO[error.os_error.errno]}"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.strerror:
        return f"dial tcp {error.host}:{error.port}: {error.os_error.strerror}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"malformed HTTP response: {error.message[:100]}"
    return str(error)[:300] or type(error).__name__


def _pause(response: aiohttp.ClientResponse, tries: int, longest: float) -> float:
    told = response.headers.get("Retry-After", "")
    return min(float(told) if told.isascii() and told.isdecimal() else 0.2 * 2.0**tries, longest)


def _origin(url: str) -> tuple[str, str, int]:
    parts = hosts.split(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def _proxy(url: str) -> str | None:
    """Return the proxy of the daemon's environment for ``url`` (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)."""
    parts = hosts.split(url)
    found = urllib.request.getproxies_environment()
    if not found or hosts.is_local(parts.hostname or "") or urllib.request.proxy_bypass(parts.netloc.lower()):
        return None
    return found.get(parts.scheme)


class BadCertificate(errors.FailedPrecondition):
    """A file of our own configuration is not there or holds no certificate: no other host makes up for that."""


def _tls(skip_verify: bool, ca: tuple[str, ...], client: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    """Make a context.  BadCertificate names the file."""
    context, at = ssl.create_default_context(), ""
    try:
        for at in ca:
            context.load_verify_locations(at)
        for at, key in client:
            context.load_cert_chain(at, key, password="")  # one that wants a password must not ask the terminal for it
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise BadCertificate(f"certificate {at}: {error}") from error
    if skip_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
