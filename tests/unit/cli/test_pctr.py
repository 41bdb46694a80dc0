"""The command line as such: loading, help, and how failures look."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from pydock.cli import pctr


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", "from pydock.cli.pctr import main; main()", *args], capture_output=True, text=True)


def test_every_command_of_the_table_exists_and_has_help() -> None:
    context = click.Context(pctr.root)
    for name in pctr.root.list_commands(context):
        command = pctr.root.get_command(context, name)
        assert command is not None
        assert command.help


def test_every_alias_leads_to_a_command() -> None:
    context = click.Context(pctr.root)
    for alias, name in pctr._ALIASES.items():
        assert pctr.root.get_command(context, alias) is pctr.root.get_command(context, name)


def test_help_loads_neither_grpc_nor_commands() -> None:
    code = "import sys; from pydock.cli import pctr\ntry: pctr.root.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted(name for name in sys.modules if name in ('grpc', 'rich', 'pydock.cli.run')), file=sys.stderr)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == "[]\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing"], "No such command 'nothing'."),
        (["run", "--rm"], "image ref must be provided"),
        (["run", "image"], "container id must be provided"),
        (["run", "--rm", "-d", "image", "id"], "flags --detach and --rm cannot be specified together"),
        (["tasks", "kill", "--all", "--exec-id", "x", "c"], "use either --all or --exec-id"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_one(args: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    done = run("-a", f"{tmp_path}/s", *args)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"pctr: {message}\n")


def test_no_daemon_is_one_line_and_code_one(tmp_path: Path) -> None:
    done = run("-a", f"{tmp_path}/s", "images", "ls")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"pctr: cannot access socket {tmp_path}/s: no such file or directory: unavailable\n"
