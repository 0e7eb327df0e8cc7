"""`realtime.delivery.bus.nats`: what is NATS' own; test_servers has what all buses do."""

import asyncio
import logging
from typing import Any

import pytest
from django.test import override_settings

from realtime.delivery.bus import nats
from realtime.delivery.bus.base import MISSED
from realtime.delivery.bus.nats import NatsBus, NatsConnection, to_subject
from realtime.events.event import Event

from ...support.bus_servers import NATS_BINARY, NO_NATS, NatsServer
from ...support.buses import LOGGER, QUICK, cursor, listening, send, tell_processes_apart
from ...support.hubs import turns
from ...support.servers import certificate, free_port

pytestmark = pytest.mark.skipif(NATS_BINARY is None, reason=NO_NATS)

LOGIN = """
authorization {
  users = [
    { user: "site", password: "se/s@me,", permissions: {
        publish: ["realtime.>"], subscribe: ["realtime.room%2E*", "realtime.room%2Ea"] } }
  ]
}
"""


def settings_of(*servers: NatsServer, **more: Any) -> dict[str, Any]:
    url = ",".join(server.url for server in servers)
    return {"NATS_URL": url, **QUICK, **more}


@pytest.fixture(autouse=True)
def _apart(monkeypatch):
    tell_processes_apart(monkeypatch)


@pytest.mark.parametrize(
    ("topic", "subject"),
    [
        ("room", "realtime.room"),
        ("a.b", "realtime.a%2Eb"),
        ("*", "realtime.%2A"),
        (">", "realtime.%3E"),
        ("a b\r\n", "realtime.a%20b%0D%0A"),
        ("a%2Eb", "realtime.a%252Eb"),
    ],
)
def test_a_topic_is_one_token_of_a_subject(topic, subject):
    assert to_subject(topic) == subject


async def test_what_is_over_the_server_s_limit_goes_as_position_only():
    server = NatsServer(config="max_payload: 2000")
    try:
        async with listening(NatsBus, settings_of(server), "room.a") as (bus, heard):
            elsewhere = NatsBus(LOGGER)
            large = Event("room.a", "message", f'"{"x" * 3_000}"', "abcd1234", 7)
            assert await send(elsewhere, large)
            assert await heard.get() == ("room.a", MISSED)
            assert await bus.send("room.a", [large])
            assert await send(elsewhere, cursor("room.a"))
            assert await heard.get() == ("room.a", [cursor("room.a")])
            assert not bus.is_down
    finally:
        server.stop()


async def test_a_password_is_taken_from_the_url_and_in_no_log(caplog):
    caplog.set_level(logging.DEBUG)
    server = NatsServer(config=LOGIN, login="site:se%2Fs%40me%2C@")
    try:
        async with listening(NatsBus, settings_of(server), "room.a") as (bus, heard):
            assert await send(NatsBus(LOGGER), cursor("room.a"))
            assert await heard.get() == ("room.a", [cursor("room.a")])
            server.kill()
            while not bus.is_down:
                await asyncio.sleep(0.01)
        assert "has no connection" in caplog.text
        caplog.clear()
        server.start()
        wrong = settings_of(server)["NATS_URL"].replace("site:", "nobody:")
        with override_settings(REALTIME=settings_of(server, NATS_URL=wrong)):
            assert not await NatsBus(LOGGER).send("room.a", [cursor("room.a")])
        assert "Authorization Violation" in caplog.text
        assert "se%2F" not in caplog.text
        assert "se/s" not in caplog.text
    finally:
        server.stop()


async def test_who_is_stopped_while_something_is_sent_does_not_go_on():
    server = NatsServer()
    try:
        with override_settings(REALTIME=settings_of(server)):
            connection = NatsConnection()
            await connection.open()
            confirming = asyncio.create_task(connection.confirm())
            await asyncio.sleep(0)  # nats-py waits until it is written
            confirming.cancel()
            await asyncio.wait([confirming])
            await connection.close()
        assert confirming.cancelled()
    finally:
        server.stop()


@pytest.mark.parametrize("is_end", [False, True], ids=["", "of all tasks"])
@pytest.mark.parametrize("count", range(4))
async def test_to_close_again_ends_what_a_cancellation_has_left_behind(count, is_end):
    tasks = asyncio.all_tasks()
    server = NatsServer()
    try:
        with override_settings(REALTIME=settings_of(server, ANNOUNCE_TIMEOUT_SECONDS=0.2)):
            connection = NatsConnection()
            await connection.open()
            server.suspend()
            connection.client._transport.write(bytes(50_000_000))  # which nobody takes
            closing = asyncio.create_task(connection.close())
            await turns(count)
            for task in asyncio.all_tasks() - tasks if is_end else [closing]:
                task.cancel()
            await asyncio.wait([closing])
            await connection.close()
            await turns()
            assert asyncio.all_tasks() == tasks
            assert connection.client.is_closed
    finally:
        server.stop()


