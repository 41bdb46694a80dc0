"""The configuration file: typed, documented, and exact in its complaints."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from pydock.core import plugin, proxies
from pydock.daemon import builtins, config, document, main, toml

URI = "io.containerd.grpc.v1.healthcheck"


@dataclass(frozen=True)
class Inner(plugin.Config):
    retries: int = plugin.option(2, "how often")


@dataclass(frozen=True)
class Example(plugin.Config):
    on: bool = plugin.option(True, "whether")
    share: float = plugin.option(0.5, "how much")
    where: Path = plugin.option(Path("/x"), "a path")
    names: tuple[str, ...] = plugin.option(("a", "b"), "a list")
    env: dict[str, str] = plugin.option({"k": "v w"}, "a table")
    perhaps: int | None = plugin.option(None, "an optional number")
    inner: Inner = plugin.option(Inner(), "nested")


def settings_of(tmp_path: Path, text: str) -> config.Settings:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return config.load(path, required=True)


def test_an_absent_file_gives_the_defaults_unless_it_was_asked_for(tmp_path: Path) -> None:
    assert config.load(tmp_path / "none.toml", required=False) == config.Settings()
    with pytest.raises(config.BadConfig, match=r"none\.toml: no such file"):
        config.load(tmp_path / "none.toml", required=True)


def test_the_default_grpc_socket_is_in_the_state_directory() -> None:
    assert config.Settings().address() == Path("/run/pydock/pydock.sock")
    assert config.Settings(state="/s").address() == Path("/s/pydock.sock")
    assert config.Settings(grpc=config.Grpc(address="unix:///a/b")).address() == Path("/a/b")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("roots = '/x'", "roots: unknown key; known here: .*root"),
        ("root = 5", "root: expected a string, got an integer"),
        ("root = 'x'", "root: 'x' is not an absolute path"),
        ("version = 2", "version: 2 is not known"),
        ("version = true", "version: expected an integer, got a boolean"),
        ("[grpc]\nuid = '0'", r"grpc\.uid: expected an integer, got a string"),
        ("[grpc]\nmax_recv_message_size = 0", r"grpc\.max_recv_message_size: expected 1 to"),
        ("grpc = 1", "grpc: expected a table, got an integer"),
        ("[log]\nlevel = 'loud'", r"log\.level: expected debug, info, warn or error, got 'loud'"),
        ("disabled_plugins = 'x'", "disabled_plugins: expected a list, got a string"),
        ("disabled_plugins = ['x', 1]", r"disabled_plugins\[1\]: expected a string, got an integer"),
        ("hosts = ['tcp://0.0.0.0:2375']", "plain TCP is refused"),
        ("plugins.x = 3", 'plugins."x": expected a table'),
        ("root = ", "not TOML"),
        ("a = " + "[" * 3000, "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_naming_file_key_and_what_is_expected(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(config.BadConfig, match=rf"config\.toml: .*{complaint}"):
        settings_of(tmp_path, text)


def test_a_plugin_section_is_read_into_its_class_and_its_mistakes_are_named(tmp_path: Path) -> None:
    text = '[plugins."x.v1.y"]\nshare = 1\nwhere = "/y"\nnames = []\nperhaps = 4\ninner.retries = 9\n'
    read = settings_of(tmp_path, text).section("x.v1.y", Example)
    assert read == Example(share=1.0, where=Path("/y"), names=(), perhaps=4, inner=Inner(9))
    wrong = settings_of(tmp_path, '[plugins."x.v1.y".inner]\nretries = "many"\n')
    with pytest.raises(config.BadConfig, match=r'config\.toml: plugins\."x\.v1\.y"\.inner\.retries: expected an integer, got a string'):
        wrong.section("x.v1.y", Example)


def test_a_plugin_that_does_not_exist_is_refused_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(config.BadConfig, match=r'plugins\."io\.x": there is no such plugin'):
        config.check_known(settings_of(tmp_path, '[plugins."io.x"]\n'), [URI])
    with pytest.raises(config.BadConfig, match=r"disabled_plugins: there is no plugin io\.x"):
        config.check_known(settings_of(tmp_path, 'disabled_plugins = ["io.x"]'), [URI])


def test_what_is_written_reads_back_to_the_same() -> None:
    for value in (Example(), Example(on=False, env={'"\n': "\\é"}, names=("x\ty",))):
        for documented in (True, False):
            assert toml.read(tomllib.loads(toml.write(value, documented=documented)), Example) == value


def test_the_printed_default_documents_every_key_and_reads_back_to_the_defaults(tmp_path: Path) -> None:
    text = document.document(config.Settings(), documented=True)
    read = settings_of(tmp_path, text)
    assert (read.root, read.grpc, read.log, read.hosts) == ("/var/lib/pydock", config.Grpc(), config.Log(), config.Settings().hosts)
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if " = " in line and not line.startswith("#"):
            assert lines[index - 1].startswith("#"), f"{line} has no documentation"


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('root = "/r"\nstate = "/s"\n[log]\nlevel = "error"\nformat = "json"\n[grpc]\nuid = 5\n')
    flags = ["--config", str(path), "--root", "/r2", "--address", "/a.sock", "--log-level", "debug", "--host", "unix:///h.sock"]
    made = main.settings(main.parser().parse_args(flags))
    assert (made.root, made.state, made.log, made.hosts) == ("/r2", "/s", config.Log("debug", "json"), ("unix:///h.sock",))
    assert made.grpc == config.Grpc(address="/a.sock", uid=5)


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", "http://x", "fd://", "unix://relative", "/run/x.sock", ""])
def test_a_host_that_is_not_an_absolute_unix_path_is_refused(host: str) -> None:
    with pytest.raises(config.BadConfig, match="host"):
        main.settings(main.parser().parse_args(["--host", host]))


def test_every_built_in_plugin_is_in_the_module_the_table_names() -> None:
    registered = builtins.load(builtins.PLUGINS)
    assert sorted(one.uri for one in registered) == sorted(builtins.PLUGINS)


def test_a_disabled_plugin_is_not_loaded() -> None:
    assert URI not in [one.uri for one in builtins.load({URI: "no.such.module"}, [URI])]
    with pytest.raises(builtins.BadModule, match="cannot be imported"):
        builtins.load({URI: "no_such_module"})


def test_proxy_plugins_are_read_and_written_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[proxy_plugins."a.b"]\ntype = "snapshot"\naddress = "/a.sock"\nexports = { root = "/r" }\n')
    made = config.load(path, required=True)
    assert made.proxy_plugins == {"a.b": proxies.Options("snapshot", "/a.sock", exports={"root": "/r"})}
    path.write_text(document.document(made, documented=False))
    assert config.load(path, required=True).proxy_plugins == made.proxy_plugins


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[metrics]\naddress = "0.0.0.0:1"\n', "metrics.address"),
        ('[proxy_plugins.x]\ntype = "what"\naddress = "/a"\n', "proxy_plugins.x: type"),
        ('[proxy_plugins.x]\ntype = "diff"\n', "proxy_plugins.x: address"),
        ('[proxy_plugins."/"]\ntype = "diff"\naddress = "/a"\n', "proxy_plugins./"),
    ],
)
def test_what_others_could_reach_or_nobody_could_start_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(config.BadConfig, match=words):
        config.load(path, required=True)
