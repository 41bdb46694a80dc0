"""containerd.services.events.v1: what happens, published and followed.

A client that lost its stream may go on where it stopped, by gRPC metadata alone, so that nobody else sees a difference:

=========================== ============================================================================================================
metadata                    meaning
=========================== ============================================================================================================
pydock-events-after         of a Subscribe: begin with what followed this sequence number; "oldest": with all that is kept; "now": as
                            without, but numbered.  A number that is kept no more, or of the future, is OutOfRange; the text and
                            the trailing metadata name the oldest
pydock-events-oldest        answered at once: the oldest sequence number that is kept
pydock-events-newest        answered at once: the newest; every event after it that a filter matches is sent
pydock-events-last          answered at the end: the number of the last event sent (or the newest before the first), to be resumed after
=========================== ============================================================================================================

With pydock-events-after each envelope carries its number as field 1001 (uint64), which no containerd message has; others never get it.

A client of the last daemon comes back when its back-off ends, which a Go client (dockerd) lets grow to more than three seconds; it then
subscribes as it ever did.  So whoever subscribes without a number within `RETURN_SECONDS` of the start first gets what this daemon has
published that was stamped before its start: the exits nobody was told of.  Otherwise dockerd would show a dead container as running.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence

from google.protobuf import empty_pb2

from pydock._proto.containerd.services.events.v1 import events_pb2 as pb
from pydock.base import errors
from pydock.core import events, plugin
from pydock.services import calls, codec, packer, routing

AFTER, OLDEST, NEWEST, LAST = (f"pydock-events-{word}" for word in ("after", "oldest", "newest", "last"))
LONGEST_NUMBER = 19
RETURN_SECONDS = 5.0
SEQUENCE_TAG = b"\xc8\x3e"  # field 1001, varint


class Events:
    """Answers the Events service."""

    wire = pb.DESCRIPTOR.services_by_name["Events"]
    raw = frozenset({"Subscribe"})

    def __init__(self, exchange: events.Log, *, return_seconds: float = RETURN_SECONDS) -> None:
        self._exchange = exchange
        self._began = time.time_ns()
        self._all_back = time.monotonic() + return_seconds

    async def publish(self, request: pb.PublishRequest, call: calls.Call) -> empty_pb2.Empty:
        """Stamp a client's event and fan it out in the client's namespace."""
        self._exchange.publish_packed(call.ns, request.topic, codec.any_of(request.event))
        return empty_pb2.Empty()

    async def forward(self, request: pb.ForwardRequest, _: calls.Call) -> empty_pb2.Empty:
        """Fan out what another publisher stamped, in the namespace its envelope names."""
        sent = request.envelope
        envelope = events.Envelope(codec.time_of(sent.timestamp), sent.namespace, sent.topic, codec.any_of(sent.event))
        self._exchange.forward(envelope)
        return empty_pb2.Empty()

    async def subscribe(self, request: pb.SubscribeRequest, call: calls.Call, send: calls.Send) -> None:
        """Send what any of the filters matches, of every namespace, until the client goes."""
        asked = call.header(AFTER)
        span = self._exchange.span()
        newest = span.newest
        call.conclude({OLDEST: str(span.oldest), NEWEST: str(span.newest)})
        async with self._listening(tuple(request.filters), asked, span) as envelopes:
            await call.announce({OLDEST: str(span.oldest), NEWEST: str(span.newest)})
            try:
                async for envelope in envelopes:
                    if asked is None and envelope.sequence <= newest and envelope.timestamp >= self._began:
                        continue
                    wire = packer.wire_envelope(envelope)
                    await send(wire if asked is None else wire + numbered(envelope.sequence))
                    span = dataclasses.replace(span, newest=envelope.sequence)
            finally:
                call.conclude({OLDEST: str(self._exchange.span().oldest), LAST: str(span.newest)})

    def _listening(
        self, wanted: Sequence[str], asked: str | None, span: events.Span
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[events.Envelope]]:
        if asked == "now" or (asked is None and time.monotonic() >= self._all_back):
            return self._exchange.subscribe(wanted)
        if asked is None or asked == "oldest":
            return self._exchange.resume(wanted, span.oldest - 1)
        if not asked.isascii() or not asked.isdecimal() or len(asked) > LONGEST_NUMBER:
            raise errors.InvalidArgument(f'{AFTER}: a sequence number, "oldest" or "now"')
        return self._exchange.resume(wanted, int(asked))


def numbered(sequence: int) -> bytes:
    """Return field 1001 of an envelope: its sequence number."""
    return SEQUENCE_TAG + codec.varint(sequence)


@plugin.plugin("io.containerd.grpc.v1", "events")
async def service(exchange: events.Log) -> AsyncIterator[plugin.GrpcService]:
    """Serve the Events service."""
    yield routing.Service(Events(exchange))
