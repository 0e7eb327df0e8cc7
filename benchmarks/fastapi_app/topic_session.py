"""What a client may ask for on a socket with topics, and the answers."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import WebSocket

from .database import User
from .events import is_event_type
from .history import MAX_ID, newest, publish, since
from .manager import Listener, manager
from .permissions import is_topic, may
from .sockets import send, send_error

MAX_TOPICS = 100
MAX_ID_DIGITS = len(str(MAX_ID))
Answer = Callable[[int, bool], Awaitable[None]]


class Refused(Exception):
    """A request that can't be granted: a code for programs, and what is wrong."""


class TopicSession:
    """One socket, its user and its topics."""

    def __init__(self, websocket: WebSocket, user: User | None) -> None:
        self.websocket = websocket
        self.user = user
        self.topics: set[str] = set()

    async def handle(self, request: Any, own: str | None = None) -> None:
        """Answer a request; on a socket with a topic of its `own` there is nothing to subscribe."""
        ref = request.get("ref") if isinstance(request, dict) else None
        try:
            match request:
                case {"type": "pong"}:
                    pass
                case {"type": "ping"}:
                    await send(self.websocket, {"type": "pong"}, ref)
                case {"type": "publish"}:
                    await self.publish(request, own or request.get("topic"))
                case {"type": "subscribe"} if own is None:
                    await self.subscribe(request.get("topic"), request.get("after"), ref)
                case {"type": "unsubscribe"} if own is None:
                    await self.unsubscribe(request.get("topic"), ref)
                case _:
                    raise Refused("bad_message", "This is no request that is known here.")
        except Refused as refused:
            await send_error(self.websocket, *refused.args, ref)

    async def publish(self, request: dict[str, Any], topic: Any) -> None:
        """Publish, and tell the id."""
        self.check(topic, "publish")
        kind = request.get("event", "message")
        if "data" not in request or not isinstance(kind, str) or not is_event_type(kind):
            raise Refused("bad_message", "Publish 'data', and a text as its 'event'.")
        event_id = await publish(topic, request["data"], kind)
        await send(self.websocket, {"type": "published", "id": event_id}, request.get("ref"))

    async def subscribe(self, topic: Any, after: Any, ref: Any) -> None:
        """Send a topic: from now on, or all that followed an id."""
        self.check(topic, "read")
        if topic in self.topics:
            raise Refused("bad_message", f"{topic!r} is subscribed already.")
        if len(self.topics) >= MAX_TOPICS:
            raise Refused("too_many", f"{MAX_TOPICS} topics are the most for one socket.")

        async def answer(event_id: int, recovered: bool) -> None:
            place = {"topic": topic, "id": str(event_id), "recovered": recovered}
            await send(self.websocket, {"type": "subscribed", **place}, ref)

        if after is None:
            self.join(topic)
            await answer(await newest(topic), True)
        else:
            await self.replay(topic, event_id_of(after), answer)

    async def unsubscribe(self, topic: Any, ref: Any) -> None:
        """Send a topic no more."""
        if not isinstance(topic, str) or topic not in self.topics:
            raise Refused("bad_message", "This topic is not subscribed here.")
        self.topics.discard(topic)
        manager.leave(topic, self.websocket)
        await send(self.websocket, {"type": "unsubscribed", "topic": topic}, ref)

    def join(self, topic: str, *, hold: bool = False) -> Listener:
        """Listen to a topic."""
        self.topics.add(topic)
        return manager.join(topic, self.websocket, self.user, hold=hold)

    async def replay(self, topic: str, after: int, answer: Answer) -> None:
        """Send what followed an id, then what comes."""
        listener = self.join(topic, hold=True)
        past = await since([topic], after)
        await answer(after if past.complete else past.newest, past.complete)
        for event in past.events:
            await self.websocket.send_text(event.frame)
        listener.after = past.newest
        await manager.release(listener, self.websocket)

    def leave(self) -> None:
        """The socket is gone."""
        for topic in self.topics:
            manager.leave(topic, self.websocket)

    def check(self, topic: Any, action: str) -> None:
        """Refuse what is no topic, or not allowed."""
        if not isinstance(topic, str) or not is_topic(topic):
            raise Refused("bad_topic", "A topic is a name of letters, digits, '_', '.' and '-'.")
        if not may(self.user, topic, action):
            code = "not_identified" if self.user is None else "not_allowed"
            raise Refused(code, f"You may not {action} {topic!r}.")


def event_id_of(text: Any) -> int:
    """The id that a client has sent."""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS:
        return min(int(text), MAX_ID)
    raise Refused("bad_id", "'after' is an event's id.")
