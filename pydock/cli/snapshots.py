"""``pctr snapshots``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from pydock.base import errors
from pydock.cli import text
from pydock.cli.session import Column, Session, pass_session
from pydock.client import images, leases, manifests, unpacking
from pydock.client import snapshots as api


@click.group()
@click.option("--snapshotter", envvar="CONTAINERD_SNAPSHOTTER", default="", help="Snapshotter (default: the namespace's).")
@click.pass_context
def snapshots(ctx: click.Context, snapshotter: str) -> None:
    """Manage snapshots."""
    ctx.meta["snapshotter"] = snapshotter


def _snapshotter(session: Session) -> str:
    return api.choose(session.conn, click.get_current_context().meta["snapshotter"])


@snapshots.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print only the keys.")
@click.argument("filters", nargs=-1)
@pass_session
def list_snapshots(session: Session, quiet: bool, filters: tuple[str, ...]) -> None:
    """List snapshots."""
    found = [_record(each) for each in api.listing(session.conn, _snapshotter(session), filters)]
    if quiet:
        session.lines(each["key"] for each in found)
        return
    session.listing([Column("KEY", "key"), Column("PARENT", "parent"), Column("KIND", "kind")], found)


def _record(each: api.Info) -> dict[str, Any]:
    return {
        "key": each.name, "parent": each.parent, "kind": api.KINDS.get(each.kind, "Unknown"), "labels": dict(each.labels),
        "created": text.moment(each.created_at.ToNanoseconds()), "updated": text.moment(each.updated_at.ToNanoseconds()),
    }  # fmt: skip


@snapshots.command()
@click.argument("key")
@pass_session
def info(session: Session, key: str) -> None:
    """Show one snapshot, as JSON."""
    session.document(_record(api.stat(session.conn, _snapshotter(session), key)))


@snapshots.command()
@click.option("-b", "in_bytes", is_flag=True, help="Sizes in bytes.")
@click.argument("keys", nargs=-1)
@pass_session
def usage(session: Session, in_bytes: bool, keys: tuple[str, ...]) -> None:
    """Show what snapshots hold without their parents."""
    chosen = _snapshotter(session)
    records = []
    for key in keys or [each.name for each in api.listing(session.conn, chosen)]:
        size, inodes = api.usage(session.conn, chosen, key)
        records.append({"key": key, "size": size, "inodes": inodes})
    session.listing([Column("KEY", "key"), Column("SIZE", "size", str if in_bytes else text.size), Column("INODES", "inodes")], records)


@snapshots.command()
@pass_session
def tree(session: Session) -> None:
    """Show which snapshot is built on which."""
    children: dict[str, list[str]] = defaultdict(list)
    names = set()
    for each in api.listing(session.conn, _snapshotter(session)):
        children[each.parent].append(each.name)
        names.add(each.name)
    tops = [name for parent, below in children.items() if parent not in names for name in below]
    session.lines(_branches(sorted(tops), children, 0))


def _branches(names: Sequence[str], children: Mapping[str, Sequence[str]], depth: int) -> Iterator[str]:
    for name in names:
        yield "  " * depth + ("\\_ " if depth else "") + name
        yield from _branches(sorted(children.get(name, ())), children, depth + 1)


_target = click.option("-t", "--target", default="", help="Print the mount commands for this directory.")
_as_mounts = click.option("--mounts", "show", is_flag=True, help="Print the mounts as JSON.")


@snapshots.command()
@_target
@_as_mounts
@click.argument("key")
@click.argument("parent", default="")
@pass_session
def prepare(session: Session, key: str, parent: str, target: str, show: bool) -> None:
    """Make a writable snapshot KEY on PARENT."""
    _shown(session, api.prepare(session.conn, _snapshotter(session), key, parent, _rooted()), target, show)


@snapshots.command()
@_target
@_as_mounts
@click.argument("key")
@click.argument("parent", default="")
@pass_session
def view(session: Session, key: str, parent: str, target: str, show: bool) -> None:
    """Make a read-only snapshot KEY on PARENT."""
    _shown(session, api.view(session.conn, _snapshotter(session), key, parent, _rooted()), target, show)


def _rooted() -> dict[str, str]:
    """Return the label by which a snapshot stays though nothing refers to it."""
    return {api.ROOT_LABEL: text.now()}


@snapshots.command()
@click.argument("target")
@click.argument("key")
@pass_session
def mounts(session: Session, target: str, key: str) -> None:
    """Print the commands that mount a snapshot at TARGET."""
    _shown(session, api.mounts(session.conn, _snapshotter(session), key), target, session.as_json)


def _shown(session: Session, found: Sequence[api.Mount], target: str, as_json: bool) -> None:
    if as_json:
        session.document([
            {"type": each.type, "source": each.source, "target": each.target, "options": list(each.options)} for each in found
        ])  # fmt: skip
    elif target:
        session.lines(f"mount -t {each.type} {each.source} {target} -o {','.join(each.options)}" for each in found)


@snapshots.command()
@click.argument("name")
@click.argument("key")
@pass_session
def commit(session: Session, name: str, key: str) -> None:
    """Turn the active snapshot KEY into the committed NAME."""
    api.commit(session.conn, _snapshotter(session), name, key, _rooted())


@snapshots.command("rm")
@click.argument("keys", nargs=-1, required=True)
@pass_session
def remove(session: Session, keys: tuple[str, ...]) -> None:
    """Remove snapshots."""
    chosen = _snapshotter(session)
    session.each(keys, lambda key: api.remove(session.conn, chosen, key), quiet=True)


@snapshots.command()
@click.argument("key")
@click.argument("labels", nargs=-1)
@pass_session
def label(session: Session, key: str, labels: tuple[str, ...]) -> None:
    """Set labels of a snapshot ("key=value"; "key=" clears one) and print all."""
    chosen = _snapshotter(session)
    found = api.label(session.conn, chosen, key, text.pairs(labels)) if labels else api.stat(session.conn, chosen, key)
    session.lines([text.labels(found.labels)])


@snapshots.command()
@click.argument("digest")
@pass_session
def unpack(session: Session, digest: str) -> None:
    """Unpack the image whose manifest or index has this digest, and print its chain id."""
    chosen = _snapshotter(session)
    found = [image for image in images.listing(session.conn) if image.target.digest == digest]
    if not found:
        raise errors.NotFound(f"manifest {digest}")
    with leases.held(session.conn) as conn:
        manifest = manifests.choose(conn, manifests.descriptor(found[0].target))
        ids = manifests.diff_ids(manifests.config(conn, manifest))
        session.lines([unpacking.unpack(conn, chosen, manifest, ids, lambda layer: click.echo(f"unpacking {layer}", err=True))])
