"""Rows 1 to 6, and 9: sockets, who they belong to, and whether they live."""

import asyncio
import struct
from socket import SO_LINGER, SOL_SOCKET

from .background import Vigil
from .clients import (
    Socket,
    call,
    events_path,
    handshake,
    http,
    is_ok,
    listening,
    new_topic,
    publish,
    raw_websocket,
    refused,
    until,
    websocket,
    within,
)
from .contestants import Server, Site, User
from .outcomes import row, see

EVIL = "https://evil.example"


async def echoes(socket: Socket) -> None:
    """The socket lives and echoes JSON."""
    see(await socket.ask({"still": "here"}) == {"echo": {"still": "here"}}, "It no longer echoed.")


# -- row 1


@row(1, "JSON comes back as {'echo': ...}")
async def test_echo(here: Server) -> None:
    async with websocket(here, "/ws/echo") as socket:
        for value in ({"a": [1, None, "é"]}, [], "text", 0, None, False):
            see(await socket.ask(value) == {"echo": value}, "The echo was another one.")


@row(1, "Malformed JSON gets an error frame, and the socket lives")
async def test_malformed_json(here: Server) -> None:
    async with websocket(here, "/ws/echo") as socket:
        for malformed in ("{", "", "nonsense"):
            await socket.send_raw(malformed)
            answer = await socket.receive()
            see(answer.get("type") == "error", "The answer was no error frame.")
        await echoes(socket)


@row(1, "A client that crashes does not disturb the others")
async def test_crash(here: Server) -> None:
    async with websocket(here, "/ws/echo") as one:
        async with websocket(here, "/ws/echo") as other:
            await echoes(other)
            transport = other.connection.transport
            reset = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, reset)
            transport.abort()
        await echoes(one)


# -- row 2


@row(2, "Text comes back, empty and not ASCII too")
async def test_text(here: Server) -> None:
    async with websocket(here, "/ws/echo/text") as socket:
        for text in ("text", "", "é 你好 \0", "x" * 60_000):
            await socket.send_raw(text)
            see(await socket.receive_raw() == text, "Another text came back.")


@row(2, "Bytes come back, none and all values too")
async def test_bytes(here: Server) -> None:
    async with websocket(here, "/ws/echo/bytes") as socket:
        for data in (b"bytes", b"", bytes(range(256)), b"x" * 60_000):
            await socket.send_raw(data)
            see(await socket.receive_raw() == data, "Other bytes came back.")


@row(2, "A binary frame where text is wanted gets an error, and the socket lives")
async def test_wrong_kind(here: Server) -> None:
    async with websocket(here, "/ws/echo/text") as socket:
        await socket.send_raw(b"bytes")
        see((await socket.receive()).get("type") == "error", "The answer was no error frame.")
        await socket.send_raw("text")
        see(await socket.receive_raw() == "text", "It no longer echoed.")


# -- rows 3 to 5


async def is_welcome(socket: Socket, username: str) -> None:
    """Greeted by name, then echoed."""
    welcome = await socket.receive()
    see(welcome == {"type": "welcome", "user": username}, "The first frame was no welcome.")
    await echoes(socket)


@row(3, "A valid token opens the socket")
async def test_query(here: Server) -> None:
    async with websocket(here, f"/ws/auth/query?token={here.users['alice'].token}") as socket:
        await is_welcome(socket, "alice")


@row(3, "A wrong or missing token is refused before the socket opens")
async def test_query_refused(here: Server) -> None:
    await test_query(here)
    for path in ("/ws/auth/query", "/ws/auth/query?token=", "/ws/auth/query?token=wrong"):
        await refused(here, path)


@row(3, "The token never reaches the log")
async def test_log(here: Server) -> None:
    token = here.users["alice"].token
    await test_query(here)
    await call(here, "GET", f"/healthz?token={token}", may_be_missing=True)
    await asyncio.sleep(0.3)  # a line that is written late
    see(token not in here.log(), "The token stood in the access log.")


@row(3, "A program's access token is taken from the Authorization header")
async def test_bearer(here: Server) -> None:
    topic, alice = new_topic("room"), here.users["alice"]
    async with http(here) as client:
        for token, status in (("wrong", 401), (alice.token, 200)):
            headers = {"Authorization": f"Bearer {token}"}
            async with client.stream("GET", events_path(topic), headers=headers) as response:
                is_ok(response, status)


