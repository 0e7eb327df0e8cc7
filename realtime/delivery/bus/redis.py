"""The bus over Redis or Valkey: a topic is a channel, on a cluster a sharded one (7.0 or later).

A server of a cluster brings what is published on its slots alone; with the channels of a single
server, each message would go to all of its nodes.
"""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from django.core.checks import CheckMessage, Error

from ...conf import settings
from ...utils.aio import PerLoop, cancel_and_wait, spawn
from .base import Message
from .connected import ConnectedBus, opened
from .envelope import encode
from .redis_servers import (
    Address,
    RedisServers,
    parse_urls,
    tag_of,
    to_channel,
    to_channel_of,
    to_topic,
)

MAX_BYTES: Final = 1_048_576  # of a message; Redis ends a subscriber that has 8 MB to come


class Listener:
    """A connection to one server, and the channels subscribed to on it.

    On bare connections: redis-py's `PubSub` connects anew by itself, and does not say that it
    has missed anything.
    """

    def __init__(
        self,
        servers: RedisServers,
        address: Address | None,
        echo: str,
        on_data: Callable[[bytes], None],
        on_change: Callable[[str | None], None],
    ) -> None:
        self._servers = servers
        self._connection = servers.connection(address)
        self._echo = echo  # a channel of its own, to hear what it sends
        self._on_data = on_data
        self._on_change = on_change
        self._kind = "S" if servers.is_cluster else ""
        self._leaving: set[bytes] = set()
        self._pings = self._pongs = self._echoes = 0
        self._count = 0  # of all that has come
        self._has_heard = asyncio.Event()
        self._failure: Exception | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and listen."""
        await self._connection.connect()  # type: ignore[no-untyped-call]
        self._reading = spawn(self._read())
        await self.subscribe([self._echo])

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Subscribe to channels; on a cluster, of one slot."""
        await self._connection.send_command(f"{self._kind}SUBSCRIBE", *channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Unsubscribe from channels; on a cluster, of one slot."""
        self._leaving.update(channel.encode() for channel in channels)
        await self._connection.send_command(f"{self._kind}UNSUBSCRIBE", *channels)

    async def confirm(self) -> None:
        """Wait until the server has done all that was asked, and has brought what is published.

        As long as anything comes; then raise.
        """
        self._pings += 1
        pings, echoes = self._pings, self._echoes
        async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
            await self._connection.send_command("PING", str(pings))
            await self._servers.publish(self._echo, b"")
        while self._pongs < pings or self._echoes == echoes:
            count = self._count
            self._has_heard.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
                    await self._has_heard.wait()
            if self._failure is not None:
                raise self._failure
            if count == self._count:
                raise TimeoutError(f"No answer within {settings.ANNOUNCE_TIMEOUT_SECONDS} s")
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Close the connection."""
        if self._reading is not None:
            await cancel_and_wait(self._reading)
        await self._connection.disconnect(nowait=True)

    async def _read(self) -> None:
        echo = self._echo.encode()
        try:
            while True:
                answer = await self._connection.read_response(disconnect_on_error=False)
                self._count += 1
                self._has_heard.set()
                kind, channel, *rest = answer
                if kind == b"pong":
                    self._pongs = int(channel)
                elif kind in (b"unsubscribe", b"sunsubscribe"):
                    self._note_unsubscribed(channel)
                elif kind in (b"message", b"smessage"):
                    if channel == echo:
                        self._echoes += 1
                    else:
                        self._on_data(rest[0])
                    # Or a flood would keep the loop from doing anything else.
                    await asyncio.sleep(0)
        except Exception as error:
            self._failure = error
            self._has_heard.set()
            self._on_change(None)

    def _note_unsubscribed(self, channel: bytes) -> None:
        if channel in self._leaving:
            self._leaving.discard(channel)
        elif channel == self._echo.encode():
            raise ConnectionError("The slot has been moved to another node")
        else:
            self._on_change(channel.decode())


class RedisBus(ConnectedBus):
    """Listens on one connection a server, and publishes on others."""

    name = "Redis bus"
    echoes_to_sender = True

    @classmethod
    def check(cls) -> list[CheckMessage]:
        """Return what is wrong with the URL."""
        try:
            parse_urls(settings.REDIS_BUS_URL)
        except ValueError as error:
            message = f"REALTIME['BUS'] is 'redis': {error}"
            hint = 'REALTIME["REDIS_BUS_URL"] = "redis://user:password@host:6379"'
            return [Error(message, hint=hint, id="realtime.E020")]
        return []

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger)
        self._servers: RedisServers | None = None
        self._listeners: dict[Address | None, Listener] = {}

    async def _connect(self) -> None:
        self._is_moved = False  # a slot, to another node than we know
        self._listeners = {}
        self._places: dict[str, Listener] = {}  # of channels
        self._servers = RedisServers()
        await self._servers.find()

    async def _disconnect(self) -> None:
        await asyncio.gather(*(each.close() for each in self._listeners.values()))
        if self._servers is not None:
            await self._servers.aclose()

    async def _change_memberships(self, left: Sequence[str], joined: Sequence[str]) -> None:
        if self._is_moved:
            self._is_moved = False
            await opened(self._servers).find()
        leaving: defaultdict[tuple[Listener, str], list[str]] = defaultdict(list)
        for channel in map(to_channel, left):
            if channel in self._places:  # else its server has ended it meanwhile
                leaving[self._places.pop(channel), self._together(channel)].append(channel)
        for (listener, _), channels in leaving.items():
            await listener.unsubscribe(channels)
        joining: defaultdict[tuple[Listener, str], list[str]] = defaultdict(list)
        for channel in map(to_channel, joined):
            self._places[channel] = await self._listener(channel)
            joining[self._places[channel], self._together(channel)].append(channel)
        for (listener, _), channels in joining.items():
            await listener.subscribe(channels)

    async def _confirm(self) -> None:
        await asyncio.gather(*(each.confirm() for each in self._listeners.values()))

    async def _send(self, topic: str, message: Message) -> None:
        servers = opened(self._servers) if self.is_running else _senders.get()
        await servers.publish(to_channel(topic), encode(topic, message, MAX_BYTES))

    async def _listener(self, channel: str) -> Listener:
        servers = opened(self._servers)
        address = servers.address_of(channel)
        if address not in self._listeners:
            echo = to_channel_of(tag_of(channel), f"echo.{secrets.token_hex(8)}")
            listener = Listener(servers, address, echo, self._deliver, self._note_change)
            self._listeners[address] = listener
            await listener.open()
        return self._listeners[address]

    def _together(self, channel: str) -> str:
        """Return what channels have in common that one command may name."""
        return tag_of(channel) if opened(self._servers).is_cluster else ""

    def _note_change(self, channel: str | None) -> None:
        """Take note of a channel that its server brings no more, or of a listener that failed."""
        if channel is not None:
            self._is_moved = True
            self._places.pop(channel, None)
            self._rejoin(to_topic(channel))
        self._is_due.set()


_senders: Final = PerLoop(RedisServers, RedisServers.aclose)
