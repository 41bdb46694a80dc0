"""``pctr images pull``, ``push``, ``import`` and ``export``: the daemon does the work, this side shows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from pydock.base import errors, platform
from pydock.cli import progress, text
from pydock.cli.session import Session, pass_session
from pydock.client import images, manifests, transfer

F = TypeVar("F", bound=Callable[..., Any])

_REGISTRY = (
    click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registry."),
    click.option("-u", "--user", default="", metavar="USER[:PASSWORD]", help="Sign in; without a password it is asked for."),
    click.option("--refresh", default="", help="Refresh token for the registry's authorization server."),
    click.option("--hosts-dir", default="", help="Directory with hosts.toml files, on the daemon's host."),
    click.option("-k", "--skip-verify", is_flag=True, help="Do not check certificates (only by way of --hosts-dir)."),
)


def registry_options(command: F) -> F:
    """Add the options that say how to reach a registry."""
    for option in reversed(_REGISTRY):
        command = option(command)
    return command


def _registry(reference: str, flags: dict[str, Any]) -> transfer.Registry:
    if flags["skip_verify"]:
        raise errors.Unimplemented("--skip-verify: the daemon takes this per host from skip_verify in hosts.toml (--hosts-dir)")
    credentials = None
    if flags["refresh"]:
        credentials = transfer.Credentials(secret=flags["refresh"])
    elif flags["user"]:
        user, colon, secret = flags["user"].partition(":")
        credentials = transfer.Credentials(user, secret if colon else click.prompt("Password", hide_input=True, err=True))
    return transfer.Registry(reference, flags["plain_http"], flags["hosts_dir"], credentials)


def _platforms(names: tuple[str, ...], every: bool) -> list[platform.Platform]:
    """Return the platforms meant: none for all of them, this host's when nothing is said."""
    if every and names:
        raise errors.InvalidArgument("cannot specify both --platform and --all-platforms")
    return [] if every else [platform.parse(name) for name in names] or [platform.default()]


@click.command()
@registry_options
@click.option("--snapshotter", envvar="CONTAINERD_SNAPSHOTTER", default="", help="Snapshotter to unpack for.")
@click.option("--platform", "platforms", multiple=True, help="Fetch this platform (may be repeated).")
@click.option("--all-platforms", is_flag=True, help="Fetch all platforms; unpacks none.")
@click.option("--no-unpack", is_flag=True, help="Fetch only.")
@click.option("--skip-metadata", is_flag=True, help="Leave manifests of other platforms out.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label the image (may be repeated).")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("ref")
@pass_session
def pull(session: Session, /, ref: str, quiet: bool, **flags: Any) -> None:
    """Fetch an image from a registry and unpack it."""
    wanted = transfer.Wanted(
        _platforms(flags["platforms"], flags["all_platforms"]), text.pairs(flags["labels"]),
        None if flags["no_unpack"] else flags["snapshotter"], not flags["skip_metadata"],
    )  # fmt: skip
    with progress.shown(f"pulled {ref}", quiet=quiet or session.as_json) as watch:
        transfer.pull(session.conn, _registry(ref, flags), wanted, watch)
    _tell(session, ref)


@click.command()
@registry_options
@click.option("--platform", "platforms", multiple=True, help="Fetch this platform (may be repeated).")
@click.option("--all-platforms", is_flag=True, help="Fetch all platforms.")
@click.option("--skip-metadata", is_flag=True, help="Leave manifests of other platforms out.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label the image (may be repeated).")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("ref")
@click.pass_context
def fetch(ctx: click.Context, /, **flags: Any) -> None:
    """Fetch an image from a registry and do not unpack it."""
    ctx.invoke(pull, **flags, snapshotter="", no_unpack=True)


@click.command()
@registry_options
@click.option("--platform", "platforms", multiple=True, help="Send only this platform (may be repeated).")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("remote")
@click.argument("local", default="")
@pass_session
def push(session: Session, /, remote: str, local: str, quiet: bool, **flags: Any) -> None:
    """Send the image LOCAL (default: the one named REMOTE) to a registry as REMOTE."""
    platforms = [platform.parse(name) for name in flags["platforms"]]
    with progress.shown(f"pushed {remote}", quiet=quiet or session.as_json) as watch:
        transfer.push(session.conn, local or remote, _registry(remote, flags), platforms, watch)


