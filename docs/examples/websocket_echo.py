from django.urls import path

from realtime import WebSocketConsumer


class Echo(WebSocketConsumer):
    async def received(self, content):
        await self.send_json({"echo": content})


websocket_urlpatterns = [path("ws/my-echo", Echo.as_asgi())]
