"""What every `snapshots.Snapshotter` must do, as a test class to inherit from; it mounts, so it needs root.

A backend's test module writes ``class TestMine(contract_snapshots.SnapshotterContract)`` with the fixtures ``snapshotter`` (empty),
``mounter`` (`mounts.Mounter`) and ``work`` (an empty directory for mount points), and says in ``renames_directories`` whether a directory
of a lower layer can be renamed (overlayfs answers EXDEV without redirect_dir).
Vocabulary: a *step* is a function that changes the tree at a path; the same steps done in a plain directory are the truth.
Source: the invariants of containerd's snapshotter test suite (its 21 cases) and the moby issues it cites.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from pydock.base import clock, errors
from pydock.core import mounts, snapshots

Step = Callable[[Path], None]
Kind = snapshots.Kind


def listing(top: Path) -> dict[str, tuple[object, ...]]:
    """Return what is in a tree: per path kind and mode, owner, and contents, link target or device number."""
    found: dict[str, tuple[object, ...]] = {}
    for place in [top, *top.rglob("*")]:
        status = place.lstat()
        what: object = status.st_rdev
        if stat.S_ISREG(status.st_mode):
            what = place.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            what = os.readlink(place)
        found[str(place.relative_to(top))] = (status.st_mode, status.st_uid, status.st_gid, what)
    found["."] = (stat.S_IFDIR,)
    return found


def write(place: Path, text: str, mode: int = 0o644) -> None:
    """Write a file, with its directories, and set its mode."""
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(mode)


class Layers:
    """Steps applied one by one, each as a layer of its own, and in a plain directory beside it."""

    def __init__(self, snapshotter: snapshots.Snapshotter, mounter: mounts.Mounter, work: Path) -> None:
        self.snapshotter, self.mounter, self.work = snapshotter, mounter, work
        self.flat = work / "flat"
        self.flat.mkdir(mode=0o755)
        self.top = ""
        self.count = 0

    async def mount(self, mounts: Sequence[mounts.Mount], name: str) -> Path:
        """Mount at a new directory of ``work``."""
        place = self.work / name
        place.mkdir(exist_ok=True)
        await self.mounter.mount_all(mounts, place)
        return place

    async def add(self, step: Step) -> None:
        """Add a layer, checking before and after that it shows what the plain directory shows."""
        self.count += 1
        key, name = f"active-{self.count}", f"layer-{self.count}"
        place = await self.mount(await self.snapshotter.prepare(key, self.top, {}), "mnt")
        try:
            assert listing(place) == listing(self.flat)
            step(place)
            step(self.flat)
            assert listing(place) == listing(self.flat)
        finally:
            await self.mounter.unmount_all(place)
        await self.snapshotter.commit(name, key, {})
        self.top = name

    async def check(self) -> None:
        """Check that a view of all layers shows what the plain directory shows."""
        place = await self.mount(await self.snapshotter.view("check", self.top, {}), "view")
        try:
            assert listing(place) == listing(self.flat)
        finally:
            await self.mounter.unmount_all(place)
        await self.snapshotter.remove("check")


async def committed(snapshotter: snapshots.Snapshotter, name: str, parent: str = "", labels: Mapping[str, str] | None = None) -> None:
    """Make an empty committed snapshot."""
    await snapshotter.prepare(f"{name}-active", parent, {})
    await snapshotter.commit(name, f"{name}-active", labels or {})


async def names(snapshotter: snapshots.Snapshotter, *filters: str) -> set[str]:
    """Return the names a walk yields."""
    return {info.name async for info in snapshotter.walk(filters)}


def renamed(source: Path, target: Path) -> None:
    """Replace ``target`` by ``source``."""
    os.rename(source, target)


class RecordsContract:
    """The part of the suite that looks at records only."""

    @pytest.fixture
    async def family(self, snapshotter: snapshots.Snapshotter) -> dict[str, tuple[Kind, str]]:
        """Two committed snapshots, and an active one and a view both with and without parent."""
        await committed(snapshotter, "c1")
        await committed(snapshotter, "c2", "c1")
        await snapshotter.prepare("a1", "c2", {})
        await snapshotter.prepare("a2", "", {})
        await snapshotter.view("v1", "c2", {})
        await snapshotter.view("v2", "", {})
        active, view, done = Kind.ACTIVE, Kind.VIEW, Kind.COMMITTED
        return {"c1": (done, ""), "c2": (done, "c1"), "a1": (active, "c2"), "a2": (active, ""), "v1": (view, "c2"), "v2": (view, "")}

    async def test_stat_tells_kind_parent_and_times(self, snapshotter: snapshots.Snapshotter) -> None:
        before = clock.now()
        await committed(snapshotter, "parent", labels={"a": "b"})
        await snapshotter.prepare("child", "parent", {"c": "d"})
        for name, kind, parent, labels in [("parent", Kind.COMMITTED, "", {"a": "b"}), ("child", Kind.ACTIVE, "parent", {"c": "d"})]:
            info = await snapshotter.stat(name)
            assert (info.name, info.kind, info.parent, info.labels) == (name, kind, parent, labels)
            assert before <= info.created_at == info.updated_at <= clock.now()

    async def test_parents_are_those_named(self, snapshotter: snapshots.Snapshotter, family: dict[str, tuple[Kind, str]]) -> None:
        assert {info.name: (info.kind, info.parent) async for info in snapshotter.walk()} == family

    async def test_labels_do_not_pass_from_active_to_committed(self, snapshotter: snapshots.Snapshotter) -> None:
        await snapshotter.prepare("active", "", {"of": "active"})
        await snapshotter.commit("done", "active", {"of": "done"})
        assert (await snapshotter.stat("done")).labels == {"of": "done"}

    @pytest.mark.parametrize("first", ["prepare", "view"])
    @pytest.mark.parametrize("second", ["prepare", "view"])
    async def test_a_key_in_use_is_refused(self, snapshotter: snapshots.Snapshotter, first: str, second: str) -> None:
        await committed(snapshotter, "parent")
        await getattr(snapshotter, first)("key", "parent", {})
        with pytest.raises(errors.AlreadyExists, match=r"^snapshot key: already exists$"):
            await getattr(snapshotter, second)("key", "parent", {})
        with pytest.raises(errors.AlreadyExists):
            await getattr(snapshotter, second)("parent", "", {})

    async def test_a_parent_must_exist_and_be_committed(self, snapshotter: snapshots.Snapshotter) -> None:
        await snapshotter.prepare("active", "", {})
        for make in (snapshotter.prepare, snapshotter.view):
            with pytest.raises(errors.NotFound):
                await make("key", "nowhere", {})
            with pytest.raises(errors.InvalidArgument):
                await make("key", "active", {})

    async def test_a_key_is_free_after_commit_and_after_remove(self, snapshotter: snapshots.Snapshotter) -> None:
        await committed(snapshotter, "parent")
        with pytest.raises(errors.NotFound, match=r"^snapshot parent-active: not found$"):
            await snapshotter.stat("parent-active")
        for make in (snapshotter.prepare, snapshotter.view, snapshotter.prepare):
            await make("key", "parent", {})
            await snapshotter.remove("key")
        await snapshotter.prepare("key", "", {})
        await snapshotter.remove("parent")
        await snapshotter.commit("parent", "key", {})
        assert await names(snapshotter) == {"parent"}

    async def test_what_cannot_be_committed_is_refused(self, snapshotter: snapshots.Snapshotter) -> None:
        await committed(snapshotter, "parent")
        await snapshotter.prepare("active", "parent", {})
        await snapshotter.view("view", "parent", {})
        with pytest.raises(errors.AlreadyExists):
            await snapshotter.commit("parent", "active", {})
        with pytest.raises(errors.NotFound):
            await snapshotter.commit("name", "nowhere", {})
        for key in ("view", "parent"):
            with pytest.raises(errors.FailedPrecondition):
                await snapshotter.commit("name", key, {})

    async def test_a_parent_is_not_removed_before_its_children(self, snapshotter: snapshots.Snapshotter) -> None:
        await committed(snapshotter, "bottom")
        await committed(snapshotter, "middle", "bottom")
        await snapshotter.prepare("top", "middle", {})
        for key in ("bottom", "middle"):
            with pytest.raises(errors.FailedPrecondition, match=r"^cannot remove snapshot with child: failed precondition$"):
                await snapshotter.remove(key)
        for key in ("top", "middle", "bottom"):
            await snapshotter.remove(key)
        with pytest.raises(errors.NotFound, match=r"^snapshot top: not found$"):
            await snapshotter.remove("top")
        assert await names(snapshotter) == set()

    async def test_only_labels_are_updated(self, snapshotter: snapshots.Snapshotter, family: dict[str, tuple[Kind, str]]) -> None:
        for name, (kind, parent) in family.items():
            created = (await snapshotter.stat(name)).created_at
            before = clock.now()
            info = await snapshotter.update(snapshots.Info(name, Kind.VIEW, "nowhere", {"l1": "v1", "l2": "v2", "l3": "v3"}))
            assert before <= info.updated_at <= clock.now()
            assert (info.kind, info.parent, info.created_at, info.labels) == (kind, parent, created, {"l1": "v1", "l2": "v2", "l3": "v3"})
            changes = snapshots.Info(name, kind, labels={"l1": "new", "l4": "v4"})
            assert (await snapshotter.update(changes, ["labels.l1", "labels.l2"])).labels == {"l1": "new", "l3": "v3"}
            assert (await snapshotter.update(changes, ["labels"])).labels == {"l1": "new", "l4": "v4"}
            with pytest.raises(errors.InvalidArgument):
                await snapshotter.update(changes, ["parent"])
            assert (await snapshotter.stat(name)).labels == {"l1": "new", "l4": "v4"}

    async def test_walk_filters(self, snapshotter: snapshots.Snapshotter) -> None:
        await committed(snapshotter, "p")
        await committed(snapshotter, "p-l", labels={"l": "1"})
        await snapshotter.prepare("a-np", "", {})
        await snapshotter.prepare("a", "p", {})
        await snapshotter.view("v", "p", {})
        await snapshotter.prepare("a-l", "p-l", {"l": "2"})
        await snapshotter.view("v-l", "p-l", {"l": "3"})
        assert await names(snapshotter, "kind==active") == {"a-np", "a", "a-l"}
        assert await names(snapshotter, "kind==view") == {"v", "v-l"}
        assert await names(snapshotter, "kind==committed") == {"p", "p-l"}
        assert await names(snapshotter, "parent==p") == {"a", "v"}
        assert await names(snapshotter, "labels.l") == {"p-l", "a-l", "v-l"}
        assert await names(snapshotter, "labels.l==2") == {"a-l"}
        assert await names(snapshotter, "name==a", "kind==view,labels.l==3") == {"a", "v-l"}
        with pytest.raises(errors.InvalidArgument):
            await names(snapshotter, "kind==")

    async def test_stat_works_within_a_walk(self, snapshotter: snapshots.Snapshotter, family: dict[str, tuple[Kind, str]]) -> None:
        assert [await snapshotter.stat(info.name) == info async for info in snapshotter.walk()] == [True] * len(family)

    async def test_mounts_are_those_prepare_gave_and_none_for_committed(self, snapshotter: snapshots.Snapshotter) -> None:
        await committed(snapshotter, "parent")
        for make, key in ((snapshotter.prepare, "active"), (snapshotter.view, "view")):
            assert await make(key, "parent", {}) == await snapshotter.mounts(key)
        with pytest.raises(errors.FailedPrecondition):
            await snapshotter.mounts("parent")
        with pytest.raises(errors.NotFound):
            await snapshotter.mounts("nowhere")

    async def test_cleanup_may_be_called_at_any_time(self, snapshotter: snapshots.Snapshotter) -> None:
        await committed(snapshotter, "parent")
        await snapshotter.prepare("gone", "parent", {})
        await snapshotter.remove("gone")
        await snapshotter.cleanup()
        await snapshotter.cleanup()
        assert await names(snapshotter) == {"parent"}


@pytest.mark.root
class SnapshotterContract(RecordsContract):
    """The whole suite."""

    renames_directories: ClassVar[bool]

    @pytest.fixture
    def layers(self, snapshotter: snapshots.Snapshotter, mounter: mounts.Mounter, work: Path) -> Layers:
        return Layers(snapshotter, mounter, work)

    async def test_what_is_committed_shows_in_the_next_layer(self, layers: Layers) -> None:
        def first(top: Path) -> None:
            write(top / "foo", "foo\n", 0o777)
            (top / "a/b/c").mkdir(parents=True)

        def second(top: Path) -> None:
            write(top / "bar", "bar\n", 0o777)
            write(top / "foo", "bar\n", 0o777)
            shutil.rmtree(top / "a/b")

        await layers.add(first)
        await layers.add(second)
        await layers.check()

    async def test_a_changed_file_replaces_the_one_below(self, layers: Layers) -> None:
        def first(top: Path) -> None:
            write(top / "etc/hosts", "mydomain 10.0.0.1")
            write(top / "etc/profile", "PATH=/usr/bin")

        def second(top: Path) -> None:
            write(top / "etc/hosts", "mydomain 10.0.0.2")
            write(top / "etc/profile", "PATH=/usr/bin", 0o666)
            write(top / "root/.bashrc", "PATH=/usr/sbin")

        await layers.add(first)
        await layers.add(second)
        await layers.check()

    async def test_a_directory_removed_and_made_again_hides_what_was_in_it(self, layers: Layers) -> None:
        def second(top: Path) -> None:
            shutil.rmtree(top / "lib")
            write(top / "lib/not-hidden", "")

        await layers.add(lambda top: write(top / "lib/hidden", ""))
        await layers.add(second)
        await layers.add(lambda top: write(top / "lib/newfile", ""))
        await layers.check()

    async def test_files_removed_in_a_layer_stay_removed(self, layers: Layers) -> None:
        def first(top: Path) -> None:
            write(top / "foo", "foo")
            write(top / "foobar", "foobar")

        await layers.add(first)
        await layers.add(lambda top: (top / "foobar").unlink())
        await layers.add(lambda top: None)
        await layers.check()

    async def test_owners_change_in_the_upper_layer_only(self, layers: Layers) -> None:
        async def owner_below() -> int:
            place = await layers.mount(await layers.snapshotter.view("below", "layer-1", {}), "below")
            try:
                return (place / "opt/a/b/file.txt").stat().st_uid
            finally:
                await layers.mounter.unmount_all(place)

        def second(top: Path) -> None:
            for name in ("opt", "opt/a", "opt/a/b", "opt/a/b/file.txt"):
                os.chown(top / name, 1, 1)

        await layers.add(lambda top: write(top / "opt/a/b/file.txt", "hello"))
        await layers.add(second)
        await layers.check()
        assert await owner_below() == 0

    async def test_owners_of_directories_survive_layers(self, layers: Layers) -> None:
        def first(top: Path) -> None:
            for number in range(1, 6):
                (top / f"dir{number}").mkdir(mode=0o700)
                os.chown(top / f"dir{number}", number % 2, number % 2)
            write(top / "dir4/f1", "...")
            write(top / "dir5/f1", "...")

        def second(top: Path) -> None:
            os.chown(top / "dir1", 0, 0)
            (top / "dir3").rmdir()
            os.chown(top / "dir4", 1, 1)
            os.chown(top / "dir4/f1", 1, 1)

        def third(top: Path) -> None:
            shutil.rmtree(top / "dir5")
            for name in ("dir3", "dir5"):
                (top / name).mkdir(mode=0o700)
                os.chown(top / name, 1, 1)

        for step in (first, second, third):
            await layers.add(step)
        await layers.check()

    async def test_a_file_is_moved_out_of_a_lower_layer(self, layers: Layers) -> None:
        def first(top: Path) -> None:
            write(top / "dir1/f1", "Hello")
            write(top / "dir2/f2", "...")

        def second(top: Path) -> None:
            write(top / "dir3/f1", "Hello")
            shutil.rmtree(top / "dir1")
            os.link(top / "dir2/f2", top / "dir3/f2")
            (top / "dir2/f2").unlink()

        await layers.add(first)
        await layers.add(second)
        await layers.check()

    async def test_rename_over_and_away_from_lower_files(self, layers: Layers) -> None:
        def first(top: Path) -> None:
            (top / "dir1").mkdir()
            write(top / "files/f1", "was here first!")
            write(top / "files/f2", "nothing interesting")

        def second(top: Path) -> None:
            if self.renames_directories:
                renamed(top / "dir1", top / "dir2")
            write(top / "files/f1-new", "new content 1")
            renamed(top / "files/f1-new", top / "files/f1")
            renamed(top / "files/f2", top / "files/f3")

        await layers.add(first)
        await layers.add(second)
        await layers.check()

    async def test_special_files_links_and_modes_survive_layers(self, layers: Layers) -> None:
        def first(top: Path) -> None:
            write(top / "setuid", "x", 0o4755)
            os.symlink("/no/where", top / "link")
            os.mkfifo(top / "fifo", 0o600)
            os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            (top / "sticky").mkdir()
            (top / "sticky").chmod(0o1777)

        await layers.add(first)
        await layers.add(lambda top: (top / "null").chmod(0o600))
        await layers.check()

    async def test_a_view_cannot_be_written(self, layers: Layers) -> None:
        await layers.add(lambda top: write(top / "file", "x"))
        await committed(layers.snapshotter, "empty-on-top", "layer-1")
        for parent in ("", "layer-1", "empty-on-top"):
            key = f"view-{parent}"
            place = await layers.mount(await layers.snapshotter.view(key, parent, {}), "ro")
            try:
                with pytest.raises(OSError) as caught:
                    (place / "new").write_text("x")
                assert caught.value.errno == errno.EROFS
            finally:
                await layers.mounter.unmount_all(place)
            await layers.snapshotter.remove(key)

    async def test_the_root_directory_is_open_to_all_and_inherits_what_is_below(self, layers: Layers) -> None:
        place = await layers.mount(await layers.snapshotter.prepare("a1", "", {}), "root")
        assert stat.S_IMODE(place.stat().st_mode) == 0o755
        place.chmod(0o750)
        os.chown(place, 7, 8)
        await layers.mounter.unmount_all(place)
        await layers.snapshotter.commit("c1", "a1", {})
        place = await layers.mount(await layers.snapshotter.prepare("a2", "c1", {}), "root")
        status = place.stat()
        await layers.mounter.unmount_all(place)
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 7, 8)

    async def test_128_layers_show_what_a_flat_directory_shows(self, layers: Layers) -> None:
        def bottom(top: Path) -> None:
            write(top / "bottom", "way at the bottom\n", 0o777)
            write(top / "onlyme/bottom", "bye!\n")
            (top / "addhere").mkdir()

        def layer(number: int) -> Step:
            def step(top: Path) -> None:
                write(top / "overwriteme", f"{number} WAS HERE!\n", 0o777)
                write(top / f"addhere/file-{number}", "same\n", 0o755)
                shutil.rmtree(top / "onlyme")
                write(top / f"onlyme/file-{number}", "only me!\n")

            return step

        await layers.add(bottom)
        for number in range(1, 128):
            await layers.add(layer(number))
        await layers.check()

    async def test_usage_counts_what_the_layer_holds_itself(self, layers: Layers) -> None:
        def first(top: Path) -> None:
            (top / "data").write_bytes(os.urandom(1 << 20))
            os.link(top / "data", top / "again")

        place = await layers.mount(await layers.snapshotter.prepare("a", "", {}), "use")
        before = await layers.snapshotter.usage("a")
        first(place)
        after = await layers.snapshotter.usage("a")
        await layers.mounter.unmount_all(place)
        assert after.inodes == before.inodes + 1
        assert 1 << 20 <= after.size - before.size < 3 << 19
        await layers.snapshotter.commit("c", "a", {})
        assert (await layers.snapshotter.usage("c")).inodes == after.inodes
        assert await layers.snapshotter.usage("c") == await layers.snapshotter.usage("c")
        with pytest.raises(errors.NotFound):
            await layers.snapshotter.usage("a")
