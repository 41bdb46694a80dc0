"""``pctr images``: what is in the store under which name. What moves images is in `pydock.cli.transfers`."""

from __future__ import annotations

import click

from pydock.base import errors, platform
from pydock.cli import text, transfers
from pydock.cli.session import Column, Session, pass_session
from pydock.client import content, leases, manifests, mounting, snapshots, unpacking
from pydock.client import images as api

snapshotter_option = click.option(
    "--snapshotter", envvar="CONTAINERD_SNAPSHOTTER", default="", help="Snapshotter (default: the namespace's)."
)  # fmt: skip


@click.group()
def images() -> None:
    """Manage images."""


for _command in (transfers.pull, transfers.push, transfers.import_images, transfers.export):
    images.add_command(_command)


@images.command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Print only the names.")
@click.argument("filters", nargs=-1)
@pass_session
def list_images(session: Session, quiet: bool, filters: tuple[str, ...]) -> None:
    """List images."""
    conn = session.conn
    found = api.listing(conn, filters)
    if quiet:
        session.lines(image.name for image in found)
        return
    records = []
    for image in found:
        target = manifests.descriptor(image.target)
        have = _available(session, image)
        records.append({
            "name": image.name, "type": target.media_type, "digest": target.digest, "size": sum(have.values()),
            "platforms": _platforms(session, image), "labels": dict(image.labels),
        })  # fmt: skip
    columns = [
        Column("REF", "name"), Column("TYPE", "type"), Column("DIGEST", "digest"), Column("SIZE", "size", text.size),
        Column("PLATFORMS", "platforms", lambda value: ",".join(value) or "-"), Column("LABELS", "labels", text.labels),
    ]  # fmt: skip
    session.listing(columns, records)


def _platforms(session: Session, image: api.Image) -> list[str]:
    try:
        return manifests.platforms(session.conn, manifests.descriptor(image.target))
    except errors.PydockError:
        return []


def _wanted(session: Session, image: api.Image) -> dict[str, int]:
    """Return digest -> size of all content this host needs of an image. Raises NotFound when its manifest is not there."""
    target = manifests.descriptor(image.target)
    manifest = manifests.choose(session.conn, target)
    parts = (target, manifest.target, manifest.config, *manifest.layers)
    return {part.digest: part.size for part in parts}


def _available(session: Session, image: api.Image) -> dict[str, int]:
    """Return what of `_wanted` is in the store; nothing when its manifest is not."""
    try:
        wanted = _wanted(session, image)
    except errors.PydockError:
        return {}
    return {digest: size for digest, size in wanted.items() if _have(session, digest)}


def _have(session: Session, digest: str) -> bool:
    try:
        content.info(session.conn, digest)
    except errors.NotFound:
        return False
    return True


@images.command()
@click.option("-q", "--quiet", is_flag=True, help="Print only the names of complete and unpacked images.")
@snapshotter_option
@click.argument("filters", nargs=-1)
@pass_session
def check(session: Session, quiet: bool, snapshotter: str, filters: tuple[str, ...]) -> None:
    """Check that the content of images is there and unpacked."""
    chosen = snapshots.choose(session.conn, snapshotter)
    records = [_checked(session, image, chosen) for image in api.listing(session.conn, filters)]
    if quiet:
        session.lines(str(record["name"]) for record in records if record["complete"] and record["unpacked"] == "true")
        return
    columns = [
        Column("REF", "name"), Column("TYPE", "type"), Column("DIGEST", "digest"), Column("STATUS", "status"),
        Column("SIZE", "shown_size"), Column("UNPACKED", "unpacked"),
    ]  # fmt: skip
    session.listing(columns, records)


def _checked(session: Session, image: api.Image, snapshotter: str) -> dict[str, str | bool]:
    record: dict[str, str | bool] = {"name": image.name, "type": image.target.media_type, "digest": image.target.digest, "complete": False}
    try:
        wanted = _wanted(session, image)
    except errors.NotFound:
        return record | {"status": "unavailable (0/?)", "shown_size": "-", "unpacked": "unknown"}
    except errors.PydockError as error:
        return record | {"status": f"error ({error})", "shown_size": "-", "unpacked": "unknown"}
    have = _available(session, image)
    # The target itself is not counted, as in ctr: it was read to get here.
    parts, there = len(wanted) - 1, len(have) - 1
    complete = there == parts
    try:
        manifest = manifests.choose(session.conn, manifests.descriptor(image.target))
        chain = manifests.chain_ids(manifests.diff_ids(manifests.config(session.conn, manifest)))
        unpacked = "true" if not chain or unpacking.is_unpacked(session.conn, snapshotter, chain[-1]) else "false"
    except errors.PydockError:
        unpacked = "unknown"
    return record | {
        "complete": complete, "status": f"{'complete' if complete else 'incomplete'} ({there}/{parts})",
        "shown_size": f"{text.size(sum(have.values()))}/{text.size(sum(wanted.values()))}", "unpacked": unpacked,
    }  # fmt: skip