@click.command("import")
@click.option("--base-name", default="", help="Name the images with this prefix, and only import those that have it.")
@click.option("--digests", is_flag=True, help="Name images by digest, too.")
@click.option("--skip-digest-for-named", is_flag=True, help="With --digests: only those without a name.")
@click.option("--index-name", default="", help="Keep the archive's index under this name.")
@click.option("--platform", "platforms", multiple=True, help="Import this platform (default: this host's).")
@click.option("--all-platforms", is_flag=True, help="Import all platforms; unpacks this host's.")
@click.option("--no-unpack", is_flag=True, help="Do not unpack.")
@click.option("--snapshotter", envvar="CONTAINERD_SNAPSHOTTER", default="", help="Snapshotter to unpack for.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label the images (may be repeated).")
@click.argument("archive")
@pass_session
def import_images(session: Session, /, archive: str, **flags: Any) -> None:
    """Import the images of a tar ARCHIVE ("-": stdin), in OCI or Docker form, compressed or not."""
    saved: dict[str, None] = {}
    naming = transfer.Naming(
        flags["base_name"] or f"import-{time.strftime('%Y-%m-%d')}", not flags["base_name"], flags["digests"],
        flags["skip_digest_for_named"], flags["index_name"],
    )  # fmt: skip
    wanted = transfer.Wanted(
        _platforms(flags["platforms"], flags["all_platforms"]), text.pairs(flags["labels"]),
        None if flags["no_unpack"] else flags["snapshotter"],
    )  # fmt: skip
    with progress.shown(f"imported {archive}", quiet=session.as_json) as shown:
        watch = _noting(saved, shown)
        if archive == "-":
            # Unbuffered: a reader that is left behind at the end of the process must hold no lock of the interpreter.
            with open(0, "rb", buffering=0, closefd=False) as source:
                transfer.load(session.conn, source, naming, wanted, watch)
        else:
            with Path(archive).open("rb") as source:
                transfer.load(session.conn, source, naming, wanted, watch)
    session.lines(saved)


def _noting(names: dict[str, None], watch: transfer.Watch) -> transfer.Watch:
    """Return a watcher that also notes the names of images as they are saved."""

    def noting(report: transfer.Progress) -> None:
        if report.event == "saved":
            names[report.name] = None
        watch(report)

    return noting


@click.command()
@click.option("--skip-manifest-json", is_flag=True, help="Leave out what docker load needs.")
@click.option("--skip-non-distributable", is_flag=True, help="Leave out foreign layers.")
@click.option("--platform", "platforms", multiple=True, help="Export this platform (default: this host's).")
@click.option("--all-platforms", is_flag=True, help="Export all platforms.")
@click.argument("archive")
@click.argument("refs", nargs=-1, required=True)
@pass_session
def export(session: Session, /, archive: str, refs: tuple[str, ...], **flags: Any) -> None:
    """Write images to a tar ARCHIVE ("-": stdout)."""
    wanted = transfer.Export(
        _platforms(flags["platforms"], flags["all_platforms"]), flags["all_platforms"], flags["skip_manifest_json"],
        flags["skip_non_distributable"],
    )  # fmt: skip
    with progress.shown(f"exported {archive}", quiet=session.as_json) as watch:
        if archive == "-":
            _save(session, refs, sys.stdout.buffer, wanted, watch)
            sys.stdout.buffer.flush()
        else:
            with Path(archive).open("wb") as sink:
                _save(session, refs, sink, wanted, watch)


def _save(session: Session, refs: tuple[str, ...], sink: BinaryIO, wanted: transfer.Export, watch: transfer.Watch) -> None:
    for ref in refs:
        images.get(session.conn, ref)
    if not transfer.save(session.conn, refs, sink, wanted, watch):
        raise errors.DataLoss("the daemon sent an empty archive")


def _tell(session: Session, ref: str) -> None:
    target = manifests.descriptor(images.get(session.conn, ref).target)
    if session.as_json:
        session.document({"name": ref, "type": target.media_type, "digest": target.digest, "size": target.size})
    else:
        session.lines([f"{ref} {target.digest}"])
