"""Which hosts serve a registry: files in containerd's form, certificates in Docker's, and what is assumed without either."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydock.base import errors
from pydock.core import remotes
from pydock_plugins.remotes import hosts

DOMAIN = "registry.example.com"


def write(root: Path, text: str, domain: str = DOMAIN) -> remotes.Access:
    """Put a hosts.toml where it is looked for."""
    (root / domain).mkdir(parents=True)
    (root / domain / "hosts.toml").write_text(text)
    return remotes.Access(hosts_dir=str(root))


def bases(found: object) -> list[str]:
    """Return the base URLs."""
    return [host.base for host in found]  # type: ignore[attr-defined]


DEFAULTS = [
    ("docker.io", "https://registry-1.docker.io/v2", False),
    ("index.docker.io", "https://registry-1.docker.io/v2", False),
    (DOMAIN, f"https://{DOMAIN}/v2", False),
    ("localhost:5000", "https://localhost:5000/v2", True),
    ("127.0.0.1:5000", "https://127.0.0.1:5000/v2", True),
    ("[::1]:5000", "https://[::1]:5000/v2", True),
    ("127.evil.com", "https://127.evil.com/v2", False),
    ("localhost.evil.com", "https://localhost.evil.com/v2", False),
    ("10.0.0.1", "https://10.0.0.1/v2", False),
]


@pytest.mark.parametrize(("domain", "base", "fallback"), DEFAULTS)
def test_without_a_file_the_domain_is_the_host(domain: str, base: str, fallback: bool) -> None:
    [host] = hosts.hosts_for(domain, remotes.Access())
    assert (host.base, host.fallback_http, host.mirrors) == (base, fallback, "")


def test_plain_http_is_only_for_who_asks() -> None:
    assert bases(hosts.hosts_for(DOMAIN, remotes.Access(plain_http=True))) == [f"http://{DOMAIN}/v2"]


def test_a_file_lists_mirrors_first_in_its_order(tmp_path: Path) -> None:
    text = """
