"""Rows 1 and 2: accept, receive, send back; JSON, text and bytes."""

from typing import Any

from realtime import WebSocketConsumer


class Echo(WebSocketConsumer):
    """`{"echo": <what came>}`. Bad JSON gets an error frame, not a dead socket."""

    authentication = "optional"

    async def received(self, content: Any) -> None:
        await self.send_json({"echo": content})


class EchoText(WebSocketConsumer):
    """The same text."""

    authentication = "optional"
    accepts = "text"

    async def received(self, content: str) -> None:
        await self.send_text(content)


class EchoBytes(WebSocketConsumer):
    """The same bytes."""

    authentication = "optional"
    accepts = "bytes"

    async def received(self, content: bytes) -> None:
        await self.send_bytes(content)
