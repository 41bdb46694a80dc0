"""The plugin graph: order, injection, skipping, failure and closing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import pytest

from pydock.core import plugin
from pydock.daemon import graph


class Store(Protocol):
    """A noun."""

    def name(self) -> str:
        """Return who it is."""


class Other(Protocol):
    """Another noun."""


class Named(Store):
    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name


@dataclass(frozen=True)
class SizeConfig(plugin.Config):
    size: int = plugin.option(3, "how many")


def make(uri: str, factory: Any) -> plugin.Registration:
    type_, _, id_ = uri.rpartition(".")
    return plugin.Registration(type_, id_, factory)


async def store_a() -> AsyncIterator[Store]:
    yield Named("a")


async def store_b() -> AsyncIterator[Store]:
    yield Named("b")


async def skipped() -> AsyncIterator[Store]:
    raise plugin.SkipPlugin("no such kernel")
    yield Named("never")


class Running:
    """Starts plugins and keeps what a probe plugin was given."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.table = plugin.PluginTable()
        self.sections: dict[str, plugin.Config] = {}

    @contextlib.asynccontextmanager
    async def start(self, *registrations: plugin.Registration, given: Mapping[Any, Any] | None = None) -> AsyncIterator[graph.Graph]:
        context = graph.Context(given or {}, self._config, self.tmp_path / "root", self.tmp_path / "state")
        async with contextlib.AsyncExitStack() as stack:
            made = graph.Graph(context, self.table)
            await made.start(graph.plan(registrations, context.given), stack)
            yield made

    def _config(self, uri: str, wanted: type[plugin.Config]) -> plugin.Config:
        return self.sections.get(uri) or wanted()

    def errors(self) -> dict[str, str]:
        return {row.id: row.init_error for row in self.table.rows()}


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path)


async def test_a_need_is_filled_by_the_plugin_that_provides_its_type(running: Running) -> None:
    seen: list[Store] = []

    async def user(store: Store) -> AsyncIterator[Other]:
        seen.append(store)
        yield object()

    async with running.start(make("z.user", user), make("y.a", store_a)):
        assert [store.name() for store in seen] == ["a"]
    assert [row.requires for row in running.table.rows()] == [(), ("y",)]


async def test_a_mapping_holds_every_value_by_plugin_id_and_a_sequence_in_start_order(running: Running) -> None:
    seen: list[Any] = []

    async def user(by_id: Mapping[str, Store], ordered: Sequence[Store]) -> AsyncIterator[None]:
        seen.extend([{name: store.name() for name, store in by_id.items()}, [store.name() for store in ordered]])
        yield

    async with running.start(make("s.b", store_b), make("u.user", user), make("s.a", store_a), make("s.no", skipped)):
        assert seen == [{"a": "a", "b": "b"}, ["a", "b"]]


async def test_an_annotated_need_picks_one_of_several(running: Running) -> None:
    seen: list[str] = []

    async def user(store: Annotated[Store, "s.b"]) -> AsyncIterator[None]:
        seen.append(store.name())
        yield

    async with running.start(make("s.a", store_a), make("s.b", store_b), make("u.user", user)):
        assert seen == ["b"]


async def test_an_optional_need_is_none_where_nothing_or_a_skipped_plugin_provides_it(running: Running) -> None:
    seen: list[object] = []

    async def user(store: Store | None, other: Other | None) -> AsyncIterator[None]:
        seen.extend([store, other])
        yield

    async with running.start(make("s.no", skipped), make("u.user", user)):
        assert seen == [None, None]


async def test_a_tuple_provides_each_of_its_members(running: Running) -> None:
    seen: list[object] = []

    async def both() -> AsyncIterator[tuple[Store, Other]]:
        yield Named("both"), "other"

    async def user(other: Other, store: Store) -> AsyncIterator[None]:
        seen.extend([other, store.name()])
        yield

    async with running.start(make("b.both", both), make("u.user", user)):
        assert seen == ["other", "both"]


async def test_a_plugin_gets_its_config_its_directories_and_what_the_daemon_gives(running: Running) -> None:
    seen: list[Any] = []

    async def user(cfg: SizeConfig, root: plugin.PluginRoot, state: plugin.PluginState, table: plugin.PluginTable) -> AsyncIterator[None]:
        seen.extend([cfg.size, root, state, table])
        yield

    running.sections["u.user"] = SizeConfig(size=7)
    async with running.start(make("u.user", user), given={plugin.PluginTable: running.table}):
        assert seen == [7, running.tmp_path / "root/u.user", running.tmp_path / "state/u.user", running.table]
        assert [path.stat().st_mode & 0o777 for path in seen[1:3]] == [0o700, 0o711]


async def test_plugins_close_in_reverse_order_of_their_start(running: Running) -> None:
    log: list[str] = []

    async def first() -> AsyncIterator[Store]:
        log.append("first up")
        yield Named("first")
        log.append("first down")

    async def second(store: Store) -> AsyncIterator[None]:
        log.append("second up")
        yield
        log.append("second down")

    async with running.start(make("a.second", second), make("z.first", first)):
        pass
    assert log == ["first up", "second up", "second down", "first down"]


