"""What snapshots there are: keys, kinds, parents, ids, labels, times and sizes, in a small database of the snapshotter's own.

Vocabulary: a *node* is one snapshot's record, under its key (active, view) or name (committed); its *id* names its directory and is never
given twice while the daemon lives; a *chain* is the ids of a node's parents, nearest first.  A node is *unsettled* while its files may
exist in memory only; it then carries the boot in which that is so and is void in any other.
Invariants: a parent exists and is committed; a node with children is not removed; every node has a directory (it is made before the
change that adds the node, and removed after the change that drops it).
The rules and the wording of their errors are those of containerd's snapshot storage.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydock.base import clock, db, errors, fieldmask, filters
from pydock.core import snapshots

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Node:
    """One snapshot; ``size`` (bytes) and ``inodes`` are `UNKNOWN` until measured, ``boot`` is "" once settled."""

    id: int
    kind: snapshots.Kind
    created_at: int
    updated_at: int
    parent: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    size: int = UNKNOWN
    inodes: int = UNKNOWN
    boot: str = ""


NODES = db.Table("nodes", Node)
SCHEMA = db.Schema("snapshot index", (NODES,))

Make = Callable[[Sequence[int]], None]


class Index:
    """The nodes of one snapshotter; made by `opened`. Looking up never waits."""

    def __init__(self, database: db.Database, boot: str) -> None:
        self._database = database
        self._nodes = database.records(NODES)
        self._last_id = max((node.id for node in self.nodes().values()), default=0)
        self.boot = boot

    def nodes(self) -> Mapping[str, Node]:
        """Return all nodes by key, live."""
        return self._nodes.items("")

    def get(self, key: str) -> Node:
        """Return a node. Raises NotFound."""
        node = self._nodes.get("", key)
        if node is None:
            raise errors.NotFound(f"snapshot {key}")
        return node

    def active(self, key: str) -> Node:
        """Return a node that can be mounted. Raises NotFound, FailedPrecondition."""
        node = self.get(key)
        if node.kind is snapshots.Kind.COMMITTED:
            raise errors.FailedPrecondition(f"requested snapshot {key} not active nor view")
        self._check_boot(key, node)
        return node

    def chain(self, node: Node) -> list[int]:
        """Return the ids of the parents, nearest first."""
        ids = []
        while node.parent:
            node = self.get(node.parent)
            ids.append(node.id)
        return ids

    def next_id(self) -> int:
        """Return an id nobody has had."""
        self._last_id += 1
        return self._last_id

    def reserve(self, taken: Iterable[int]) -> None:
        """Never give out these ids."""
        self._last_id = max(self._last_id, *taken, 0)

    def check_new(self, key: str, parent: str) -> Node | None:
        """Return the parent for a new snapshot. Raises AlreadyExists, NotFound, InvalidArgument."""
        if not key:
            raise errors.InvalidArgument("snapshot key must not be empty")
        found = self._parent(parent)
        if self._nodes.get("", key) is not None:
            raise errors.AlreadyExists(f"snapshot {key}")
        return found

    async def add(self, key: str, node: Node, make: Make) -> list[int]:
        """Add ``node`` and return its chain; ``make(chain)`` finishes its directory in the same step and fails it by raising."""

        def step(tx: db.Transaction) -> list[int]:
            self.check_new(key, node.parent)
            chain = self.chain(node)
            make(chain)
            tx.put(NODES, "", key, node)
            return chain

        return await self._database.change(step)

    def check_commit(self, name: str, key: str, parent: str = "") -> Node:
        """Return the active node ``key`` on its final parent. Raises AlreadyExists, NotFound, FailedPrecondition, InvalidArgument."""
        if not name:
            raise errors.InvalidArgument("snapshot name must not be empty")
        if self._nodes.get("", name) is not None:
            raise errors.AlreadyExists(f"snapshot {name}")
        node = self.get(key)
        if node.kind is not snapshots.Kind.ACTIVE:
            raise errors.FailedPrecondition(f'snapshot "{key}" is not active')
        self._check_boot(key, node)
        if parent and node.parent and parent != node.parent:
            raise errors.InvalidArgument(f'cannot change parent of active snapshot "{key}" on commit')
        self._parent(parent)
        return replace(node, parent=node.parent or parent)

    async def commit(self, name: str, key: str, parent: str, labels: Mapping[str, str], *, settled: bool) -> None:
        """Turn the active ``key`` into the committed ``name``. Raises as `check_commit`.

        ``settled`` says that its files, and those of its unsettled parents, are on disk; the record is then durable too.
        """

        def step(tx: db.Transaction) -> None:
            now = clock.now()
            node = self.check_commit(name, key, parent)
            boot = "" if settled else self.boot
            tx.delete(NODES, "", key)
            tx.put(
                NODES, "", name,
                replace(node, kind=snapshots.Kind.COMMITTED, labels=dict(labels), created_at=now, updated_at=now, boot=boot),
            )  # fmt: skip
            while settled and node.parent:
                above, node = node.parent, self.get(node.parent)
                if node.boot:
                    tx.put(NODES, "", above, replace(node, boot=""))

        await self._database.change(step, durable=settled)

    async def remove(self, key: str) -> Node:
        """Drop a node and return it. Raises NotFound, FailedPrecondition while it has children."""

        def step(tx: db.Transaction) -> Node:
            node = self.get(key)
            if node.kind is snapshots.Kind.COMMITTED and any(other.parent == key for other in self.nodes().values()):
                raise errors.FailedPrecondition("cannot remove snapshot with child")
            tx.delete(NODES, "", key)
            return node

        return await self._database.change(step)

    async def update(self, info: snapshots.Info, paths: Sequence[str]) -> snapshots.Info:
        """Replace labels. Raises NotFound, InvalidArgument for any other path."""

        def refuse(path: str) -> errors.PydockError:
            return errors.InvalidArgument(f'cannot update "{path}" field on snapshot "{info.name}"')

        def step(tx: db.Transaction) -> Node:
            node = self.get(info.name)
            labels = fieldmask.labels(node.labels, info.labels, paths, refuse)
            return tx.put(NODES, "", info.name, replace(node, labels=labels, updated_at=clock.now()))

        return info_of(info.name, await self._database.change(step))

    async def measured(self, key: str, id: int, usage: snapshots.Usage) -> None:
        """Keep the size of a committed snapshot, unless ``key`` is another one by now."""

        def step(tx: db.Transaction) -> None:
            node = tx.get(NODES, "", key)
            if node is not None and node.id == id and node.kind is snapshots.Kind.COMMITTED:
                tx.put(NODES, "", key, replace(node, size=usage.size, inodes=usage.inodes))

        await self._database.change(step)

    def unsettled(self) -> set[int]:
        """Return the ids of committed nodes whose files were not synced yet."""
        return {node.id for node in self.nodes().values() if node.boot and node.kind is snapshots.Kind.COMMITTED}

    async def settle(self, ids: set[int]) -> None:
        """Note durably that the files of ``ids`` are on disk."""

        def step(tx: db.Transaction) -> None:
            for key, node in sorted(tx.items(NODES, "").items()):
                if node.id in ids and node.boot and node.kind is snapshots.Kind.COMMITTED:
                    tx.put(NODES, "", key, replace(node, boot=""))

        await self._database.change(step, durable=True)

    async def drop_void(self) -> None:
        """Drop committed nodes that a crash of the host caught unsettled, with all that stands on them."""
        nodes = dict(self.nodes())

        def void(key: str) -> bool:
            while key:
                node = nodes[key]
                if node.boot not in ("", self.boot) and node.kind is snapshots.Kind.COMMITTED:
                    return True
                key = node.parent
            return False

        doomed = [key for key in nodes if void(key)]

        def step(tx: db.Transaction) -> None:
            for key in doomed:
                tx.delete(NODES, "", key)

        if doomed:
            await self._database.change(step, durable=True)

    def walk(self, texts: Iterable[str]) -> Iterator[snapshots.Info]:
        """Yield what matches any of the filters, by key, as it was when the walk began."""
        wanted = filters.parse(texts)
        for key, node in sorted(self.nodes().items()):
            if wanted.match(lambda path, key=key, node=node: _field(key, node, path)):  # type: ignore[misc]
                yield info_of(key, node)

    def _check_boot(self, key: str, node: Node) -> None:
        if node.boot and node.boot != self.boot:
            raise errors.FailedPrecondition(f"snapshot {key} was volatile and the host has been restarted since")

    def _parent(self, name: str) -> Node | None:
        if not name:
            return None
        node = self._nodes.get("", name)
        if node is None:
            raise errors.NotFound(f"parent snapshot {name}")
        if node.kind is not snapshots.Kind.COMMITTED:
            raise errors.InvalidArgument(f'parent "{name}" is not committed snapshot')
        return node


def info_of(key: str, node: Node) -> snapshots.Info:
    """Return a node as clients see it."""
    return snapshots.Info(key, node.kind, node.parent, dict(node.labels), node.created_at, node.updated_at)


def _field(key: str, node: Node, path: tuple[str, ...]) -> tuple[str, bool]:
    match path:
        case ("kind",):
            return node.kind.name.lower(), True
        case ("name",):
            return key, True
        case ("parent",):
            return filters.text(node.parent)
        case ("labels", *rest):
            return filters.pick(node.labels, tuple(rest))
    return filters.ABSENT


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Index]:
    """Open or create the index at ``path``, without the nodes a crash of the host voided."""
    async with db.open(path, SCHEMA) as database:
        index = Index(database, BOOT_ID.read_text().strip())
        await index.drop_void()
        yield index
