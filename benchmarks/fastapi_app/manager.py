"""The chapter's connection manager: local sockets by topic, one Redis channel between workers."""

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from redis.exceptions import RedisError

from .broker import client
from .database import User
from .events import Event
from .history import CHANNEL

KEEPALIVE = b": keepalive\n\n"
KEEPALIVE_SECONDS = 15.0
QUEUE = 1_000  # events that wait for a slow client; with more its stream or its socket ends
STALLED_SECONDS = 0.01  # then a socket is left to a task of its own
RETRY_SECONDS = 1.0
TRY_AGAIN_LATER = 1013

Queue = asyncio.Queue[Event | bytes | None]  # None is the end
Who = tuple[int, str] | None

logger = logging.getLogger(__name__)


class Listener:
    """A socket's place in a topic."""

    __slots__ = ("after", "form", "held", "user")

    def __init__(self, user: User | None, form: str) -> None:
        self.user = user
        self.form = form  # of an event, as this socket gets it
        self.after = 0  # the id up to which the socket has been served from the history
        self.held: deque[Event] | None = None  # what waits while it is, or while it is slow


class Manager:
    """What this worker serves."""

    def __init__(self) -> None:
        self.sockets: defaultdict[str, dict[WebSocket, Listener]] = defaultdict(dict)
        self.users: defaultdict[str, dict[WebSocket, Listener]] = defaultdict(dict)
        self.queues: defaultdict[str, dict[Queue, User | None]] = defaultdict(dict)
        self.changed: set[str] = set()  # topics that somebody has joined or left
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen to the other workers, and to ourselves."""
        pubsub = client.pubsub()
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

    def join(
        self, topic: str, socket: WebSocket, user: User | None, *, hold: bool = False
    ) -> Listener:
        """Send a topic's events to a socket; with `hold`, not before `release`."""
        listener = self.sockets[topic][socket] = Listener(user, "frame")
        listener.held = deque() if hold else None
        self.changed.add(topic)
        return listener

    async def release(self, listener: Listener, socket: WebSocket) -> None:
        """Send what was held, but for what the history had, and from now on what comes."""
        while listener.held:  # which grows while we send
            event = listener.held.popleft()
            if event.id > listener.after:
                await socket.send_text(getattr(event, listener.form))
        listener.held = None

    def leave(self, topic: str, socket: WebSocket) -> None:
        """Send no more of this topic."""
        forget(self.sockets, topic, socket)
        self.changed.add(topic)

    @contextmanager
    def joined_by_user(self, topic: str, socket: WebSocket, user: User) -> Iterator[None]:
        """Send the data of what is published to a user's own topic, for the length of the block."""
        self.users[topic][socket] = Listener(user, "text")
        try:
            yield
        finally:
            forget(self.users, topic, socket)

    @contextmanager
    def queue(self, topics: list[str], user: User | None) -> Iterator[Queue]:
        """A queue of these topics' events, for the length of the block."""
        queue: Queue = asyncio.Queue(QUEUE)
        for topic in topics:
            self.queues[topic][queue] = user
        self.changed.update(topics)
        try:
            yield queue
        finally:
            for topic in topics:
                forget(self.queues, topic, queue)
            self.changed.update(topics)

    def end_streams(self) -> None:
        """End all streams, whose clients come back to another worker."""
        for queue in {queue for queues in self.queues.values() for queue in queues}:
            end(queue)

    def present(self, topic: str) -> Counter[Who]:
        """Who is connected to a topic on this worker, how often; None stands for nobody."""
        users = [listener.user for listener in self.sockets.get(topic, {}).values()]
        users += self.queues.get(topic, {}).values()
        return Counter(user and (user.id, user.username) for user in users)

    async def _listen(self, pubsub: Any) -> None:
        while True:
            try:
                async for message in pubsub.listen():
                    if message["type"] == "message":
                        event_id, _, body = message["data"].partition(b" ")
                        await self.deliver(Event.parse(int(event_id), body))
            except RedisError:
                logger.warning("Redis is away; events are missed until it is back.")
                await asyncio.sleep(RETRY_SECONDS)

    async def deliver(self, event: Event) -> None:
        """To this worker's own sockets and streams."""
        for queue in list(self.queues.get(event.topic, ())):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                end(queue)
        if listeners := self.sockets.get(event.topic):
            await self._send(listeners, event, event.frame)
        if listeners := self.users.get(event.topic):
            await self._send(listeners, event, event.text)

    async def _send(self, listeners: dict[WebSocket, Listener], event: Event, text: str) -> None:
        ready = []
        for socket, listener in list(listeners.items()):
            if listener.held is None:
                if event.id > listener.after:
                    ready.append(socket)
            elif len(listener.held) < QUEUE:
                listener.held.append(event)
            else:
                del listeners[socket]
                self._spawn(socket.close(TRY_AGAIN_LATER))
        # Measured: one after the other is faster than gather(), and the dict made once is faster
        # than send_text(), which makes it for each.
        message = {"type": "websocket.send", "text": text}
        left = iter(ready)
        while True:
            try:
                async with asyncio.timeout(STALLED_SECONDS):
                    for socket in left:
                        await socket.send(message)
                return
            except TimeoutError:  # cancelled where it waited for room, so nothing was sent
                if listener := listeners.get(socket):
                    listener.held = deque([event])
                    self._spawn(self.release(listener, socket))
            except Exception:  # gone
                listeners.pop(socket, None)

    def _spawn(self, sending: Coroutine[Any, Any, None]) -> None:
        """Send to one who is slow, while the others get theirs."""
        task = asyncio.create_task(quietly(sending))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _keep_alive(self) -> None:
        """One task for all streams: a timeout on each queue would cost a timer per event."""
        while True:
            await asyncio.sleep(KEEPALIVE_SECONDS)
            for queue in {queue for queues in self.queues.values() for queue in queues}:
                if queue.empty():
                    queue.put_nowait(KEEPALIVE)


def forget(registry: dict[str, dict[Any, Any]], topic: str, key: Any) -> None:
    """Take a connection out, and the topic with its last one."""
    if topic in registry:
        registry[topic].pop(key, None)
        if not registry[topic]:
            del registry[topic]


def end(queue: Queue) -> None:
    """End a stream that is too slow: its client comes back, and reads on from the history."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)


async def quietly(sending: Coroutine[Any, Any, None]) -> None:
    """Send to a socket that may be gone."""
    with suppress(WebSocketDisconnect, RuntimeError):
        await sending


manager = Manager()
