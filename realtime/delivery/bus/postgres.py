"""The bus over PostgreSQL: NOTIFY and LISTEN, on one connection of the process.

Notified is after the transaction that has stored the events: inside of it, a NOTIFY would make all
commits of the server wait for each other.
"""

import asyncio
import base64
import logging
import socket
import zlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from django.core.checks import CheckMessage, Error
from django.db import connections
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from ...conf import settings
from ...eventlog.publish_function import PUBLISHED
from ...eventlog.writer import alias
from ...utils.aio import spawn
from ...utils.batching import Batcher
from ...utils.threads import DATABASE
from .base import MISSED, Message
from .connected import ConnectedBus, opened
from .envelope import encode_parts

CHANNELS: Final = 64  # of the server, among which topics are spread by a hash
MAX_BYTES: Final = 5_997  # before base64: PostgreSQL refuses payloads of 8,000 bytes
NOTIFY: Final = (
    "SELECT pg_notify(channel, payload) FROM unnest(%s::text[], %s::text[]) AS t(channel, payload)"
)

LOST: Final = "The connection is lost"

OnNotify = Callable[[str, str], object]
Notification = tuple[str, str]  # channel and payload


class PostgresConnection:
    """Listens, and executes what it is asked to: one task does both, in turns."""

    def __init__(self, on_notify: OnNotify, on_failure: Callable[[], object]) -> None:
        self._on_notify = on_notify
        self._on_failure = on_failure
        self._calls: deque[tuple[str, Sequence[Any], asyncio.Future[None]]] = deque()
        self._is_due = asyncio.Event()  # there is a call, or something to read
        self.notify = Batcher(self._notify)

    async def open(self) -> None:
        """Connect to the database of the log, past any pooler that `NOTIFY_DATABASE_URL` names."""
        self._connection = await psycopg.AsyncConnection.connect(
            settings.NOTIFY_DATABASE_URL, **_parameters()
        )
        self._pgconn = self._connection.pgconn
        self._socket = self._pgconn.socket
        self._connection.add_notify_handler(self._receive)  # what comes while a call is executed
        self._work = spawn(self._serve())

    async def execute(self, query: str, parameters: Sequence[Any] = ()) -> None:
        """Execute a statement after those before it; raise what the database does."""
        if self._work.done():
            raise ConnectionError(LOST)
        done = asyncio.get_running_loop().create_future()
        self._calls.append((query, parameters, done))
        self._is_due.set()
        await done

    async def close(self) -> None:
        """Close the connection, without waiting for the server."""
        if not self._work.done():
            # As if the server had. A task that is cancelled in a call asks the server to cancel it
            # too, and waits for the answer.
            # Without another descriptor: where there is none left, this has to end all the same.
            own = socket.socket(fileno=self._socket)
            with suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)
            own.detach()
        try:
            await asyncio.wait([self._work])
        finally:  # also where this is cancelled; psycopg does not wait here
            await self._connection.close()

    async def _serve(self) -> None:
        try:
            while True:
                await self._wait()
                self._is_due.clear()
                self._read()
                while self._calls:
                    await self._call(*self._calls.popleft())
                await asyncio.sleep(0)  # or a flood would keep the loop from doing anything else
        except (psycopg.Error, OSError):
            self._on_failure()
        finally:
            for *_, done in self._calls:
                if not done.done():
                    done.set_exception(ConnectionError(LOST))

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self._is_due.set)
        try:
            await self._is_due.wait()
        finally:
            loop.remove_reader(self._socket)

    def _read(self) -> None:
        self._pgconn.consume_input()
        while (found := self._pgconn.notifies()) is not None:
            self._receive_payload(
                found.relname.decode(), found.extra.decode(errors="replace"), found.be_pid
            )

    async def _call(
        self, query: str, parameters: Sequence[Any], done: "asyncio.Future[None]"
    ) -> None:
        if done.done():  # nobody waits for it any more
            return
        try:
            await self._connection.execute(query.encode(), parameters or None)
        except psycopg.Error as error:
            if not done.done():
                done.set_exception(error)
            if self._connection.closed:
                raise
        else:
            if not done.done():
                done.set_result(None)

    async def _notify(self, notifications: Sequence[Notification]) -> Sequence[None]:
        await self.execute(NOTIFY, list(map(list, zip(*notifications, strict=True))))
        return [None] * len(notifications)

    def _receive(self, found: psycopg.Notify) -> None:
        self._receive_payload(found.channel, found.payload, found.pid)

    def _receive_payload(self, channel: str, payload: str, pid: int) -> None:
        if pid != self._pgconn.backend_pid:  # else it is one's own
            self._on_notify(channel, payload)


