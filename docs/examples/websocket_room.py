from django.urls import path

from realtime import NotAllowed, WebSocketConsumer, publish_now, require


class Room(WebSocketConsumer):
    @property
    def topic(self):
        return f"room.{self.scope['url_route']['kwargs']['name']}"

    async def authorize(self):
        await require(self.user, self.topic, "read")

    async def prepare(self):
        await self.subscribe(self.topic, "0")

    async def connected(self):
        await self.send_json({"hello": self.user.get_username()})

    async def received(self, content):
        if content == "bye":
            await self.close(4000, "Come again.")
        elif not self.user.is_staff:
            raise NotAllowed("The staff alone writes here.")
        else:
            await publish_now(self.topic, content)


websocket_urlpatterns = [path("ws/rooms/<slug:name>", Room.as_asgi())]
