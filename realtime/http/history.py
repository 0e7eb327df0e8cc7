"""The kept events of a topic as NDJSON: what a program reads once, where a page would subscribe."""

from collections.abc import AsyncGenerator

from ..access.connections import get_connections
from ..access.identity import Identity
from ..access.inspection import ConnectionInfo
from ..access.permissions import may
from ..conf import settings
from ..eventlog import get_event_log
from ..eventlog.base import Page
from ..events.position import Position
from ..exceptions import NotAllowed
from ..streaming.json_columns import encode_event_line, encode_event_line_with_meta
from ..streaming.ndjson import NDJSONResponse
from ..streaming.response import StreamResponse


class HistoryResponse(StreamResponse):
    """A line for each event after a position, up to the one that was the newest at the beginning.

    Permission was checked by the caller; it is checked again while a slow client reads. Where the
    right to read is lost or the history pruned meanwhile, the connection is cut.
    """

    stream_content_type = NDJSONResponse.stream_content_type
    stream_headers = NDJSONResponse.stream_headers

    @classmethod
    async def begin(
        cls,
        identity: Identity,
        topic: str,
        after: Position,
        limit: int | None,
        *,
        has_meta: bool = False,
    ) -> "HistoryResponse":
        """Read the first page; raises `HistoryGone` as long as that can be said in the answer."""
        heads = await get_event_log().heads([topic])
        last = heads[topic].offset if topic in heads else 0
        page = await get_event_log().read(topic, after, _page_size(limit))
        return cls(identity, topic, page, last, limit, has_meta=has_meta)

    def __init__(
        self,
        identity: Identity,
        topic: str,
        page: Page,
        last: int,
        limit: int | None,
        *,
        has_meta: bool = False,
    ) -> None:
        self._identity = identity
        self._topic = topic
        self._is_permitted = True
        self._encode = encode_event_line_with_meta if has_meta else encode_event_line
        super().__init__(self._events(page, last, limit))

    async def recheck(self, identity: Identity | None) -> None:
        """Check the user's rights again, which may have changed."""
        if identity is None or not await may(identity.user, self._topic, "read"):
            self._is_permitted = False

    def describe(self) -> ConnectionInfo:
        """Return what an operator may want to know of this response."""
        return ConnectionInfo("history", [self._topic])

    async def fail(self) -> None:
        """Cut the stream: whether it may go on can't be told."""
        self._is_permitted = False

    async def _events(self, page: Page, last: int, left: int | None) -> AsyncGenerator[bytes, None]:
        connections = get_connections()
        connections.add(self._identity, self)
        try:
            while True:
                events = [event for event in page.events[:left] if event.offset <= last]
                if not self._is_permitted:
                    raise NotAllowed(f"No longer allowed to read {self._topic!r}.")
                if events:
                    yield "".join(map(self._encode, events)).encode()
                left = None if left is None else left - len(events)
                if not events or left == 0 or events[-1].offset >= last:
                    return
                page = await get_event_log().read(self._topic, page.position, _page_size(left))
        finally:
            connections.discard(self._identity, self)


def _page_size(left: int | None) -> int:
    size: int = settings.LOG_PAGE_EVENTS
    return size if left is None else max(1, min(size, left))
