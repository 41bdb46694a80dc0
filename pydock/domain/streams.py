"""The streams clients have open, by namespace and id, until whoever serves one takes it away."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydock.base import errors, names
from pydock.core import plugin, streams


class Streams:
    """See `pydock.core.streams.Streams`."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], streams.Stream] = {}

    def register(self, ns: str, id: str, stream: streams.Stream) -> None:
        """Make ``stream`` known. Raises AlreadyExists ``stream <id>``, InvalidArgument for an id that is none."""
        names.opaque("stream id", id)
        if self._streams.setdefault((ns, id), stream) is not stream:
            raise errors.AlreadyExists(f"stream {id}")

    def get(self, ns: str, id: str) -> streams.Stream:
        """Return a stream. Raises NotFound ``stream <id>``."""
        if (ns, id) not in self._streams:
            raise errors.NotFound(f"stream {id}")
        return self._streams[ns, id]

    def remove(self, ns: str, id: str) -> None:
        """Forget a stream; one that is not there is fine."""
        self._streams.pop((ns, id), None)


@plugin.plugin("io.containerd.streaming.v1", "manager")
async def manager() -> AsyncIterator[streams.Streams]:
    """Provide the streams of this daemon."""
    yield Streams()
