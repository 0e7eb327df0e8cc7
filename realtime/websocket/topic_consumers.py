"""The WebSocket consumers that serve topics. `?meta=1` asks for the events' metadata."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from ..access.permissions import require
from ..access.user_info import sender_meta
from ..conf import settings
from ..delivery.publish import publish_now
from ..delivery.topic_subscriber import Reset, Started
from ..events.payload import DEFAULT_TYPE
from ..events.position import parse_position
from ..events.topic import validate_topic
from ..exceptions import InvalidData, InvalidPosition
from ..utils.asgi import Scope, query
from . import messages as frames
from .consumers import WebSocketConsumer


class TopicConsumer(WebSocketConsumer):
    """`/ws/topics/<topic>?after=<id>`: one topic; clients may publish to it."""

    authentication = "optional"  # the permission rule decides; `public.*` is open to all
    heartbeat = True

    async def _check_request(self) -> None:
        self.topic = validate_topic(self.scope["url_route"]["kwargs"]["topic"])
        self.after = query(self.scope).get("after", [None])[-1]
        if self.after is not None:
            parse_position(self.after)
        self.has_meta = _wants_meta(self.scope)

    async def authorize(self) -> None:
        await require(self.user, self.topic, "read")

    async def prepare(self) -> None:
        self.started = await self.subscribe(self.topic, self.after)

    async def connected(self) -> None:
        if not self.started.recovered:
            await self.reset(Reset(self.topic, self.started.position))

    async def received(self, content: Any) -> None:
        kind = frames.type_of(content)
        if kind == "ping":
            await self.send_text(frames.reply("pong", frames.ref_of(content)))
        elif kind == "publish":
            await publish_from(self, self.topic, content)
        else:
            raise InvalidData(f"Unknown message type {kind!r:.60}; publish and ping are known.")


class MultiplexConsumer(WebSocketConsumer):
    """`/ws`: any number of topics on one socket, up to `MAX_TOPICS`."""

    authentication = "optional"
    heartbeat = True

    async def _check_request(self) -> None:
        self.has_meta = _wants_meta(self.scope)

    async def received(self, content: Any) -> None:
        kind = frames.type_of(content)
        handler = self._handlers.get(kind)
        if handler is None:
            known = ", ".join(self._handlers)
            raise InvalidData(f"Unknown message type {kind!r:.60}; known are {known}.")
        await handler(self, content)

    async def lost_permission(self, topic: str) -> None:
        self.unsubscribe(topic)
        detail = f"You may not read {topic!r} any more."
        await self.send_text(frames.reply("unsubscribed", topic=topic, detail=detail))

    async def _subscribe(self, content: Mapping[str, Any]) -> None:
        topic, ref = validate_topic(content.get("topic")), frames.ref_of(content)
        after = content.get("after")
        if after is not None and not isinstance(after, str):
            raise InvalidPosition("'after' is an event id, which is a string.")
        await require(self.user, topic, "read")
        if topic in self.topics:
            raise InvalidData(f"{topic!r} is subscribed already; unsubscribe first.")
        if len(self.topics) >= settings.MAX_TOPICS:
            detail = f"{settings.MAX_TOPICS} topics are the most for one socket (MAX_TOPICS)."
            await self.send_error("too_many", detail, ref)
            return

        async def say_where(started: Started) -> None:
            answer = {"id": str(started.position), "recovered": started.recovered}
            await self.send_text(frames.reply("subscribed", ref, topic=topic, **answer))

        await self.subscribe(topic, after, say_where)

    async def _unsubscribe(self, content: Mapping[str, Any]) -> None:
        topic = validate_topic(content.get("topic"))
        if not self.unsubscribe(topic):
            raise InvalidData(f"{topic!r} is not subscribed here.")
        await self.send_text(frames.reply("unsubscribed", frames.ref_of(content), topic=topic))

    async def _publish(self, content: Mapping[str, Any]) -> None:
        await publish_from(self, validate_topic(content.get("topic")), content)

    async def _ping(self, content: Mapping[str, Any]) -> None:
        await self.send_text(frames.reply("pong", frames.ref_of(content)))

    _handlers: ClassVar[dict[str, Callable[..., Awaitable[None]]]] = {
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "publish": _publish,
        "ping": _ping,
    }


async def publish_from(consumer: WebSocketConsumer, topic: str, content: Mapping[str, Any]) -> None:
    """Publish what a client sent over its socket, with its user as sender, and tell it the id."""
    await require(consumer.user, topic, "publish")
    if "data" not in content:
        raise InvalidData("A publish message needs 'data'.")
    ephemeral = content.get("ephemeral", False)
    if not isinstance(ephemeral, bool):
        raise InvalidData("'ephemeral' is true or false.")
    kind = content.get("event", DEFAULT_TYPE)
    meta = await sender_meta(consumer.user)  # never the client's word
    event = await publish_now(topic, content["data"], type=kind, ephemeral=ephemeral, meta=meta)
    await consumer.send_text(frames.reply("published", frames.ref_of(content), id=event.id))


def _wants_meta(scope: Scope) -> bool:
    return query(scope).get("meta", [""])[-1] == "1"
