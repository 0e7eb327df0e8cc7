"""`realtime.eventlog.redis.pipeline`: each call gets its own answer, or none that is another's."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Connection, ConnectionPool
from redis.exceptions import BusyLoadingError, ConnectionError, ResponseError

from realtime.eventlog.redis.pipeline import Pipeline

from ...support.servers import Valkey


@pytest.fixture
async def pipeline(shared_valkey: Valkey) -> AsyncIterator[Pipeline]:
    pool = ConnectionPool.from_url(shared_valkey.url, socket_timeout=None, protocol=2)
    connection = pool.make_connection()
    await connection.connect()
    pipeline = Pipeline(connection, 5.0)
    yield pipeline
    await pipeline.aclose()
    assert pipeline.is_closed


async def test_a_command_waits_for_no_answer_and_answers_keep_their_order(pipeline):
    blocked = asyncio.create_task(pipeline.call(["BLPOP", "pipeline.list", "0.2"]))
    await asyncio.sleep(0)
    answers = [asyncio.create_task(pipeline.call(["ECHO", str(n)])) for n in range(20)]
    assert await answers[-1] == b"19"
    assert blocked.done()
    assert await blocked is None
    assert await asyncio.gather(*answers) == [str(n).encode() for n in range(20)]


async def test_what_is_refused_is_refused_alone(pipeline):
    first, refused, last = await asyncio.gather(
        *(pipeline.call([*command]) for command in (("ECHO", "1"), ("NONSENSE",), ("ECHO", "2"))),
        return_exceptions=True,
    )
    assert (first, last) == (b"1", b"2")
    assert isinstance(refused, ResponseError)
    assert not pipeline.is_closed


async def test_who_leaves_takes_no_answer_of_another(pipeline):
    leaving = asyncio.create_task(pipeline.call(["ECHO", "of the one that leaves"]))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await pipeline.call(["ECHO", "mine"]) == b"mine"


async def test_a_silent_connection_ends_for_all_that_wait(pipeline):
    pipeline._seconds = 0.2
    blocked = asyncio.create_task(pipeline.call(["BLPOP", "pipeline.list", "0"]))
    await asyncio.sleep(0)
    pipeline._seconds = 5.0
    answers = await asyncio.gather(blocked, pipeline.call(["PING"]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError, ConnectionError]
    assert pipeline.is_closed


async def test_a_command_that_nobody_reads_ends_in_time():
    """It has more bytes than the sockets have room for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {"socket_timeout": None, "protocol": 2, "driver_info": None}
        connection = Connection(port=silent.getsockname()[1], **options)
        await connection.connect()
        pipeline = Pipeline(connection, 0.2)
        call = asyncio.create_task(pipeline.call(["SET", "large", b"x" * 16_000_000]))
        await asyncio.wait([call], timeout=5)
        # The limits of writing and of the answer end together; a caller takes both for no answer.
        assert isinstance(call.exception(), (TimeoutError, ConnectionError))
        assert pipeline.is_closed


async def test_after_a_command_that_could_not_be_written_there_is_no_other(pipeline, monkeypatch):
    async def failing(*arguments: object, **options: object) -> None:
        raise TypeError("'NoneType' object is not callable")

    before = asyncio.create_task(pipeline.call(["BLPOP", "pipeline.list", "0.1"]))
    await asyncio.sleep(0)
    monkeypatch.setattr(pipeline._connection, "send_packed_command", failing)
    with pytest.raises(TypeError):
        await pipeline.call(["PING"])
    assert pipeline.is_closed
    with pytest.raises(ConnectionError):
        await before


async def test_what_a_server_says_that_ends_the_connection_is_of_the_first_alone():
    """The others came behind it, and may have been done."""

    class Loading:
        is_connected = True
        has_two = asyncio.Event()

        async def send_packed_command(self, command: bytes, check_health: bool) -> None:
            if b"second" in command:
                self.has_two.set()

        async def read_response(self) -> object:
            await self.has_two.wait()
            raise BusyLoadingError("LOADING")

        async def disconnect(self, nowait: bool) -> None:
            self.is_connected = False

        def pack_command(self, *words: str) -> list[bytes]:
            return [word.encode() for word in words]

    pipeline = Pipeline(Loading(), 5.0)
    answers = await asyncio.gather(
        pipeline.call(["first"]), pipeline.call(["second"]), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [BusyLoadingError, ConnectionError]
    await pipeline.aclose()