server = "https://registry.example.com"
[host."https://b.example.org"]
capabilities = ["pull", "resolve"]
[host."http://a.example.org:5000/cache/v2/x"]
override_path = true
skip_verify = true
[host."c.example.org/sub/"]
"""
    found = hosts.hosts_for(DOMAIN, write(tmp_path, text))
    assert bases(found) == [
        "https://b.example.org/v2", "http://a.example.org:5000/cache/v2/x", "https://c.example.org/sub/v2", "https://registry.example.com/v2",
    ]  # fmt: skip
    assert [host.mirrors for host in found] == [DOMAIN, DOMAIN, DOMAIN, ""]
    assert [host.skip_verify for host in found] == [False, True, False, False]
    assert [sorted(host.capabilities) for host in found][:2] == [["pull", "resolve"], ["pull", "push", "resolve"]]


def test_a_file_without_server_ends_with_the_domain(tmp_path: Path) -> None:
    assert bases(hosts.hosts_for(DOMAIN, write(tmp_path, '[host."https://m"]\n'))) == ["https://m/v2", f"https://{DOMAIN}/v2"]
    assert bases(hosts.hosts_for("docker.io", write(tmp_path, "", "docker.io"))) == ["https://registry-1.docker.io/v2"]


def test_certificates_are_found_beside_the_file(tmp_path: Path) -> None:
    text = '[host."https://m"]\nca = ["ca.crt", "/etc/other.crt"]\nclient = [["c.cert", "c.key"], ["both.pem", ""]]\n'
    host = hosts.hosts_for(DOMAIN, write(tmp_path, text))[0]
    folder = tmp_path / DOMAIN
    assert host.ca == (f"{folder}/ca.crt", "/etc/other.crt")
    assert host.client == ((f"{folder}/c.cert", f"{folder}/c.key"), (f"{folder}/both.pem", f"{folder}/both.pem"))


@pytest.mark.parametrize(("client", "count"), [('"a.pem"', 1), ('["a.pem", "b.pem"]', 2), ('[["a.pem"]]', 1)])
def test_a_certificate_may_hold_its_key(tmp_path: Path, client: str, count: int) -> None:
    host = hosts.hosts_for(DOMAIN, write(tmp_path, f'[host."https://m"]\nclient = {client}\n'))[0]
    assert len(host.client) == count
    assert all(cert == key for cert, key in host.client)


def test_headers_are_the_hosts_and_the_clients(tmp_path: Path) -> None:
    access = write(tmp_path, '[host."https://m"]\n[host."https://m".header]\nX-A = "1"\nX-B = ["2", "3"]\n')
    mirror, own = hosts.hosts_for(DOMAIN, remotes.Access(hosts_dir=access.hosts_dir, headers=(("X-C", "4"),)))
    assert mirror.headers == (("X-A", "1"), ("X-B", "2"), ("X-B", "3"), ("X-C", "4"))
    assert own.headers == (("X-C", "4"),)


@pytest.mark.parametrize("pair", [("X\r\nY", "1"), ("X", "1\r\n"), ("", "1"), ("X Y", "1"), ("X", "\0"), ("X", "\u0416"), ("\u0416", "x")])
def test_a_header_that_would_break_the_request_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(errors.InvalidArgument, match="header"):
        hosts.hosts_for(DOMAIN, remotes.Access(headers=(pair,)))


def test_a_port_is_written_in_two_ways_and_default_is_for_all(tmp_path: Path) -> None:
    access = write(tmp_path, 'server = "https://fallback"\n', "_default")
    assert bases(hosts.hosts_for("r:5000", access)) == ["https://fallback/v2"]
    write(tmp_path, 'server = "https://colon"\n', "r:5000")
    assert bases(hosts.hosts_for("r:5000", access)) == ["https://colon/v2"]
    write(tmp_path, 'server = "https://score"\n', "r_5000_")
    assert bases(hosts.hosts_for("r:5000", access)) == ["https://score/v2"]


def test_dockers_certificates_are_taken_where_there_is_no_file(tmp_path: Path) -> None:
    (tmp_path / DOMAIN).mkdir()
    for name in ("ca.crt", "client.cert", "client.key"):
        (tmp_path / DOMAIN / name).touch()
    [host] = hosts.hosts_for(DOMAIN, remotes.Access(hosts_dir=str(tmp_path)))
    assert [Path(path).name for path in host.ca] == ["ca.crt"]
    assert [[Path(path).name for path in pair] for pair in host.client] == [["client.cert", "client.key"]]


HOST = '[host."https://m"]\n'
BAD = [
    "server = [", "server = 5", 'server = "ftp://x"', 'server = "https://"', 'server = "https://user:pass@x"', 'server = "https://[::1"',
    'server = "https://x:99999"', 'server = "https://x/?q=1"', 'server = "https://x y"', "host = 5", 'host = "x"', "[host]\nx = 5",
    HOST + 'capabilities = "pull"', HOST + 'capabilities = ["fly"]', HOST + "capabilities = [1]", HOST + 'capabilities = [["pull"]]',
    HOST + "ca = 5", HOST + 'ca = [["x"]]', HOST + 'ca = ""', HOST + "client = 5", HOST + "client = [[]]", HOST + "client = [[5, 6]]",
    HOST + 'client = [["a", "b", "c"]]', HOST + "header = 5", '[host."https://m".header]\n"X Y" = "z"', '[host."file:///x"]',
    '[host."https://m".header]\nX = "a\\nb"', "\x00", "a = 1\na = 2", "x = " + "[" * 5000, "x = " + "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"hosts\.toml|header"):
        hosts.hosts_for(DOMAIN, write(tmp_path, text))


def test_a_file_of_megabytes_or_of_no_text_is_refused(tmp_path: Path) -> None:
    access = write(tmp_path, "# " + "x" * (1 << 20))
    with pytest.raises(errors.InvalidArgument, match="larger"):
        hosts.hosts_for(DOMAIN, access)
    (tmp_path / DOMAIN / "hosts.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(errors.InvalidArgument, match=r"hosts\.toml"):
        hosts.hosts_for(DOMAIN, access)