@images.command()
@snapshotter_option
@click.argument("ref")
@pass_session
def usage(session: Session, snapshotter: str, ref: str) -> None:
    """Show the disk usage of an image's snapshots."""
    conn = session.conn
    chosen = snapshots.choose(conn, snapshotter)
    manifest = manifests.choose(conn, manifests.descriptor(api.get(conn, ref).target))
    records = []
    for key in manifests.chain_ids(manifests.diff_ids(manifests.config(conn, manifest))):
        size, inodes = snapshots.usage(conn, chosen, key)
        records.append({"key": key, "size": size, "inodes": inodes})
    session.listing([Column("KEY", "key"), Column("SIZE", "size", text.size), Column("INODES", "inodes")], records)


@images.command("rm")
@click.option("--sync", is_flag=True, help="Wait until all that the image alone held is gone.")
@click.argument("refs", nargs=-1, required=True)
@pass_session
def remove(session: Session, sync: bool, refs: tuple[str, ...]) -> None:
    """Remove images by name."""
    session.each(refs, lambda ref: api.delete(session.conn, ref, sync=sync))


@images.command()
@click.option("--force", is_flag=True, help="Replace an image that has the name.")
@click.argument("source")
@click.argument("targets", nargs=-1, required=True)
@pass_session
def tag(session: Session, force: bool, source: str, targets: tuple[str, ...]) -> None:
    """Give an image more names."""
    image = api.get(session.conn, source)

    def one(name: str) -> None:
        try:
            api.create(session.conn, name, image.target, image.labels)
        except errors.AlreadyExists:
            if not force:
                raise
            api.delete(session.conn, name)
            api.create(session.conn, name, image.target, image.labels)

    session.each(targets, one)


@images.command()
@click.option("-r", "--replace-all", is_flag=True, help="Remove all other labels.")
@click.argument("ref")
@click.argument("labels", nargs=-1)
@pass_session
def label(session: Session, replace_all: bool, ref: str, labels: tuple[str, ...]) -> None:
    """Set labels of an image ("key=value"; "key=" clears one) and print all."""
    changed = api.label(session.conn, ref, text.pairs(labels), replace=replace_all) if labels or replace_all else api.get(session.conn, ref)
    session.lines([text.labels(changed.labels)])


@images.command("mount")
@click.option("--rw", is_flag=True, help="Mount it writable.")
@click.option("--platform", "wanted", default="", help="Platform of the image (default: this host's).")
@snapshotter_option
@click.argument("ref")
@click.argument("target")
@pass_session
def mount_image(session: Session, rw: bool, wanted: str, snapshotter: str, ref: str, target: str) -> None:
    """Mount an image's root file system."""
    chosen = snapshots.choose(session.conn, snapshotter)
    with leases.held(session.conn) as conn:
        manifest = manifests.choose(conn, manifests.descriptor(api.get(conn, ref).target), platform.parse(wanted) if wanted else None)
        chain = unpacking.unpack(conn, chosen, manifest, manifests.diff_ids(manifests.config(conn, manifest)), lambda digest: None)
        make = snapshots.prepare if rw else snapshots.view
        # Without a label of its own nothing would hold it once the lease is gone.
        mounts = make(conn, chosen, target, chain, {snapshots.ROOT_LABEL: text.now()})
        try:
            mounting.mount_all(mounts, target)
        except (OSError, errors.PydockError):
            snapshots.remove(conn, chosen, target)
            raise
    click.echo(target)


@images.command()
@click.option("--rm", is_flag=True, help="Remove its snapshot, too.")
@snapshotter_option
@click.argument("target")
@pass_session
def unmount(session: Session, rm: bool, snapshotter: str, target: str) -> None:
    """Unmount what `mount` has mounted."""
    mounting.unmount_all(target)
    if rm:
        snapshots.remove(session.conn, snapshots.choose(session.conn, snapshotter), target)
    click.echo(target)