class PostgresBus(ConnectedBus):
    """Listens on the channels that its topics have by their hash."""

    name = "PostgreSQL bus"
    echoes_to_sender = True

    @classmethod
    def check(cls) -> list[CheckMessage]:
        if connections[alias()].vendor != "postgresql":
            message = (
                "REALTIME['BUS'] is 'postgres', and the event log's database is no PostgreSQL."
            )
            hint = "Set DATABASE_URL to a PostgreSQL, or BUS to 'channels'."
            return [Error(message, hint=hint, id="realtime.E018")]
        try:
            conninfo_to_dict(settings.NOTIFY_DATABASE_URL)
        except psycopg.ProgrammingError:  # which may say the password
            message = "REALTIME['NOTIFY_DATABASE_URL'] is no URL of a PostgreSQL."
            hint = "As 'postgresql://user:password@host:5432/name'."
            return [Error(message, hint=hint, id="realtime.E020")]
        return []

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger)
        self._connection: PostgresConnection | None = None

    async def _connect(self) -> None:
        self._listening: Counter[str] = Counter()  # how many topics each channel has
        connection = PostgresConnection(self._receive, self._is_due.set)
        await connection.open()
        self._connection = connection
        await connection.execute(f"LISTEN {PUBLISHED}")

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _change_memberships(self, left: Sequence[str], joined: Sequence[str]) -> None:
        before = +self._listening
        self._listening.subtract(map(channel_of, left))
        self._listening.update(map(channel_of, joined))
        after = +self._listening
        statements = [
            *(f"UNLISTEN {channel}" for channel in before.keys() - after.keys()),
            *(f"LISTEN {channel}" for channel in after.keys() - before.keys()),
        ]
        if statements:
            await opened(self._connection).execute(";".join(statements))

    async def _confirm(self) -> None:
        async with asyncio.timeout(settings.ANNOUNCE_TIMEOUT_SECONDS):
            await opened(self._connection).execute("SELECT")

    async def _send(self, topic: str, message: Message) -> None:
        channel = channel_of(topic)
        payloads = [
            base64.b64encode(part).decode() for part in encode_parts(topic, message, MAX_BYTES)
        ]
        if not self.is_running:
            await DATABASE.run(_notify, [channel] * len(payloads), payloads)
            return
        for payload in payloads:
            await opened(self._connection).notify((channel, payload))

    def _receive(self, channel: str, payload: str) -> None:
        if channel == PUBLISHED:
            # From SQL, and perhaps from anybody: it says no more than that the log is to be read.
            if payload in self._topics:
                self._on_message(payload, MISSED)
            return
        try:
            data = base64.b64decode(payload)
        except ValueError as error:
            self.dropped.add(error)
        else:
            self._deliver(data)


def channel_of(topic: str) -> str:
    """Return the channel on which a topic's messages go."""
    return f"realtime_{zlib.crc32(topic.encode()) % CHANNELS}"


def _parameters() -> dict[str, Any]:
    """Return those of libpq that Django connects with; where a URL has them, the rest."""
    named = {"application_name": "realtime bus", "autocommit": True}
    if settings.NOTIFY_DATABASE_URL:
        return named
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    parameters = connections[alias()].get_connection_params()
    return {name: value for name, value in parameters.items() if name in known} | named


def _notify(channels: list[str], payloads: list[str]) -> None:
    with connections[alias()].cursor() as cursor:
        cursor.execute(NOTIFY, [channels, payloads])
