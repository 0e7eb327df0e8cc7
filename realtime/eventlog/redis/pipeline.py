"""A connection to Redis on which a command does not wait for the answers of those before it."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    InvalidResponse,
    ReadOnlyError,
)

from ...utils.aio import spawn

Value: TypeAlias = str | bytes | int | float

INCOMPLETE: Final = object()


class Pipeline(asyncio.Protocol):
    """Commands in the order in which they come, and the answers in the same one.

    redis-py connects: it knows passwords, TLS and Sentinels. From then on its transport is ours:
    redis-py waits for each answer, with two tasks, three timers and a lock for each command.
    """

    def __init__(self, connection: AbstractConnection, answer_seconds: float) -> None:
        self._connection = connection  # connected, and closed by us: it warns where it is not
        self._seconds = answer_seconds
        self._loop = asyncio.get_running_loop()
        self._answers: deque[tuple[asyncio.Future[Any], float]] = deque()  # and until when
        self._timer: asyncio.TimerHandle | None = None  # while some wait
        parse_error: Any = DefaultParser.parse_error
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=parse_error, notEnoughData=INCOMPLETE
        )
        self._is_left = False  # for a new connection, or because this one has ended
        self._has_ended = False
        stream: Any = connection
        self._transport: asyncio.Transport = stream._writer.transport  # noqa: SLF001 - no other way
        self._transport.set_protocol(self)
        if stream._reader.at_eof():  # noqa: SLF001 - closed right behind the handshake
            self._end()

    @property
    def is_closed(self) -> bool:
        """Return whether nothing can be sent any more."""
        return self._is_left or self._transport.is_closing()

    async def call(self, command: Sequence[Value]) -> Any:
        """Return the answer to a command; raise what Redis, or the connection, has said.

        Where an answer does not come in time the connection ends, and with it all that wait.
        """
        if self.is_closed:
            raise ConnectionError("The connection has ended")
        # In one piece: an append has so many words that pieces cost more than it.
        words: Any = tuple(command)
        packed = hiredis.pack_command(words)
        answer = self._loop.create_future()
        try:
            self._answers.append((answer, self._loop.time() + self._seconds))
            if self._timer is None:
                self._timer = self._loop.call_later(self._seconds, self._check_time)
            self._transport.write(packed)
        except BaseException:  # such as no memory
            answer.cancel()
            self._end()  # the answers that come would be given to the wrong calls
            raise
        try:
            return await answer
        finally:
            del answer  # or it is alive as long as its own exception, which holds this frame

    async def aclose(self) -> None:
        """Close the connection."""
        self._end()
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Give those that wait what Redis has answered."""
        self._reader.feed(data)
        try:
            while (said := self._reader.gets()) is not INCOMPLETE:
                self._answer(said)
        except InvalidResponse:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell those that wait: what they sent may have been done."""
        self._has_ended = True
        self._end()
        if self._connection.is_connected:  # in the eyes of redis-py, which was not told
            spawn(self._connection.disconnect(nowait=True))

    def _answer(self, said: Any) -> None:
        """Give the first that waits what was said; it may have been cancelled."""
        if self._answers:
            answer, _ = self._answers.popleft()
            if answer.done():
                pass
            elif isinstance(said, Exception):
                answer.set_exception(said)
            else:
                answer.set_result(said)
        if isinstance(said, BusyLoadingError | ReadOnlyError):
            # It was replaced, or is a replica now: the next call looks for the server anew. What
            # was sent already gets its own answers.
            self._is_left = True
        if self._is_left and not self._answers:
            self._end()

    def _check_time(self) -> None:
        self._timer = None
        if not self._answers:
            return
        rest = self._answers[0][1] - self._loop.time()
        if rest <= 0:
            self._end()
        else:
            self._timer = self._loop.call_later(rest, self._check_time)

    def _end(self) -> None:
        self._is_left = True
        if not self._has_ended:
            self._has_ended = True
            self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._answers:
            self._answer(ConnectionError("The connection ended, or was silent for too long"))
