"""Row 6: what one of a user's sockets says reaches all of them, on every worker."""

from typing import Any

from realtime import Event, WebSocketConsumer, publish_now, user_topic


class UserSocket(WebSocketConsumer):
    """Every socket listens to `user.<pk>`; `realtime.send_to_user` reaches it too."""

    heartbeat = True

    async def prepare(self) -> None:
        await self.subscribe(user_topic(self.user.pk))

    async def received(self, content: Any) -> None:
        await publish_now(user_topic(self.user.pk), {"echo": content})

    async def event(self, event: Event) -> None:
        await self.send_text(event.data)
