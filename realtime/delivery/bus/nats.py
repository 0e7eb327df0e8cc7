"""The bus over NATS: a topic is a subject of core NATS, which delivers at most once.

Not JetStream: the log is where it is, and a stream's sequence is no topic's.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from django.core.checks import CheckMessage, Error
from nats import errors
from nats.aio.client import Client
from nats.protocol.command import sub_cmd, unsub_cmd

from ...conf import settings
from ...utils.aio import PerLoop, cancel_and_wait, spawn
from .base import Message
from .connected import ConnectedBus, opened
from .envelope import encode

PREFIX: Final = "realtime."
PONG_SECONDS: Final = 3_600
CLOSE_SECONDS: Final = 0.1  # that nats-py gets when it has swallowed a cancellation


class DirectClient(Client):
    """Hands on what comes as it is read.

    nats-py puts it into queues, one for each subscription, of 4 KiB while idle. Here what is not
    read fast enough waits in the socket, until the server ends the connection of such a slow
    consumer: that is noticed, as any end is.
    """

    def __init__(self, on_data: Callable[[bytes], None]) -> None:
        super().__init__()
        self._on_data = on_data
        self.count = 0  # of messages that have come

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        self.count += 1
        self._on_data(data)
        await asyncio.sleep(0)  # or a flood would keep the loop from doing anything else

    async def subscribe_to(self, subject: str) -> int:
        """Subscribe, and return the number by which the server knows the subscription."""
        self._sid += 1
        await self._send_command(sub_cmd(subject, "", self._sid))
        return self._sid

    async def unsubscribe_from(self, number: int) -> None:
        """End a subscription."""
        await self._send_command(unsub_cmd(number, 0))

    async def send_pending(self) -> None:
        """Have what waits go out: nats-py's PING overtakes it, and its PONG would prove nothing."""
        await self._flush_pending(force_flush=True)

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        flushed = await super()._flush_pending(force_flush)
        if task and task.cancelling() > before and not self.is_closed:
            raise asyncio.CancelledError  # nats-py swallows it: the task would go on
        return flushed

    async def _process_op_err(self, e: Exception) -> None:
        self.discard_pending()  # nats-py would write it to the connection that has failed
        await super()._process_op_err(e)

    def discard_pending(self) -> None:
        """Forget what is to be sent; to close would wait for a server that takes it."""
        self._pending.clear()
        self._pending_data_size = 0


