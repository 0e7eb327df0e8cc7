"""A subscription written as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from itertools import chain

from ..access.connections import get_connections
from ..access.identity import Identity
from ..access.inspection import ConnectionInfo, address_of
from ..access.permissions import Action, may
from ..conf import settings
from ..delivery.fanout import WRITE_BYTES, WRITE_EVENTS
from ..delivery.synced import Sink
from ..delivery.topic_subscriber import Reset
from ..events.event import Event
from ..events.payload import DEFAULT_TYPE, PRESENCE, RESET, encode_data
from ..events.position import Position, format_positions
from ..limits.client import Client
from ..metrics import live_connections
from ..presence.member_subscription import MemberSubscription
from ..server.extensions import fastlane, server_state
from ..streaming.response import EventStreamResponse
from ..streaming.sse import KEEPALIVE, encode_sse
from ..utils.asgi import Scope


class TopicStreamResponse(EventStreamResponse):
    """The events of `topics`, for a client, from `after` on; topics without a position are live.

    These begin where they stood in `now`, which the client may know of before the body begins.
    `is_resumed` says that the client itself has named the positions. On `watched` topics it is
    told who is there.

    Permission was checked by the caller for the first time; while the stream lives it is checked
    again, and the stream ends when it is no longer given.
    """

    def __init__(
        self,
        scope: Scope,
        client: Client,
        topics: Sequence[str],
        after: Mapping[str, Position],
        *,
        now: Mapping[str, Position] = {},
        combined: bool = False,
        is_resumed: bool = False,
        has_meta: bool = False,
        watched: Sequence[str] = (),
    ) -> None:
        # The ids of a combined stream depend on its other topics: each is made for one client.
        self._lane = None if combined else fastlane(scope)
        self._scope = scope
        self._client = client
        self._identity = client.identity
        self._path = scope.get("path", "")
        self._topics = topics
        self._after = after
        self._now = now
        self._combined = combined
        self._is_resumed = is_resumed
        self._has_meta = has_meta
        self._watched = watched
        self._encode = encode_event_with_meta if has_meta else encode_event
        super().__init__(self._events(), keeps_alive=True)  # without a second task

    async def recheck(self, identity: Identity | None) -> None:
        """End the stream if its user may no longer read; the next answer says why."""
        rights: list[tuple[str, Action]] = [(topic, "read") for topic in self._topics]
        rights += [(topic, "presence") for topic in self._watched]
        for topic, action in rights:
            if identity is None or not await may(identity.user, topic, action):
                return self._subscription.close()

    def describe(self) -> ConnectionInfo:
        """Return what an operator may want to know of this stream."""
        return ConnectionInfo("SSE", self._topics, address_of(self._scope))

    async def fail(self) -> None:
        """End the stream; the client comes back and is checked anew."""
        self._subscription.close()

    async def _events(self) -> AsyncGenerator[bytes, None]:
        # All that has to be undone starts in here: a generator that was never started has nothing
        # to clean up, and one that was started is closed by the response.
        self._subscription = subscription = MemberSubscription(self._identity)
        connections = get_connections()
        connections.add(self._identity, self)
        self._client.connect()
        began, size, end = live_connections.opened("sse"), 0, "ended"
        try:
            lost = await self._subscribe()
            if subscription.is_closed:
                return  # `recheck` has ended it meanwhile
            positions = subscription.positions
            # An id without data dispatches nothing, but is what EventSource sends when it
            # reconnects: a plug pulled before the first event loses nothing either.
            opening = encode_sse(id=self._id(positions), retry=settings.SSE_RETRY_MS)
            if self._is_resumed:
                # The client has a position to send. Without the blank line, which many take
                # for an event, this is the id of the first event, unless that has its own.
                opening = opening.removesuffix(b"\n")
            resets = (encode_reset(*item, self._id(positions)) for item in lost)
            parts = join_up(chain([opening], resets))
            if self._lane is not None and self.is_untouched:
                opening = next(parts)  # all of it: there is one topic
                parts = iter([opening])
                self._lane.arm(opening)
                subscription.sink = Sink(self._encode, self._lane)
            while not subscription.is_closed:
                for part in parts:
                    size += len(part)
                    yield part
                    if subscription.is_closed:
                        break
                else:
                    items = await subscription.read(settings.KEEPALIVE_SECONDS)
                    parts = join_up(self._encode_items(items, positions))
        except (GeneratorExit, asyncio.CancelledError):
            # The server does so where the client has left, and where it ends the stream itself.
            if not server_state(self._scope).get("draining"):
                end = "gone"
            raise
        finally:
            self._client.disconnect()
            connections.discard(self._identity, self)
            subscription.close()
            events, size = subscription.sent_events, size + subscription.sent_bytes
            user, path = self._identity.user, self._path
            live_connections.closed("sse", began, end, path, user, events, size)

    async def _subscribe(self) -> list[Reset]:
        """Read the topics; return those whose history is gone."""
        lost: list[Reset] = []
        for topic in self._topics:
            if self._subscription.is_closed:
                break
            started = await self._subscription.add(
                topic,
                self._after.get(topic),
                now=self._now.get(topic),
                is_watched=topic in self._watched,
            )
            if not started.recovered:
                lost.append(Reset(topic, started.position))
        return lost

    def _id(self, positions: Mapping[str, Position]) -> str:
        return format_positions(positions) if self._combined else str(positions[self._topics[0]])

    def _encode_items(
        self, items: Iterable[Event | Reset], positions: dict[str, Position]
    ) -> Iterator[bytes]:
        """Yield the items and, after them, who is there."""
        for item in items:
            yield self._encode_item(item, positions)
        for text in self._subscription.notices():
            yield encode_sse(text, event=PRESENCE)  # no id: the client's position is the events'

    def _encode_item(self, item: Event | Reset, positions: dict[str, Position]) -> bytes:
        if isinstance(item, Reset):
            positions[item.topic] = item.position
            return encode_reset(item.topic, item.position, self._id(positions))
        if not self._combined:
            return item.encoded(self._encode)
        if not item.offset:
            return encode_multiplexed_event(item, None, has_meta=self._has_meta)
        positions[item.topic] = item.position
        return encode_multiplexed_event(item, self._id(positions), has_meta=self._has_meta)


def join_up(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks in parts of `WRITE_EVENTS` or `WRITE_BYTES`; KEEPALIVE where there are none.

    No more is made, and held while a client takes nothing, than one part and the chunk after it.
    """
    part: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if part and (size > WRITE_BYTES or len(part) == WRITE_EVENTS):
            full, part, size = b"".join(part), [chunk], len(chunk)
            yield full
        else:
            part.append(chunk)
    yield b"".join(part) or KEEPALIVE


