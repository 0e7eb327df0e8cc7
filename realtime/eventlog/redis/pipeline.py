"""A connection to Redis on which a command does not wait for the answers of those before it."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, ResponseError

from ...utils.aio import cancel_and_wait, spawn

try:
    import hiredis
except ImportError:  # redis-py does without it too
    hiredis = None  # type: ignore[assignment]

Value: TypeAlias = str | bytes | int | float


class Pipeline:
    """Commands in the order in which they come, and the answers in the same one.

    redis-py's pool has a connection wait for each answer, and each command takes two tasks, three
    timers and a lock there. Here one task reads for all that wait.
    """

    def __init__(self, connection: AbstractConnection, answer_seconds: float) -> None:
        self._connection = connection  # connected, and without time limits of its own
        self._seconds = answer_seconds
        self._answers: deque[asyncio.Future[Any]] = deque()
        self._reading = spawn(self._read())

    @property
    def is_closed(self) -> bool:
        """Return whether nothing can be sent any more."""
        return not self._connection.is_connected

    async def call(self, command: Sequence[Value]) -> Any:
        """Return the answer to a command; raise what Redis, or the connection, has said.

        Where an answer does not come in time the connection ends, and with it all that wait.
        """
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._answers.append(answer)
        timer = loop.call_later(self._seconds, self._reading.cancel)
        try:
            try:
                # It waits for the server too, where the socket has no room for all of the command.
                async with asyncio.timeout(self._seconds):
                    await self._connection.send_packed_command(
                        self._pack(command), check_health=False
                    )
            except BaseException:
                # An answer that will not come: those that do would be given to the wrong calls.
                await self._connection.disconnect(nowait=True)
                self._reading.cancel()
                raise
            return await answer
        finally:
            timer.cancel()
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # seen, so that asyncio does not report it

    async def aclose(self) -> None:
        """Close the connection."""
        await cancel_and_wait(self._reading)

    def _pack(self, command: Sequence[Value]) -> bytes:
        # In one piece: an append has so many words that pieces cost more than it.
        if hiredis is not None:
            pack: Any = hiredis.pack_command
            return bytes(pack(tuple(command)))
        return b"".join(self._connection.pack_command(*command))

    async def _read(self) -> None:
        try:
            while True:
                try:
                    self._answer(await self._connection.read_response())
                except ResponseError as error:
                    self._answer(error)
        except Exception as error:
            # Of the first alone this may be an answer: what came behind it may have been done.
            self._answer(error)
        finally:
            while self._answers:
                self._answer(ConnectionError("The connection ended, or was silent for too long"))
            await self._connection.disconnect(nowait=True)

    def _answer(self, said: Any) -> None:
        """Give the first that waits what was said; it may have been cancelled."""
        answer = self._answers.popleft() if self._answers else None
        if answer is None or answer.done():
            return
        if isinstance(said, Exception):
            answer.set_exception(said)
        else:
            answer.set_result(said)