@row(3, "A ticket opens one socket, and not a second")
async def test_ticket(here: Server) -> None:
    response = await call(here, "POST", "/realtime/tickets", here.users["alice"])
    is_ok(response, 201)
    path = f"/ws/auth/query?ticket={response.json()['ticket']}"
    async with websocket(here, path) as socket:
        await is_welcome(socket, "alice")
    await refused(here, path)


@row(4, "The session cookie opens the socket")
async def test_cookie(here: Server) -> None:
    async with websocket(here, "/ws/auth/cookie", here.users["alice"]) as socket:
        await is_welcome(socket, "alice")


@row(4, "A wrong or missing session is refused")
async def test_cookie_refused(here: Server) -> None:
    await test_cookie(here)
    await refused(here, "/ws/auth/cookie")
    await refused(here, "/ws/auth/cookie", headers={"Cookie": "sessionid=wrong"})


@row(4, "A page of another site is refused, one of the same opens the socket")
async def test_origin(here: Server) -> None:
    alice = here.users["alice"]
    async with websocket(here, "/ws/auth/cookie", alice, origin=here.url) as socket:
        await is_welcome(socket, "alice")
    await refused(here, "/ws/auth/cookie", alice, origin=EVIL)


@row(5, "The first message carries the token")
async def test_message(here: Server) -> None:
    async with websocket(here, "/ws/auth/message") as socket:
        await socket.send({"token": here.users["alice"].token})
        await is_welcome(socket, "alice")


@row(5, "A wrong token, or another message, closes with 4401")
async def test_message_refused(here: Server) -> None:
    for message in ('{"token": "wrong"}', '{"token": 1}', "[]", "{", "{}"):
        async with websocket(here, "/ws/auth/message") as socket:
            await socket.send_raw(message)
            code = await socket.closed()
            see(code == 4_401, f"{message} closed the socket with {code}.")


@row(5, "Who sends no first message is closed after a deadline")
async def test_message_deadline(vigil: Vigil) -> None:
    await vigil.outcome("first message")


# -- row 6


@row(6, "What one of a user's sockets says reaches all of that user's, and nobody else's")
async def test_user(here: Server) -> None:
    alice, bob = here.users["alice"], here.users["bob"]
    async with (
        websocket(here, "/ws/user", alice) as one,
        websocket(here, "/ws/user", alice) as two,
        websocket(here, "/ws/user", bob) as other,
    ):
        await one.send({"n": 1})
        for socket in (one, two):
            see(await socket.receive() == {"echo": {"n": 1}}, "Another frame came.")
        see(await other.silent(), "It reached another user.")


@row(6, "A user is reached by a request too, not only from a socket")
async def test_send_to_user(here: Server) -> None:
    alice = here.users["alice"]
    async with websocket(here, "/ws/user", alice) as one, websocket(here, "/ws/user", alice) as two:
        await publish(here, f"user.{alice.id}", {"from": "a view"}, user="staff")
        for socket in (one, two):
            see(await socket.receive() == {"from": "a view"}, "Another frame came.")


@row(6, "Sockets are for authenticated users only")
async def test_user_refused(here: Server) -> None:
    async with websocket(here, "/ws/user", here.users["alice"]):
        pass
    await refused(here, "/ws/user")


@row(6, "A user's own topic is for that user and the staff")
async def test_user_topic(here: Server) -> None:
    alice, bob = here.users["alice"], here.users["bob"]
    topic = f"user.{alice.id}"
    async with listening(here, topic, alice):
        pass
    for user, status in ((None, 401), (bob, 403)):
        answer = await read_status(here, topic, user)
        see(answer == status, f"Another's topic was answered with {answer}.")
        posted = await call(here, "POST", events_path(topic), user, json=1)
        see(posted.status_code == status, f"A POST to it was answered with {posted.status_code}.")


async def read_status(server: Server, topic: str, user: User | None) -> int:
    """What a request to read a topic is answered with; its stream is not read."""
    async with (
        http(server, user) as client,
        client.stream("GET", events_path(topic)) as response,
    ):
        return response.status_code


