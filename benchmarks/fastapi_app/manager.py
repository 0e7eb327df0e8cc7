"""The chapter's connection manager: local sockets by topic, one Redis channel between workers."""

import asyncio
import logging
import os
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
import redis.asyncio as redis
from fastapi import WebSocket

CHANNEL = "events"
KEEPALIVE = b": keepalive\n\n"
KEEPALIVE_SECONDS = 15.0
KEPT = 1_000  # events per topic for those who reconnect
QUEUE = 1_000  # events that wait for a slow SSE client; more are dropped

logger = logging.getLogger(__name__)


@dataclass
class Event:
    """One event; its text is made once for all sockets."""

    topic: str
    id: str
    event: str
    data: Any

    @cached_property
    def text(self) -> str:
        """The WebSocket frame's text; on a user's own topic the data alone."""
        if self.topic.startswith("user."):
            return orjson.dumps(self.data).decode()
        frame = {
            "type": "event",
            "topic": self.topic,
            "id": self.id,
            "event": self.event,
            "data": self.data,
        }
        return orjson.dumps(frame).decode()

    @cached_property
    def chunk(self) -> bytes:
        """The same as a server-sent event."""
        name = "" if self.event == "message" else f"event: {self.event}\n"
        return f"{name}id: {self.id}\ndata: ".encode() + orjson.dumps(self.data) + b"\n\n"


class Manager:
    """What this worker serves."""

    def __init__(self) -> None:
        self.redis = redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
        self.sockets: defaultdict[str, set[WebSocket]] = defaultdict(set)
        self.queues: defaultdict[str, set[asyncio.Queue[bytes]]] = defaultdict(set)
        self.recent: defaultdict[str, deque[Event]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen to the other workers, and to ourselves."""
        pubsub = self.redis.pubsub()
        await pubsub.subscribe(CHANNEL)
        self._tasks = [
            asyncio.create_task(self._listen(pubsub)),
            asyncio.create_task(self._keep_alive()),
        ]

    async def stop(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.redis.aclose()

    async def publish(self, topic: str, data: Any, event: str = "message") -> str:
        """Send an event to all workers; its id."""
        event_id = f"{time.time_ns():x}"
        await self.redis.publish(CHANNEL, orjson.dumps([topic, event_id, event, data]))
        return event_id

    async def _listen(self, pubsub: Any) -> None:
        async for message in pubsub.listen():
            if message["type"] == "message":
                await self.deliver(Event(*orjson.loads(message["data"])))

    async def deliver(self, event: Event) -> None:
        """To this worker's own sockets and streams."""
        self.recent[event.topic].append(event)
        for queue in self.queues.get(event.topic, ()):
            try:
                queue.put_nowait(event.chunk)
            except asyncio.QueueFull:
                logger.warning("A slow stream loses an event of %s", event.topic)
        sockets = self.sockets.get(event.topic)
        if sockets:
            # Measured: one after the other is faster than gather(), and the dict made once is
            # faster than send_text(), which makes it for each.
            message = {"type": "websocket.send", "text": event.text}
            for socket in list(sockets):
                try:
                    await socket.send(message)
                except Exception:
                    sockets.discard(socket)

    async def _keep_alive(self) -> None:
        """One task for all streams: a timeout on each queue would cost a timer per event."""
        while True:
            await asyncio.sleep(KEEPALIVE_SECONDS)
            for queues in self.queues.values():
                for queue in queues:
                    if queue.empty():
                        queue.put_nowait(KEEPALIVE)


manager = Manager()
