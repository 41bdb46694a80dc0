"""Collection against the plainest reachability there is, over random worlds of images, leases, labels and layers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydock.base import clock
from pydock.core import content, images, leases, snapshots
from pydock.oci import image
from pydock.store import references, schema

NOW = 10**18
NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
KINDS = st.sampled_from(["content", "snapshots/s", "images"])
WORDS = {"content": "content", "snapshots/s": "snapshot.s", "images": "image"}
EXPIRY = st.sampled_from([None, NOW - 10**9, NOW + 10**9])

EDGES = st.dictionaries(st.tuples(KINDS, st.integers(0, 2)), NAMES, max_size=3)
LABELS = st.tuples(EDGES, st.booleans())

World = tuple[
    dict[str, tuple[dict[tuple[str, int], str], bool]],
    dict[str, tuple[dict[tuple[str, int], str], bool, str, bool]],
    dict[str, tuple[dict[tuple[str, int], str], str]],
    dict[str, tuple[list[tuple[str, str]], int | None, bool]],
]

WORLDS = st.tuples(
    st.dictionaries(NAMES, LABELS),
    st.dictionaries(NAMES, st.tuples(EDGES, st.booleans(), st.sampled_from(["", "a", "b", "c"]), st.booleans())),
    st.dictionaries(NAMES, st.tuples(EDGES, NAMES)),
    st.dictionaries(NAMES, st.tuples(st.lists(st.tuples(KINDS, NAMES), max_size=3), EXPIRY, st.booleans())),
)


def labels(edges: dict[tuple[str, int], str], root: bool = False) -> dict[str, str]:
    made = {f"containerd.io/gc.ref.{WORDS[kind]}/{number}": name for (kind, number), name in edges.items()}
    return {**made, references.ROOT: "x"} if root else made


def records(world: World) -> references.Records:
    blobs, layers, pictures, held = world
    tables = (
        {name: images.Image(name, image.Descriptor("m", target, 1), labels(edges)) for name, (edges, target) in pictures.items()},
        {name: lease(name, *parts) for name, parts in held.items()},
        {name: content.Info(name, 1, labels=labels(*parts)) for name, parts in blobs.items()},
        {f"s/{name}": layer(*parts) for name, parts in layers.items()},
    )
    return references.Records(("n",), lambda ns: tables[0], lambda ns: {}, lambda ns: tables[1], lambda ns: tables[2], lambda ns: tables[3])


def lease(name: str, resources: list[tuple[str, str]], expiry: int | None, flat: bool) -> schema.Lease:
    pairs = {} if expiry is None else {leases.EXPIRE_LABEL: clock.format_rfc3339(expiry)}
    if flat:
        pairs[references.FLAT] = "x"
    return schema.Lease(leases.Lease(name, pairs), {f"{kind} {id}": leases.Resource(id, kind) for kind, id in resources})


def layer(edges: dict[tuple[str, int], str], root: bool, parent: str, active: bool) -> schema.Snapshot:
    kind = snapshots.Kind.ACTIVE if active else snapshots.Kind.COMMITTED
    return schema.Snapshot("backend", kind, parent, labels(edges, root))


def naively_alive(world: World) -> set[tuple[str, str]]:
    """Repeat "what the living name lives" until nothing changes."""
    blobs, layers, pictures, held = world
    alive = {("images", name) for name in pictures}
    alive |= {("content", name) for name, (_, root) in blobs.items() if root}
    alive |= {("snapshots/s", name) for name, (_, root, _, _) in layers.items() if root}
    flat: set[tuple[str, str]] = set()
    for resources, expiry, is_flat in held.values():
        if expiry is None or expiry > NOW:
            (flat if is_flat else alive).update(resources)
    while True:
        named = set(alive)
        for kind, name in alive:
            edges: dict[tuple[str, int], str] = {}
            if kind == "content" and name in blobs:
                edges = blobs[name][0]
            elif kind == "images" and name in pictures:
                edges = pictures[name][0]
                named.add(("content", pictures[name][1]))
            elif kind == "snapshots/s" and name in layers:
                edges = layers[name][0]
                if layers[name][2]:
                    named.add((kind, layers[name][2]))
            named |= {(target_kind, target) for (target_kind, _), target in edges.items()}
        if named == alive:
            return alive | flat
        alive = named


@given(WORLDS)
def test_what_lives_is_what_is_reached(world: World) -> None:
    found = references.reachable(references.build(records(world), NOW))
    assert {(kind, name) for _, kind, name in found if kind != "leases"} == naively_alive(world)
