"""Consumers as the documentation of Channels writes them."""

import json
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer

from .tokens import user_of_token


class Echo(AsyncJsonWebsocketConsumer):
    """`{"echo": <what came>}`."""

    async def receive_json(self, content: Any) -> None:
        await self.send_json({"echo": content})


class EchoText(AsyncWebsocketConsumer):
    """The same text."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


class EchoBytes(AsyncWebsocketConsumer):
    """The same bytes."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(bytes_data=bytes_data)


class SignedIn(Echo):
    """A welcome for who is signed in."""

    async def connect(self) -> None:
        if not self.scope["user"].is_authenticated:
            await self.close(code=4401)
            return
        await self.accept()
        await self.send_json({"type": "welcome", "user": self.scope["user"].username})


class AuthMessage(Echo):
    """The first message carries the token."""

    user = None

    async def receive_json(self, content: Any) -> None:
        if self.user is not None:
            await super().receive_json(content)
            return
        user = await user_of_token(content.get("token", ""))
        if not user.is_authenticated:
            await self.close(code=4401)
            return
        self.user = user
        await self.send_json({"type": "welcome", "user": user.username})


class Topic(AsyncWebsocketConsumer):
    """One topic, as a group."""

    async def connect(self) -> None:
        self.topic = self.scope["url_route"]["kwargs"]["topic"]
        if not self.topic.startswith("public.") and not self.scope["user"].is_authenticated:
            await self.close(code=4401)
            return
        await self.channel_layer.group_add(self.topic, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.topic, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        message = json.loads(text_data or "")
        event = {"type": "topic.event", "topic": self.topic, "data": message["data"]}
        await self.channel_layer.group_send(self.topic, event)

    async def topic_event(self, event: dict[str, Any]) -> None:
        frame = {"type": "event", "topic": event["topic"], "data": event["data"]}
        await self.send(text_data=json.dumps(frame))


class UserSocket(AsyncJsonWebsocketConsumer):
    """All of one user's sockets."""

    async def connect(self) -> None:
        if not self.scope["user"].is_authenticated:
            await self.close(code=4401)
            return
        self.group = f"user.{self.scope['user'].pk}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        if hasattr(self, "group"):
            await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive_json(self, content: Any) -> None:
        await self.channel_layer.group_send(self.group, {"type": "user.echo", "message": content})

    async def user_echo(self, event: dict[str, Any]) -> None:
        await self.send_json({"echo": event["message"]})
