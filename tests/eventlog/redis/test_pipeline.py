"""`realtime.eventlog.redis.pipeline`: each call gets its own answer, or none that is another's."""

import asyncio
import gc
import socket
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.asyncio import Connection, ConnectionPool
from redis.exceptions import BusyLoadingError, ConnectionError, ReadOnlyError, ResponseError

from realtime.eventlog.redis.pipeline import Pipeline

from ...support.servers import Valkey, certificate


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
        assert isinstance(call.exception(), ConnectionError)
        assert pipeline.is_closed


async def test_what_can_not_be_sent_is_sent_to_nobody_else_either(pipeline):
    before = asyncio.create_task(pipeline.call(["BLPOP", "pipeline.list", "0.1"]))
    await asyncio.sleep(0)
    with pytest.raises(TypeError):
        await pipeline.call([None])
    assert await pipeline.call(["ECHO", "mine"]) == b"mine"
    assert await before is None


async def test_without_memory_to_send_there_is_no_answer_for_the_wrong_call(pipeline, monkeypatch):
    def no_memory(data: bytes) -> None:
        raise MemoryError

    class Transport:
        write = staticmethod(no_memory)
        abort = pipeline._transport.abort
        is_closing = pipeline._transport.is_closing

    before = asyncio.create_task(pipeline.call(["BLPOP", "pipeline.list", "0.1"]))
    await asyncio.sleep(0)
    monkeypatch.setattr(pipeline, "_transport", Transport)
    with pytest.raises(MemoryError):
        await pipeline.call(["ECHO", "1"])
    assert pipeline.is_closed
    with pytest.raises(ConnectionError):
        await before
    with pytest.raises(ConnectionError):
        await pipeline.call(["ECHO", "2"])


async def test_what_failed_is_freed_at_once(pipeline):
    gc.collect()
    gc.disable()
    try:
        try:
            await pipeline.call(["NONSENSE"])
        except ResponseError as error:
            failed = weakref.ref(error)
        await asyncio.sleep(0)  # the loop's turn holds it too
        assert failed() is None
    finally:
        gc.enable()


async def test_connection_that_was_closed_right_behind_the_handshake_has_ended():
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection(port=port, socket_timeout=None, protocol=2, driver_info=None)
        await connection.connect()
        async with asyncio.timeout(20):
            while not connection._reader.at_eof():
                await asyncio.sleep(0)
        pipeline = Pipeline(connection, 5.0)
        assert pipeline.is_closed
        await pipeline.aclose()


class Server:
    """Answers the first command it gets with some bytes, once it has got so many."""

    def __init__(self, answer: bytes, commands: int) -> None:
        self.answer, self.commands = answer, commands
        self.has_ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = b""
        with suppress(OSError):
            while data := await reader.read(1_000):
                seen += data
                if seen.count(b"ECHO") == self.commands:
                    writer.write(self.answer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        self.has_ended.set()

    async def ask(self) -> tuple[list[object], bool]:
        """Send the commands; return what is said to each, and whether the connection ended."""
        async with await asyncio.start_server(self, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            connection = Connection(port=port, socket_timeout=None, protocol=2, driver_info=None)
            await connection.connect()
            pipeline = Pipeline(connection, 0.5)
            calls = [pipeline.call(["ECHO", str(n)]) for n in range(self.commands)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            is_closed = pipeline.is_closed
            await pipeline.aclose()
            await self.has_ended.wait()
        return answers, is_closed


@pytest.mark.parametrize(
    ("said", "error"), [("LOADING", BusyLoadingError), ("READONLY", ReadOnlyError)]
)
async def test_a_server_that_is_not_the_one_any_more_is_left(said, error):
    """It has said so to the first: the others came behind it, and may have been done."""
    answers, is_closed = await Server(f"-{said} it is\r\n".encode(), 2).ask()
    assert [type(answer) for answer in answers] == [error, ConnectionError]
    assert is_closed


async def test_what_was_sent_to_it_already_gets_its_own_answers():
    answers, is_closed = await Server(b"-READONLY a\r\n-READONLY b\r\n:3\r\n", 3).ask()
    assert [type(answer) for answer in answers[:2]] == [ReadOnlyError] * 2
    assert answers[2] == 3
    assert is_closed


async def test_what_is_no_answer_at_all_ends_the_connection():
    answers, is_closed = await Server(b"$1\r\na\r\nHTTP/1.1 200 OK\r\n\r\n", 3).ask()
    assert [type(answer) for answer in answers] == [bytes, ConnectionError, ConnectionError]
    assert is_closed


async def test_an_answer_in_parts_is_one():
    answers, is_closed = await Server(b"$1\r\na\r\n*2\r\n:1\r\n-ERR no\r\n", 2).ask()
    assert answers[0] == b"a"
    assert answers[1][0] == 1
    assert not is_closed


async def test_an_answer_that_nobody_has_asked_for_is_given_to_nobody():
    answers, is_closed = await Server(b":1\r\n:2\r\n", 1).ask()
    assert (answers, is_closed) == ([1], False)


async def test_each_call_has_its_own_time(pipeline):
    """The timer of the first is not that of those which come later."""
    pipeline._seconds = 0.5
    assert await pipeline.call(["ECHO", "1"]) == b"1"
    await asyncio.sleep(0.3)
    assert await pipeline.call(["BLPOP", "pipeline.list", "0.4"]) is None  # past the first's
    assert not pipeline.is_closed
    with pytest.raises(ConnectionError):
        await pipeline.call(["BLPOP", "pipeline.list", "0"])


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_over_tls(shared_valkey: Valkey, tmp_path: Path, run: Any) -> None:
    certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    ended = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", shared_valkey.port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65_536):
                    target.write(data)
            for each in (ours, writer):
                each.close()
            with suppress(OSError):
                await target.wait_closed()

        await asyncio.gather(copy(reader, ours), copy(theirs, writer))
        ended.append(True)

    async def ask() -> None:
        async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/cert.pem"
            pool = ConnectionPool.from_url(url, socket_timeout=None, protocol=2)
            connection = pool.make_connection()
            await connection.connect()
            pipeline = Pipeline(connection, 5.0)
            large = b"x" * 300_000
            answers = await asyncio.gather(*(pipeline.call(["ECHO", large]) for _ in range(3)))
            assert answers == [large] * 3
            await pipeline.aclose()
            async with asyncio.timeout(20):
                while not ended:
                    await asyncio.sleep(0.01)

    run(ask())
