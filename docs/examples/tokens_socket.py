from realtime import WebSocketConsumer, require


class Orders(WebSocketConsumer):
    is_scoped = True

    async def authorize(self):
        await require(self.user, "orders.all", "read")

    async def prepare(self):
        await self.subscribe("orders.all")