class NatsConnection:
    """A connection that fails for good: nats-py's own way back would not say what was missed."""

    def __init__(
        self,
        on_data: Callable[[bytes], None] = lambda data: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_failure = on_failure
        self._error: Exception | None = None  # the last that nats-py has told
        self._failure = asyncio.get_running_loop().create_future()
        self._pongs: set[asyncio.Task[float]] = set()  # that are waited for
        self._closing: asyncio.Task[None] | None = None
        self.client = DirectClient(on_data)

    @property
    def is_open(self) -> bool:
        """Return whether it has not failed since it was opened."""
        return self.client.is_connected and not self._failure.done()

    async def open(self) -> None:
        """Connect to one of the servers that `NATS_URL` names."""
        urls = settings.NATS_URL.split(",")
        try:
            await self.client.connect(
                urls,
                name="realtime",
                no_echo=True,
                allow_reconnect=False,
                max_reconnect_attempts=1,  # of each server, if the first does not answer
                reconnect_time_wait=0,
                connect_timeout=settings.ANNOUNCE_TIMEOUT_SECONDS,  # type: ignore[arg-type]
                flush_timeout=settings.ANNOUNCE_TIMEOUT_SECONDS,
                error_cb=self._note_error,
                closed_cb=self._note_closed,
                **_credentials(urls[0]) | settings.NATS_OPTIONS,
            )
        except errors.NoServersError as error:
            raise self._error or error from None

    async def confirm(self) -> None:
        """Wait until the server has done all that was asked before, as long as anything comes."""
        await self.client.send_pending()
        pong = spawn(self.client.rtt(PONG_SECONDS))
        self._pongs.add(pong)
        is_answered = False
        while not is_answered:
            heard = self.client.count
            await asyncio.wait(
                [pong, self._failure],
                timeout=settings.ANNOUNCE_TIMEOUT_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._failure.done():
                raise self._failure.result()
            is_answered = pong.done()
            if not is_answered and heard == self.client.count:
                raise TimeoutError(f"No answer within {settings.ANNOUNCE_TIMEOUT_SECONDS} s")
        self._pongs.discard(pong)
        await pong

    async def publish(self, topic: str, message: Message) -> None:
        """Send on the topic's subject, without what the server would refuse as too large."""
        await self.client.publish(
            to_subject(topic), encode(topic, message, self.client.max_payload)
        )

    async def close(self) -> None:
        """Close it, and wait no longer than for a server that answers."""
        self.client.discard_pending()
        if self._closing is None or self._closing.cancelled():
            self._closing = spawn(self.client.close())
        await asyncio.wait([self._closing], timeout=settings.ANNOUNCE_TIMEOUT_SECONDS)
        while not self._closing.done():
            self._closing.cancel()
            await asyncio.wait([self._closing], timeout=CLOSE_SECONDS)
        await self._note_closed()  # nats-py has not, if it was cancelled
        # Not before: a PONG for one that has been cancelled would end nats-py's reading.
        await cancel_and_wait(self._closing, *self._pongs)

    async def _note_error(self, error: Exception) -> None:
        self._error = error
        if type(error) is errors.Error and "permissions violation" in str(error).lower():
            self._fail(error)

    async def _note_closed(self) -> None:
        self._fail(self._error or ConnectionError("The server has closed the connection"))

    def _fail(self, error: Exception) -> None:
        if not self._failure.done():
            self._failure.set_result(error)
            self._on_failure()


class NatsBus(ConnectedBus):
    """Subscribes to a subject a topic, on one connection."""

    name = "NATS bus"
    echoes_to_sender = False

    @classmethod
    def check(cls) -> list[CheckMessage]:
        """Return what is missing."""
        if settings.NATS_URL:
            return []
        message = "REALTIME['BUS'] is 'nats', and NATS_URL names no server."
        hint = 'REALTIME["NATS_URL"] = "nats://user:password@host:4222"'
        return [Error(message, hint=hint, id="realtime.E020")]

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger)
        self._connection: NatsConnection | None = None

    async def _connect(self) -> None:
        self._subscriptions: dict[str, int] = {}
        self._connection = NatsConnection(self._deliver, self._is_due.set)
        await self._connection.open()

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _change_memberships(self, left: Sequence[str], joined: Sequence[str]) -> None:
        client = opened(self._connection).client
        for topic in left:
            await client.unsubscribe_from(self._subscriptions.pop(topic))
        for topic in joined:
            self._subscriptions[topic] = await client.subscribe_to(to_subject(topic))

    async def _confirm(self) -> None:
        await opened(self._connection).confirm()

    async def _send(self, topic: str, message: Message) -> None:
        if self.is_running:
            await opened(self._connection).publish(topic, message)
        else:
            await _senders.get().send(topic, message)


class NatsSender:
    """What a loop sends without listening, on a connection of its own."""

    def __init__(self) -> None:
        self._connection: NatsConnection | None = None
        self._opening = asyncio.Lock()

    async def send(self, topic: str, message: Message) -> None:
        """Send, and wait until the server has it; connect where there is no connection."""
        async with self._opening:
            if self._connection is None or not self._connection.is_open:
                await self.aclose()
                self._connection = NatsConnection()
                await self._connection.open()
        connection = self._connection
        try:
            await connection.publish(topic, message)
            await connection.confirm()
        except BaseException:
            if connection is self._connection:
                await self.aclose()
            raise

    async def aclose(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


_senders: Final = PerLoop(NatsSender, NatsSender.aclose)


def _credentials(url: str) -> dict[str, Any]:
    """Return what a URL says of us; nats-py would take `%40` in a password for three characters."""
    parts = urlsplit(url)
    if parts.username is None:
        return {}
    if parts.password is None:
        return {"token": unquote(parts.username)}
    return {"user": unquote(parts.username), "password": unquote(parts.password)}


def to_subject(topic: str) -> str:
    """Return the subject of a topic: one token, of characters that mean nothing to NATS."""
    return PREFIX + quote(topic, safe="").replace(".", "%2E")
