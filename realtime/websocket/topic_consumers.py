"""The WebSocket consumers that serve topics. `?meta=1` asks for the events' metadata.

`?presence=1`, or `"presence": true` where there are several topics, asks who is there.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from ..access.permissions import require
from ..access.user_info import publisher_of, sender_meta
from ..conf import settings
from ..delivery.publish import publish_with
from ..delivery.topic_subscriber import Reset, Started
from ..events.payload import DEFAULT_TYPE
from ..events.position import parse_position
from ..events.topic import validate_topic
from ..exceptions import InvalidData, InvalidPosition
from ..limits.client import Client
from ..limits.publishing import admit, note_published
from ..presence.member_subscription import require_kept
from ..utils.asgi import query, wants
from . import messages as frames
from .acknowledgement import Acknowledgement
from .consumers import WebSocketConsumer
from .renewal import renew


class TopicConsumer(WebSocketConsumer):
    """`/ws/topics/<topic>?after=<id>`: one topic; clients may publish to it."""

    authentication = "optional"  # the permission rule decides; `public.*` is open to all
    heartbeat = True
    is_scoped = True
    _content_of = staticmethod(frames.request_of)

    async def _check_request(self) -> None:
        self.topic = validate_topic(self.scope["url_route"]["kwargs"]["topic"])
        self.after = query(self.scope).get("after", [None])[-1]
        if self.after is not None:
            parse_position(self.after)
        self.has_meta = wants(self.scope, "meta")
        self.wants_presence = wants(self.scope, "presence")
        if self.wants_presence:
            require_kept(self.topic)

    async def authorize(self) -> None:
        await require(self.user, self.topic, "read")

    async def prepare(self) -> None:
        if self.wants_presence:  # not at each check: a socket that loses only this stays open
            await require(self.user, self.topic, "presence")
        presence = self.wants_presence
        self.started = await self.subscribe(self.topic, self.after, presence=presence)

    async def connected(self) -> None:
        if not self.started.recovered:
            await self.reset(Reset(self.topic, self.started.position))

    async def received(self, content: Any) -> None:
        kind = frames.type_of(content)
        if kind == "ping":
            await self.send_text(frames.reply("pong", frames.ref_of(content)))
        elif kind == "publish":
            self._limits.take_publish()
            await publish_from(self, self._client, self.topic, content)
        elif kind == "authenticate":
            self._limits.take_authenticate()
            await renew(self, content)
        else:
            known = "publish, authenticate and ping are known, and subscribe on /ws"
            raise InvalidData(f"Unknown message type {kind!r:.60}; {known}.")


class MultiplexConsumer(WebSocketConsumer):
    """`/ws`: any number of topics on one socket, up to `MAX_TOPICS`."""

    authentication = "optional"
    heartbeat = True
    is_scoped = True
    _content_of = staticmethod(frames.request_of)

    async def _check_request(self) -> None:
        self.has_meta = wants(self.scope, "meta")

    async def received(self, content: Any) -> None:
        kind = frames.type_of(content)
        handler = self._handlers.get(kind)
        if handler is None:
            known = ", ".join(self._handlers)
            raise InvalidData(f"Unknown message type {kind!r:.60}; known are {known}.")
        await handler(self, content)

    async def lost_permission(self, topic: str) -> None:
        detail = f"You may not read {topic!r} any more."
        await self.send_text(frames.reply("unsubscribed", topic=topic, detail=detail))

    async def _subscribe(self, content: Mapping[str, Any]) -> None:
        self._limits.take_subscribe()
        topic, ref = validate_topic(content.get("topic")), frames.ref_of(content)
        after = content.get("after")
        if after is not None and not isinstance(after, str):
            raise InvalidPosition("'after' is an event id, which is a string.")
        presence = content.get("presence", False)
        if not isinstance(presence, bool):
            raise InvalidData("'presence' is true or false.")
        await require(self.user, topic, "read")
        if presence:
            require_kept(topic)
            await require(self.user, topic, "presence")
        if topic in self.topics:
            raise InvalidData(f"{topic!r} is subscribed already; unsubscribe first.")
        if len(self.topics) >= settings.MAX_TOPICS:
            detail = f"{settings.MAX_TOPICS} topics are the most for one socket (MAX_TOPICS)."
            await self.send_error("too_many", detail, ref)
            return

        async def say_where(started: Started) -> None:
            answer = {"id": str(started.position), "recovered": started.recovered}
            await self.send_text(frames.reply("subscribed", ref, topic=topic, **answer))

        await self.subscribe(topic, after, say_where, presence=presence)

    async def _unsubscribe(self, content: Mapping[str, Any]) -> None:
        topic = validate_topic(content.get("topic"))
        if not self.unsubscribe(topic):
            raise InvalidData(f"{topic!r} is not subscribed here.")
        await self.send_text(frames.reply("unsubscribed", frames.ref_of(content), topic=topic))

    async def _publish(self, content: Mapping[str, Any]) -> None:
        self._limits.take_publish()
        topic = validate_topic(content.get("topic"))
        await publish_from(self, self._client, topic, content)

    async def _authenticate(self, content: Mapping[str, Any]) -> None:
        self._limits.take_authenticate()
        await renew(self, content)

    async def _ping(self, content: Mapping[str, Any]) -> None:
        await self.send_text(frames.reply("pong", frames.ref_of(content)))

    _handlers: ClassVar[dict[str, Callable[..., Awaitable[None]]]] = {
        "subscribe": _subscribe,
        "unsubscribe": _unsubscribe,
        "publish": _publish,
        "authenticate": _authenticate,
        "ping": _ping,
    }


async def publish_from(
    consumer: WebSocketConsumer, client: Client, topic: str, content: Mapping[str, Any]
) -> None:
    """Publish what a client sent over its socket, with its user as sender, and tell it the id."""
    await client.take("PUBLISHES")
    await require(consumer.user, topic, "publish")
    if "data" not in content:
        raise InvalidData("A publish message needs 'data'.")
    ephemeral = content.get("ephemeral", False)
    if not isinstance(ephemeral, bool):
        raise InvalidData("'ephemeral' is true or false.")
    await admit(client, [topic])
    answer = Acknowledgement(consumer, frames.ref_of(content))
    try:
        event = await publish_with(
            answer,
            topic,
            content["data"],
            type=content.get("event", DEFAULT_TYPE),
            ephemeral=ephemeral,
            meta=await sender_meta(consumer.user),  # never the client's word
            key=(key := content.get("key")),
            publisher="" if key is None else publisher_of(consumer.user),
        )
    finally:
        answer.give_up()  # a handler that was cancelled may have answered otherwise
    await note_published(client, [event])
    await answer.send(event)