def encode_event(event: Event) -> bytes:
    """Return an event of a stream over one topic. Its data is JSON, and so has no line break."""
    return _encode(event, event.id, event.data)


def encode_event_with_meta(event: Event) -> bytes:
    """Return an event of a stream over one topic whose data is `{"data", "meta"}`."""
    return _encode(event, event.id, f'{{"data":{event.data}{_meta(event)}}}')


def encode_multiplexed_event(
    event: Event, stream_id: str | None, *, has_meta: bool = False
) -> bytes:
    """Return an event of a stream over several topics; `stream_id` covers all of them."""
    meta = _meta(event) if has_meta else ""
    return _encode(event, stream_id, f'{{"topic":"{event.topic}","data":{event.data}{meta}}}')


def _encode(event: Event, event_id: str | None, data: str) -> bytes:
    name = "" if event.type == DEFAULT_TYPE else f"event: {event.type}\n"
    id_line = "" if event_id is None else f"id: {event_id}\n"
    return f"{name}{id_line}data: {data}\n\n".encode()


def _meta(event: Event) -> str:
    return "" if event.meta is None else f',"meta":{event.meta}'


def encode_reset(topic: str, position: Position, stream_id: str) -> bytes:
    """Return `event: reset`: what the client has is stale, and its new position is the id."""
    data = encode_data({"topic": topic, "id": str(position)}, max_bytes=1_000)
    return encode_sse(data, event=RESET, id=stream_id)
