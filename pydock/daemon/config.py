"""The daemon's configuration: a TOML file read into frozen dataclasses whose fields carry their own documentation.

Vocabulary: a *section* is a dataclass whose fields are made by ``plugin.option``; plugins own ``[plugins."<uri>"]``, read on demand.
Invariants: everything has a default and the file may be absent; an unknown key or a value of a wrong type is an error that names
file, key and what is expected; flags of the command line win over the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydock.base import errors
from pydock.core import metrics, proxies
from pydock.core.plugin import Config, option
from pydock.daemon import toml

C = TypeVar("C")

DEFAULT_PATH = Path("/etc/pydock/config.toml")
LARGEST_FILE = 1 << 20
LEVELS = ("debug", "info", "warn", "error")
FORMATS = ("logfmt", "json")


class BadConfig(errors.InvalidArgument):
    """The configuration file, or a flag, does not say what it should."""

    def __str__(self) -> str:
        return self.detail


@dataclasses.dataclass(frozen=True)
class Grpc(Config):
    """``[grpc]``: the socket of containerd's API."""

    address: str = option("", "path of the unix socket; empty: pydock.sock in the state directory")
    uid: int = option(0, "owner of the socket")
    gid: int = option(-1, 'group of the socket; -1: the group "docker" where there is one, else root')
    max_recv_message_size: int = option(16 << 20, "largest message a client may send, in bytes")
    max_send_message_size: int = option(16 << 20, "largest message sent to a client, in bytes")


@dataclasses.dataclass(frozen=True)
class Log(Config):
    """``[log]``: lines on standard error."""

    level: str = option("info", "debug, info, warn or error; read again at SIGHUP")
    format: str = option("logfmt", "logfmt or json")


@dataclasses.dataclass(frozen=True)
class Settings(Config):
    """The whole file; ``plugins`` holds the raw sections by uri."""

    version: int = option(1, "version of this file's layout")
    root: str = option("/var/lib/pydock", "durable state: images, containers, snapshots")
    state: str = option("/run/pydock", "state of this boot: sockets, bundles, mounts")
    hosts: tuple[str, ...] = option(("unix:///run/pydock/docker.sock",), "addresses of the Docker API (not built in yet)")
    disabled_plugins: tuple[str, ...] = option((), 'plugins not to load, such as "io.containerd.snapshotter.v1.native"')
    grpc: Grpc = option(Grpc(), "")
    log: Log = option(Log(), "")
    metrics: metrics.Options = option(metrics.Options(), "")
    proxy_plugins: dict[str, proxies.Options] = option({}, "mechanisms in other processes; each has type, address and more")
    plugins: dict[str, Any] = option({}, "")
    source: str = dataclasses.field(default="the defaults", metadata={"hidden": True})

    def section(self, uri: str, wanted: type[Config]) -> Config:
        """Return the section of the plugin ``uri`` as a ``wanted``. Raises BadConfig."""
        return read(self.plugins.get(uri, {}), wanted, self.source, f'plugins."{uri}"')

    def address(self) -> Path:
        """Return the gRPC socket's path."""
        return Path(self.grpc.address.removeprefix("unix://") or Path(self.state) / "pydock.sock")


def load(path: Path, *, required: bool) -> Settings:
    """Return the settings in the file at ``path``, or the defaults where it is absent and not ``required``. Raises BadConfig."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        if required:
            raise BadConfig(f"{path}: no such file") from None
        return Settings()
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from error
    if len(raw) > LARGEST_FILE:
        raise BadConfig(f"{path}: larger than {LARGEST_FILE} bytes")
    import tomllib  # here, since most daemons start without a file and it costs 4 ms

    try:
        table = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadConfig(f"{path}: not TOML: {error}") from error
    return dataclasses.replace(check(read(table, Settings, str(path), ""), str(path)), source=str(path))


def check(settings: Settings, source: str) -> Settings:
    """Return ``settings`` after the checks beyond types. Raises BadConfig."""
    if settings.version != 1:
        raise BadConfig(f"{source}: version: {settings.version} is not known; this pydockd reads version 1")
    _one_of(settings.log.level, LEVELS, source, "log.level")
    _one_of(settings.log.format, FORMATS, source, "log.format")
    for key, value in (("root", settings.root), ("state", settings.state), ("grpc.address", str(settings.address()))):
        if not value.startswith("/"):
            raise BadConfig(f"{source}: {key}: {value!r} is not an absolute path")
    for key in ("max_recv_message_size", "max_send_message_size"):
        if not 0 < getattr(settings.grpc, key) <= 1 << 30:
            raise BadConfig(f"{source}: grpc.{key}: expected 1 to {1 << 30} bytes")
    for uri, section in settings.plugins.items():
        if not isinstance(section, dict):
            raise BadConfig(f'{source}: plugins."{uri}": expected a table, got {toml.kind(section)}')
    for host in settings.hosts:
        _check_host(host, source)
    if settings.metrics.address:
        _check_metrics(settings.metrics.address, source)
    for name, options in settings.proxy_plugins.items():
        _check_proxy(name, options, source)
    return settings


def _check_host(host: str, source: str) -> None:
    scheme, separator, rest = host.partition("://")
    if scheme == "tcp" and separator:
        raise BadConfig(f"{source}: host {host}: plain TCP is refused: whoever reaches it is root on this machine")
    if scheme != "unix" or not rest.startswith("/"):
        raise BadConfig(f"{source}: host {host}: expected unix:// and an absolute path")


def _check_metrics(address: str, source: str) -> None:
    try:
        metrics.endpoint(address)
    except errors.InvalidArgument as error:
        raise BadConfig(f"{source}: metrics.address: {error.detail}") from None


def _check_proxy(name: str, options: proxies.Options, source: str) -> None:
    try:
        proxies.check(name, options)
    except errors.InvalidArgument as error:
        raise BadConfig(f"{source}: proxy_plugins.{name}: {error.detail}") from None


def check_known(settings: Settings, uris: Iterable[str]) -> None:
    """Raise BadConfig where the file names a plugin that does not exist."""
    known = frozenset(uris)
    for uri in settings.plugins:
        if uri not in known:
            raise BadConfig(f'{settings.source}: plugins."{uri}": there is no such plugin')
    for uri in settings.disabled_plugins:
        if uri not in known:
            raise BadConfig(f"{settings.source}: disabled_plugins: there is no plugin {uri}")


def _one_of(value: str, allowed: tuple[str, ...], source: str, key: str) -> None:
    if value not in allowed:
        raise BadConfig(f"{source}: {key}: expected {', '.join(allowed[:-1])} or {allowed[-1]}, got {value!r}")


def read(table: Mapping[str, Any], wanted: type[C], source: str, key: str) -> C:
    """Return the TOML ``table`` as a ``wanted`` dataclass. Raises BadConfig naming the key below ``key``."""
    try:
        return toml.read(table, wanted, key)
    except toml.Mismatch as error:
        raise BadConfig(f"{source}: {error}") from None