async def test_a_sender_is_not_cancelled_where_the_connection_is_given_up():
    """As by another that had no answer in time, while the server takes nothing."""
    server = NatsServer()
    try:
        with override_settings(REALTIME=settings_of(server, ANNOUNCE_TIMEOUT_SECONDS=60)):
            connection = NatsConnection()
            await connection.open()
            server.suspend()
            confirming = asyncio.create_task(connection.confirm())
            await turns()
        with override_settings(REALTIME=settings_of(server, ANNOUNCE_TIMEOUT_SECONDS=0.2)):
            connection.client._transport.write(bytes(50_000_000))
            await connection.close()
            with pytest.raises(ConnectionError, match="closed"):
                await confirming
    finally:
        server.stop()


async def test_a_topic_that_the_server_s_permissions_refuse_is_said(caplog):
    server = NatsServer(config=LOGIN, login="site:se%2Fs%40me%2C@")
    try:
        with override_settings(REALTIME=settings_of(server)):
            bus = NatsBus(LOGGER)
            bus.start(lambda topic, message: None)
            bus.join(["user.1"])
            async with asyncio.timeout(20):
                while not bus.is_down:
                    await asyncio.sleep(0.01)
            await bus.stop()
        assert "permissions violation for subscription" in caplog.text
        assert caplog.text.count("\n") == 1
    finally:
        server.stop()


async def test_tls_is_named_by_the_url(tmp_path, monkeypatch):
    certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", f"{tmp_path}/cert.pem")  # whom OpenSSL trusts
    tls = f'tls {{ cert_file: "{tmp_path}/cert.pem", key_file: "{tmp_path}/key.pem" }}'
    server = NatsServer(config=tls)
    try:
        url = server.url.replace("nats:", "tls:")
        async with listening(NatsBus, settings_of(server, NATS_URL=url), "room.a") as (_, heard):
            assert await send(NatsBus(LOGGER), cursor("room.a"))
            assert await heard.get() == ("room.a", [cursor("room.a")])
        monkeypatch.delenv("SSL_CERT_FILE")
        with override_settings(REALTIME=settings_of(server, NATS_URL=url)):
            assert not await NatsBus(LOGGER).send("room.a", [cursor("room.a")])
    finally:
        server.stop()


async def test_of_several_servers_one_that_runs_is_taken():
    server, gone = NatsServer(), free_port()
    try:
        url = f"nats://127.0.0.1:{gone},{server.url},nats://127.0.0.1:{gone}"
        async with listening(NatsBus, settings_of(server, NATS_URL=url), "room.a") as (_, heard):
            for _ in range(3):
                await nats._senders.get().aclose()
                assert await send(NatsBus(LOGGER), cursor("room.a"))
                assert await heard.get() == ("room.a", [cursor("room.a")])
    finally:
        server.stop()


async def test_a_slow_consumer_is_told_what_it_missed():
    """The server ends its connection: what was sent to it meanwhile is lost."""
    server = NatsServer(config='write_deadline: "300ms"\nmax_pending: 200000\nmax_payload: 100000')
    try:
        async with listening(NatsBus, settings_of(server), "room.a") as (bus, heard):
            elsewhere, event = NatsBus(LOGGER), cursor("room.a", f'"{"x" * 30_000}"')
            # As if this process were too slow: nothing is read.
            bus._connection.client._transport._io_reader._transport.pause_reading()
            while not bus.is_down:
                await send(elsewhere, event)
            while await heard.get() != ("room.a", MISSED):
                pass
            assert await send(elsewhere, cursor("room.a"))
            while await heard.get() != ("room.a", [cursor("room.a")]):
                pass
    finally:
        server.stop()


async def test_a_topic_is_joined_when_the_server_knows_it():
    """The PING that proves it comes after what it is to prove."""
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload": 1000000}\r\n')
        while line := await reader.readline():
            lines.append(line)
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        topics = [f"room.{number}" for number in range(100)]
        async with listening(NatsBus, {"NATS_URL": url}, *topics):
            subscribed = [n for n, line in enumerate(lines) if line.startswith(b"SUB ")]
            assert len(subscribed) == 100
            assert b"PING\r\n" in lines[subscribed[-1] :]
        elsewhere = NatsBus(LOGGER)
        with override_settings(REALTIME={"NATS_URL": url, **QUICK}):
            assert await elsewhere.send("room.a", [cursor("room.a")])
            published = next(n for n, line in enumerate(lines) if line.startswith(b"PUB "))
            assert b"PING\r\n" in lines[published:]
            await nats._senders.get().aclose()


async def test_what_waits_is_not_written_to_a_connection_that_has_failed(monkeypatch):
    def closed(data: object) -> None:
        raise RuntimeError("the handler is closed")

    failures: list[bool] = []
    server = NatsServer()
    try:
        with override_settings(REALTIME=settings_of(server)):
            connection = NatsConnection(on_failure=lambda: failures.append(True))
            await connection.open()
            client = connection.client
            monkeypatch.setattr(client._transport, "writelines", closed)
            client._pending, client._pending_data_size = [b"PING\r\n"], 6
            await client._process_op_err(ConnectionResetError())
            assert failures == [True]
            await connection.close()
    finally:
        server.stop()
