from realtime import WebSocketConsumer


class Orders(WebSocketConsumer):
    async def prepare(self):
        await self.subscribe(f"user.{self.user.pk}", None)

    async def received(self, content):
        await self.send_json({"seen": content})