@row(6, "Many topics on one socket: subscribe, publish, unsubscribe")
async def test_many_topics(here: Server) -> None:
    one, two = new_topic(), new_topic()
    async with websocket(here, "/ws", here.users["alice"]) as socket:
        for number, topic in enumerate((one, two)):
            answer = await socket.ask({"type": "subscribe", "topic": topic, "ref": number})
            expected = {"type": "subscribed", "topic": topic, "ref": number}
            see(answer | expected == answer, "A subscribe was answered otherwise.")
        for topic in (one, two):
            await publish(here, topic, {"in": topic})
            event = await socket.receive()
            expected = {"type": "event", "topic": topic, "data": {"in": topic}, "event": "message"}
            see(event | expected == event, "Another frame came.")
        await socket.ask({"type": "unsubscribe", "topic": one})
        await publish(here, one, 1)
        await publish(here, two, 2)
        see((await socket.receive())["data"] == 2, "It heard what it had unsubscribed from.")


@row(6, "On a socket of many topics a wrong request gets an error frame with its code and ref")
async def test_wrong_requests(here: Server) -> None:
    async with websocket(here, "/ws", here.users["alice"]) as socket:
        for wrong in ({"type": "nonsense"}, {"type": "subscribe"}, {"type": "publish"}):
            answer = await socket.ask({**wrong, "ref": "r"})
            see(answer.get("type") == "error", "The answer was no error frame.")
            see(answer.get("code") and answer.get("ref") == "r", "It had no code, or no ref.")
        answer = await socket.ask({"type": "subscribe", "topic": "secret.topic", "ref": "s"})
        see(answer.get("type") == "error", "A topic for the staff could be read.")
        see((await socket.ask({"type": "ping"})).get("type") == "pong", "It no longer answered.")


@row(6, "A topic's socket: publish on it, and all of the topic's sockets have the event")
async def test_topic_socket(here: Server) -> None:
    alice, topic = here.users["alice"], new_topic("room")
    path = f"/ws/topics/{topic}"
    async with websocket(here, path, alice) as one, websocket(here, path, alice) as two:
        await one.send({"type": "publish", "data": {"n": 1}})
        event = await two.receive()
        expected = {"type": "event", "topic": topic, "data": {"n": 1}}
        see(event | expected == event, "Another frame came.")
        frames = [await one.receive(), await one.receive()]
        kinds = {frame.get("type") for frame in frames}
        see(kinds == {"event", "published"}, "The publisher got other frames.")


@row(6, "A user who is deactivated loses the open sockets and streams within 5 s")
async def test_deactivated(here: Server) -> None:
    server, carol = here, here.users["carol"]  # of use to no other check
    async with (
        websocket(server, "/ws/user", carol) as socket,
        listening(server, new_topic("room"), carol) as stream,
    ):
        await asyncio.to_thread(here.site.admin, "deactivate", "carol")
        code = await socket.closed(5)
        see(code == 4_401, f"The socket was closed with {code}.")
        await stream.rest(5)
    await refused(server, "/ws/user", carol)


# -- row 9


@row(9, "An application heartbeat that a browser can see")
async def test_heartbeat(vigil: Vigil) -> None:
    await vigil.outcome("heartbeat")


@row(9, "A client's ping is answered")
async def test_client_ping(here: Server) -> None:
    async with websocket(here, "/ws", here.users["alice"]) as socket:
        answer = await socket.ask({"type": "ping", "ref": 7})
        see(answer == {"type": "pong", "ref": 7}, "The answer was no pong with its ref.")
        async with within(5, "A protocol ping was not answered."):
            await (await socket.connection.ping())


@row(9, "A peer that no longer answers is found and closed, one that answers is kept")
async def test_half_open(site: Site) -> None:
    server = site.start(ping=1)
    alice = server.users["alice"]
    path = "/ws/user" if await handshake(server, "/ws/user", alice) == 101 else "/ws/echo"
    async with websocket(server, path, alice) as alive:
        with raw_websocket(server, path, alice) as dead:
            dead.setblocking(False)
            received = bytearray()

            def over() -> bool:
                try:
                    piece = dead.recv(1_024)
                except BlockingIOError:
                    return False
                except ConnectionError:
                    return True
                received.extend(piece)
                return not piece

            await until(over, 10, "It was still open after 10 intervals.")
            see(b"\x89" in received, "It was closed without a ping.")
        await alive.send({"n": 1})
        see(await alive.receive() == {"echo": {"n": 1}}, "Who answered was closed too.")