async def test_a_skipped_plugin_is_recorded_and_so_are_those_that_need_it(running: Running) -> None:
    async def user(store: Store) -> AsyncIterator[Other]:
        yield object()

    async def users_user(other: Other) -> AsyncIterator[None]:
        yield

    async with running.start(make("s.no", skipped), make("u.user", user), make("v.top", users_user)):
        told = running.errors()
    assert told["no"] == "no such kernel: skip plugin"
    assert all(text.endswith("skip plugin") for text in told.values())
    assert "s.no" in told["user"]
    assert "u.user" in told["top"]


async def test_a_failing_plugin_stops_the_start_names_itself_and_closes_the_rest(running: Running) -> None:
    log: list[str] = []

    async def fine() -> AsyncIterator[Store]:
        try:
            yield Named("fine")
        finally:
            log.append("closed")

    async def broken(store: Store) -> AsyncIterator[None]:
        raise OSError("disk on fire")
        yield

    with pytest.raises(graph.PluginFailed, match=r"plugin u\.broken did not start: disk on fire") as caught:
        async with running.start(make("s.fine", fine), make("u.broken", broken)):
            pass
    assert isinstance(caught.value.__cause__, OSError)
    assert log == ["closed"]


async def test_a_background_loop_ends_with_its_plugin(running: Running) -> None:
    ended = asyncio.Event()

    async def looping() -> AsyncIterator[None]:
        async def loop() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with plugin.background() as spawn:
            spawn(loop(), name="loop")
            yield

    async with running.start(make("l.loop", looping)):
        await asyncio.sleep(0)
        assert not ended.is_set()
    assert ended.is_set()


async def test_a_background_loop_that_fails_ends_the_daemon(running: Running) -> None:
    async def looping() -> AsyncIterator[None]:
        async def loop() -> None:
            raise OSError("lost")

        async with plugin.background() as spawn:
            spawn(loop(), name="loop")
            yield

    with pytest.raises(OSError, match="lost"):
        async with running.start(make("k.outer", keeping), make("l.loop", looping), make("m.inner", keeping)):
            await asyncio.Event().wait()


async def keeping() -> AsyncIterator[None]:
    async with plugin.background() as spawn:
        spawn(asyncio.Event().wait(), name="forever")
        yield


async def test_a_failure_passes_scopes_of_loops_as_itself_with_its_cause(running: Running) -> None:
    async def broken() -> AsyncIterator[None]:
        raise OSError("disk on fire") from ZeroDivisionError()
        yield

    with pytest.raises(graph.PluginFailed, match="disk on fire") as caught:
        async with running.start(make("a.a", keeping), make("b.b", keeping), make("c.c", broken)):
            pass
    assert isinstance(caught.value.__cause__, OSError)
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)


async def test_failures_of_several_loops_at_once_are_all_told() -> None:
    async def fail(text: str) -> None:
        raise OSError(text)

    with pytest.RaisesGroup(OSError, OSError):
        async with plugin.background() as spawn:
            spawn(fail("one"), name="one")
            spawn(fail("two"), name="two")
            await asyncio.Event().wait()


async def needs_store(store: Store) -> AsyncIterator[Other]:
    yield object()


async def needs_other(other: Other) -> AsyncIterator[Store]:
    yield Named("x")


async def untyped(thing) -> AsyncIterator[Store]:  # type: ignore[no-untyped-def]
    yield Named("x")


async def without_return(store: Store):  # type: ignore[no-untyped-def]
    yield 1


async def not_a_generator() -> None:
    return None


@pytest.mark.parametrize(
    ("registrations", "text"),
    [
        ([make("u.u", needs_store)], r"plugin u\.u: parameter 'store': no plugin provides test_graph\.Store"),
        ([make("u.u", needs_store), make("s.a", store_a), make("s.b", store_b)], r"parameter 'store': .* by s\.a and s\.b"),
        ([make("u.u", needs_store), make("v.v", needs_other)], r"need each other: .*parameter 'store' of u\.u needs v\.v"),
        ([make("u.u", needs_store), make("u.u", store_a)], r"u\.u is registered twice"),
        ([make("u.u", untyped)], r"parameter 'thing' has no annotation"),
        ([make("u.u", without_return)], r"annotated to return AsyncIterator"),
        ([make("u.u", not_a_generator)], r"must be an async generator"),
    ],
    ids=["missing", "ambiguous", "cyclic", "twice", "untyped", "no return", "no generator"],
)
def test_a_wrong_set_of_plugins_is_refused_naming_the_parameter(registrations: Iterable[plugin.Registration], text: str) -> None:
    with pytest.raises(graph.BadPlugin, match=text):
        graph.plan(registrations)


def test_the_start_order_does_not_depend_on_the_order_of_registration() -> None:
    def order(registrations: Sequence[plugin.Registration]) -> list[str]:
        return [step.registration.uri for step in graph.plan(registrations)]

    made = [make("z.z", store_a), make("b.user", needs_store), make("a.alone", looping_free), make("c.alone", looping_free)]
    assert order(made) == order(made[::-1]) == ["a.alone", "c.alone", "z.z", "b.user"]


async def looping_free() -> AsyncIterator[None]:
    yield
