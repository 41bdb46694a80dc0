"""The exchange: every event of the daemon, in one order, to whoever listens now or asks again later.

Vocabulary: the *log* is the tail of all envelopes, numbered without a gap; ``_first`` is the number of its oldest; a subscriber's *cursor*
is the number it reads next.  One log serves all, so a slow subscriber costs nothing, however many there are.

Invariants: publishing never waits; the log holds at most `LIMIT` envelopes and, but for a single larger one, `BYTES` bytes; a subscriber
whose cursor falls out of the log gets ResourceExhausted and no more envelopes.  Numbers begin at the clock's microseconds, so that those
of a later daemon are higher than all of an earlier one, and a client that resumes across a restart is told of the gap.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Iterable

from pydock.base import errors, filters, names
from pydock.core import containers, events, plugin

LIMIT = 4096  # envelopes kept
BYTES = 2 << 20  # and of these at most so much, as `_weight` estimates it
_ENVELOPE_BYTES = 400  # of the objects that make up an envelope, beside its texts
_TURN = 256  # envelopes a subscriber may pass over before others get their turn


class Exchange:
    """See `pydock.core.events.Exchange`; use it on the event loop's thread alone."""

    def __init__(
        self,
        packer: events.Packer,
        *,
        limit: int = LIMIT,
        size: int = BYTES,
        first: int = 1,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._packer, self._limit, self._size, self._now = packer, limit, size, now
        self._log: collections.deque[events.Envelope] = collections.deque()
        self._first, self._held = first, 0
        self._subscribers: set[_Subscriber] = set()

    @property
    def next(self) -> int:
        """Return the number the next envelope gets."""
        return self._first + len(self._log)

    def span(self) -> events.Span:
        """Return the numbers of the oldest and the newest envelope kept."""
        return events.Span(self._first, self.next - 1)

    def publish(self, ns: str, event: events.Event) -> None:
        """Pack, stamp and fan out one of our own events."""
        self._append(events.Envelope(self._now(), ns, event.topic, self._packer.pack(event)))

    def publish_packed(self, ns: str, topic: str, event: containers.Any) -> None:
        """Stamp and fan out a client's event. Raises InvalidArgument for a topic that is not /a/b... of identifiers."""
        _check_topic(topic)
        self._append(events.Envelope(self._now(), names.namespace(ns), topic, event))

    def forward(self, envelope: events.Envelope) -> None:
        """Fan out an envelope as it is. Raises InvalidArgument for a bad namespace or topic, or no timestamp."""
        try:
            names.identifier(envelope.namespace)
        except errors.InvalidArgument as error:
            raise errors.InvalidArgument(f"event envelope has invalid namespace: {error.detail}") from None
        _check_topic(envelope.topic)
        if not envelope.timestamp:
            raise errors.InvalidArgument("timestamp must be set on forwarded event")
        self._append(envelope)

    def subscribe(self, wanted: Iterable[str] = ()) -> contextlib.AbstractAsyncContextManager[AsyncIterator[events.Envelope]]:
        """Listen from now on to what any of the filters matches. Raises InvalidArgument for a filter that is none."""
        return self._listen(wanted, None)

    def resume(self, wanted: Iterable[str], after: int) -> contextlib.AbstractAsyncContextManager[AsyncIterator[events.Envelope]]:
        """As `subscribe`, beginning with what followed the envelope ``after``. Raises OutOfRange where that is not known."""
        return self._listen(wanted, after)

    @contextlib.asynccontextmanager
    async def _listen(self, wanted: Iterable[str], after: int | None) -> AsyncIterator[AsyncIterator[events.Envelope]]:
        subscriber = _Subscriber(self, filters.parse(wanted), self.next if after is None else self._place(after))
        self._subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)

    def _place(self, after: int) -> int:
        """Return the number that follows ``after``. Raises OutOfRange where it is neither kept nor the next."""
        if after + 1 < self._first:
            raise errors.OutOfRange(f"events after {after} are kept no more: the oldest is {self._first}")
        if after >= self.next:
            raise errors.OutOfRange(f"event {after} has not happened: the newest is {self.next - 1}, the oldest {self._first}")
        return after + 1

    def read(self, number: int) -> events.Envelope | None:
        """Return the envelope ``number``, None when it is not published yet. Raises ResourceExhausted when it is kept no more."""
        if number < self._first:
            behind = self.next - number
            raise errors.ResourceExhausted(f"event subscriber is {behind} events behind, and the oldest kept is {self._first}")
        place = number - self._first
        return self._log[place] if place < len(self._log) else None

    def matches(self, envelope: events.Envelope, wanted: filters.Filter) -> bool:
        """Tell whether a filter picks ``envelope``."""
        return wanted.match(lambda path: self._field(envelope, path))

    def _field(self, envelope: events.Envelope, path: tuple[str, ...]) -> tuple[str, bool]:
        if path[0] == "namespace":
            return filters.text(envelope.namespace)
        if path[0] == "topic":
            return filters.text(envelope.topic)
        found = self._packer.field(envelope.event, path[1:]) if path[0] == "event" else None
        return filters.ABSENT if found is None else (found, True)

    def _append(self, envelope: events.Envelope) -> None:
        numbered = dataclasses.replace(envelope, sequence=self.next)
        self._log.append(numbered)
        self._held += _weight(numbered)
        while len(self._log) > 1 and (len(self._log) > self._limit or self._held > self._size):
            self._held -= _weight(self._log.popleft())
            self._first += 1
        for subscriber in self._subscribers:
            subscriber.wake()


class _Subscriber:
    """An endless iterator over the log from its ``cursor`` on."""

    def __init__(self, exchange: Exchange, wanted: filters.Filter, cursor: int) -> None:
        self.cursor = cursor
        self._exchange, self._wanted = exchange, wanted
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Say that there is something to read."""
        self._news.set()

    def __aiter__(self) -> AsyncIterator[events.Envelope]:
        return self

    async def __anext__(self) -> events.Envelope:
        while True:
            envelope = self._exchange.read(self.cursor)
            if envelope is None:
                self._news.clear()
                await self._news.wait()
                continue
            self.cursor += 1
            if self._exchange.matches(envelope, self._wanted):
                return envelope
            if self.cursor % _TURN == 0:
                await asyncio.sleep(0)


def _weight(envelope: events.Envelope) -> int:
    """Return about how many bytes of memory an envelope takes."""
    return _ENVELOPE_BYTES + len(envelope.event.value) + len(envelope.event.type_url) + len(envelope.topic) + len(envelope.namespace)


def _check_topic(topic: str) -> None:
    try:
        _validate_topic(topic)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"envelope topic {names.quote(topic[:200])}: {error.detail}") from None


def _validate_topic(topic: str) -> None:
    if not topic:
        raise errors.InvalidArgument("must not be empty")
    if topic[0] != "/":
        raise errors.InvalidArgument("must start with '/'")
    if len(topic) == 1:
        raise errors.InvalidArgument("must have at least one component")
    for component in topic[1:].split("/"):
        try:
            names.identifier(component)
        except errors.InvalidArgument as error:
            raise errors.InvalidArgument(f"failed validation on component {names.quote(component)}: {error.detail}") from None


@plugin.plugin("io.containerd.event.v1", "exchange")
async def exchange(packer: events.Packer) -> AsyncIterator[events.Log]:
    """Provide the exchange of this daemon."""
    yield Exchange(packer, first=time.time_ns() // 1000)
