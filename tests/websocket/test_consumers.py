"""WebSockets as clients see them, over real sockets."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import websockets
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from django.contrib.auth.models import User
from django.test import override_settings
from django.urls import path as route

from realtime import (
    MultiplexConsumer,
    TooManyRequests,
    TopicConsumer,
    WebSocketConsumer,
    publish_now,
    require,
    testing,
)
from realtime.access.connections import get_connections
from realtime.access.tokens import create_token
from realtime.conf import settings

from ..support.asgi import application
from ..support.attempts import three_tries_of
from ..support.clients import (
    ask,
    bearer,
    close_code,
    connect,
    eventually,
    publish,
    receive,
    refusal,
    reset_on_close,
    send,
    session_cookie,
)
from ..support.servers import SiteServer
from ..support.sites import site_for_module

SHORT = {
    "FIRST_MESSAGE_SECONDS": 1.0,
    "HEARTBEAT_SECONDS": 0.3,
    "MAX_BAD_MESSAGES": 3,
    "MAX_TOPICS": 3,
    "INBOX_MESSAGES": 4,
    "HANDLER_GRACE_SECONDS": 0.3,
    "MAX_EVENT_BYTES": 1000,
    "ALLOWED_ORIGINS": ["https://app.example.com"],
}


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    """A site that all of this module's tests share, with tokens of its users."""
    with site_for_module(_site_template, SHORT, PROXIED="1") as site:
        yield site


# -- rows 1 and 2: echo


async def test_echo_of_json(here):
    async with connect(f"{here.ws_url}/ws/echo") as socket:
        for value in [{"a": [1, None, "é"]}, "text", 0, [], None]:
            assert await ask(socket, value) == {"echo": value}
        await socket.send(b'{"in": "bytes"}')
        assert await receive(socket) == {"echo": {"in": "bytes"}}


@pytest.mark.parametrize("messages", [["hello", "", "\u2028é\0", "x" * 70_000]])
async def test_echo_of_text(here, messages):
    async with connect(f"{here.ws_url}/ws/echo/text") as socket:
        for message in messages:
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(b"bytes")
        assert (await receive(socket))["code"] == "bad_message"


async def test_echo_of_bytes(here):
    async with connect(f"{here.ws_url}/ws/echo/bytes") as socket:
        for message in [b"hello", b"", bytes(range(256)) * 300]:
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send("text")
        assert (await receive(socket))["code"] == "bad_message"


# -- bad messages


@pytest.mark.parametrize("bad", ["", "{", "NaN", '{"a":', "[" * 100_000, b"\xff", '"\\ud800"'])
async def test_bad_json_is_answered_and_the_socket_lives(here, bad):
    async with connect(f"{here.ws_url}/ws/echo", max_size=None) as socket:
        await socket.send(bad)
        answer = await receive(socket)
        assert answer["type"] == "error"
        assert answer["code"] == "bad_message"
        assert await ask(socket, 1) == {"echo": 1}


async def test_repeated_bad_messages_close_the_socket(here):
    async with connect(f"{here.ws_url}/ws/echo") as socket:
        for _ in range(3):
            await socket.send("{")
        await socket.send("1")
        answers = []
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                answers.append(json.loads(await socket.recv()))
        assert [answer.get("code") for answer in answers] == ["bad_message"] * 3
        assert socket.close_code == 4400


async def test_what_follows_the_last_bad_message_is_not_handled(here):
    topic = "room.after.bad"
    async with connect(f"{here.ws_url}/ws/topics/{topic}?token={here.tokens['alice']}") as socket:
        message = json.dumps({"type": "publish", "data": 1})
        for text in ["{", "{", "{", message]:
            await socket.send(text)
        assert await close_code(socket) == 4400
    await asyncio.to_thread(publish, here, here.tokens["alice"], topic, "the only one")
    async with connect(
        f"{here.ws_url}/ws/topics/{topic}?after=0&token={here.tokens['alice']}"
    ) as socket:
        assert (await receive(socket))["data"] == "the only one"


@pytest.mark.parametrize("message", [1, "cancelled"])
async def test_a_failing_handler_closes_with_1011(here, message):
    here.server.expected.append("failed on purpose")
    async with connect(f"{here.ws_url}/ws/tests/failing") as socket:
        await send(socket, message)
        assert await close_code(socket) == 1011


async def test_a_refusal_after_the_accept_has_its_own_code(here):
    async with connect(f"{here.ws_url}/ws/tests/failing?connected") as socket:
        assert await close_code(socket) == 4400
    status, body = await refusal(f"{here.ws_url}/ws/tests/failing?denied")
    assert (status, body) == (403, {"code": "not_allowed", "detail": "Not for you."})


class Limited(WebSocketConsumer):
    """A consumer with a limit of the site's own."""

    authentication = "optional"

    async def received(self, content: Any) -> None:
        raise TooManyRequests("Not so fast.", 5)


@pytest.mark.django_db(transaction=True)
async def test_a_limit_of_the_sites_is_answered_and_then_closes_with_4429():
    async with testing.websocket(Limited.as_asgi(), "/") as socket:
        for _ in range(settings.MAX_BAD_MESSAGES):
            await socket.send_json(1)
            assert (await socket.receive_json())["code"] == "too_many"
        with pytest.raises(testing.ConnectionClosed) as closed:
            await socket.receive()
        assert closed.value.code == 4429


class Slow:
    """A rule whose answers come late; for `action` it goes by whether the user is of the staff."""

    def __init__(self, action: str = "read") -> None:
        self.action = action
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def __call__(self, user: Any, topic: str, action: str) -> bool:
        is_allowed = user.is_staff or action != self.action
        if topic == "room.slow" and action == self.action:
            self.asked.append(topic)
            if len(self.asked) == 1:
                await self.answers.wait()
        return is_allowed

    async def demote(self, user: User) -> None:
        """Take the right away while the rule is asked, and have all connections know of it."""
        await eventually(lambda: self.asked)
        user.is_staff = False
        await user.asave()
        await get_connections().check()
        [[socket]] = get_connections().connections.values()
        await eventually(lambda: not socket.user.is_staff)
        self.answers.set()


class Following(WebSocketConsumer):
    """A consumer of a site's own that asks the rule, and subscribes, at one of its hooks."""

    async def prepare(self) -> None:
        if self.scope["path"] == "/prepare":
            await self.follow()

    async def received(self, content: Any) -> None:
        await self.follow()

    async def follow(self) -> None:
        await require(self.user, "room.slow", "read")
        await self.subscribe("room.slow")


@pytest.fixture
async def staff(db: None) -> User:
    return await User.objects.acreate(username="staff", is_staff=True)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("action", ["read", "presence"])
async def test_right_that_is_lost_while_the_rule_is_asked_gives_no_topic(staff, action):
    rule = Slow(action)
    topics = {"room.*": {"PRESENCE": True}}
    with override_settings(REALTIME={"BUS": "memory", "PERMISSION": rule, "TOPICS": topics}):
        async with testing.websocket(application, "/ws", user=staff) as socket:
            subscribe = {"type": "subscribe", "topic": "room.slow", "presence": True, "ref": 1}
            await socket.send_json(subscribe)
            await rule.demote(staff)
            answer = await socket.receive_json()
            assert (answer.get("code"), answer["ref"]) == ("not_allowed", 1)
            await publish_now("room.slow", 1)
            assert await socket.receive_nothing(0.2)
            await socket.send_json(subscribe)  # of which nothing is left
            assert (await socket.receive_json())["code"] == "not_allowed"


@pytest.mark.django_db(transaction=True)
async def test_nor_does_it_in_a_consumer_of_a_sites_own(staff):
    for path in ("/prepare", "/received"):
        staff.is_staff = True
        await staff.asave()
        rule = Slow()
        with override_settings(REALTIME={"BUS": "memory", "PERMISSION": rule}):
            demoting = asyncio.create_task(rule.demote(staff))
            with contextlib.ExitStack() as refused:
                if path == "/prepare":
                    refused.enter_context(pytest.raises(testing.ConnectionRefused))
                async with testing.websocket(Following.as_asgi(), path, user=staff) as socket:
                    await socket.send_json(1)
                    assert (await socket.receive_json())["code"] == "not_allowed"
            await demoting


class Losing(WebSocketConsumer):
    """A consumer whose user is signed out while it prepares, which the registry says."""

    authentication = "optional"

    async def prepare(self) -> None:
        await self.recheck(None)


@pytest.mark.django_db(transaction=True)
async def test_right_that_is_lost_in_the_handshake_refuses_it():
    with pytest.raises(testing.ConnectionRefused, match="401: You have been signed out"):
        async with testing.websocket(Losing.as_asgi(), "/"):
            pass


class Open(WebSocketConsumer):
    authentication = "optional"


@pytest.mark.django_db(transaction=True)
async def test_right_that_is_lost_while_the_accept_is_sent_closes_the_socket():
    sent = []
    left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not sent:
            return {"type": "websocket.connect"}
        await left.wait()
        return {"type": "websocket.disconnect", "code": 1005}

    async def send(message: Any) -> None:  # as another server's, which may wait
        sent.append(message)
        if message["type"] == "websocket.accept":
            [[socket]] = get_connections().connections.values()
            await socket.recheck(None)
            left.set()

    headers = [(b"host", b"testserver")]
    scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": headers}
    await Open.as_asgi()(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[1]["code"] == 4401


@pytest.mark.django_db(transaction=True)
async def test_a_client_that_leaves_in_a_slow_handshake_is_not_served(settings):
    settings.REALTIME = {"HANDLER_GRACE_SECONDS": 0.01}
    left, begun = asyncio.Event(), []

    class Slow(WebSocketConsumer):
        authentication = "optional"

        async def prepare(self) -> None:
            left.set()
            await asyncio.sleep(0.1)

        async def connected(self) -> None:
            begun.append(self)

    to_come = ["websocket.disconnect", "websocket.connect"]

    async def receive() -> dict[str, Any]:
        if len(to_come) == 1:
            await left.wait()
        return {"type": to_come.pop()}

    async def send(message: dict[str, Any]) -> None:
        pass

    headers = [(b"host", b"testserver")]
    scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": headers}
    await Slow.as_asgi()(scope, receive, send)
    assert not begun


class Early(WebSocketConsumer):
    """A consumer that greets before its socket is open, if it is not known by then."""

    authentication = "optional"

    async def prepare(self) -> None:
        await self.send_json("hello")


class Prompt(Early):
    authentication = "message"


@pytest.mark.django_db(transaction=True)
async def test_greeting_before_the_socket_is_open_is_an_error():
    with pytest.raises(RuntimeError, match="greet in `connected`"):
        async with testing.websocket(Early.as_asgi(), "/"):
            pass
    alice = await User.objects.acreate(username="alice")
    token, _ = await sync_to_async(create_token)(alice)
    async with testing.websocket(Prompt.as_asgi(), "/") as socket:
        await socket.send_json({"token": token})
        assert await socket.receive_json() == "hello"


# -- rows 3 to 5: who is asking


@pytest.mark.parametrize("row", ["query", "cookie"])
async def test_without_credentials_it_is_401(here, row):
    status, body = await refusal(f"{here.ws_url}/ws/auth/{row}")
    assert status == 401
    assert "detail" in body


async def welcomed(url: str, user: str = "alice", **options: Any) -> None:
    async with connect(url, **options) as socket:
        assert await receive(socket) == {"type": "welcome", "user": user}
        assert await ask(socket, 1) == {"echo": 1}


async def test_by_query_token(here):
    await welcomed(f"{here.ws_url}/ws/auth/query?token={here.tokens['alice']}")
    assert (await refusal(f"{here.ws_url}/ws/auth/query?token=rt_wrong"))[0] == 401
    cookie = await asyncio.to_thread(session_cookie, here, "alice")
    refused = await refusal(f"{here.ws_url}/ws/auth/query", additional_headers=cookie)
    assert refused[0] == 401
    assert not [line for line in here.log if here.tokens["alice"] in line]


async def test_an_expired_token_is_401(here):
    token = here.shell.make_token("bob", 0.001)
    assert (await refusal(f"{here.ws_url}/ws/auth/query?token={token}"))[0] == 401


async def test_a_ticket_is_good_once(here):
    def get_ticket() -> str:
        url = f"{here.url}/realtime/tickets"
        answer = httpx.post(url, headers=bearer(here.tokens["bob"]))
        assert answer.status_code == 201
        return str(answer.json()["ticket"])

    ticket = await asyncio.to_thread(get_ticket)
    url = f"{here.ws_url}/ws/auth/query?ticket={ticket}"
    await welcomed(url, "bob")
    assert (await refusal(url))[0] == 401
    url = f"{here.ws_url}/ws/auth/query?ticket={await asyncio.to_thread(get_ticket)}"
    attempts = await asyncio.gather(
        *(welcomed(url, "bob") for _ in range(5)), return_exceptions=True
    )
    assert [attempt for attempt in attempts if attempt is None] == [None]


async def test_by_cookie(here):
    cookie = await asyncio.to_thread(session_cookie, here, "alice")
    await welcomed(f"{here.ws_url}/ws/auth/cookie", additional_headers=cookie)
    await welcomed(f"{here.ws_url}/ws/auth/cookie", additional_headers=cookie, origin=here.url)
    other = await refusal(
        f"{here.ws_url}/ws/auth/cookie",
        additional_headers=cookie,
        origin="https://evil.example.com",
    )
    assert other[0] == 403
    url = f"{here.ws_url}/ws/auth/cookie"
    assert (await refusal(url, additional_headers={"Cookie": "sessionid=garbage"}))[0] == 401
    assert (await refusal(f"{url}?token={here.tokens['alice']}"))[0] == 401


async def test_page_by_http_on_the_same_host_is_another_site_behind_a_tls_proxy(here):
    """The proxy has spoken TLS to the browser; the page came without."""
    url, headers = f"{here.ws_url}/ws/echo", {"X-Forwarded-Proto": "https"}
    host = here.url.partition("://")[2]
    assert (await refusal(url, additional_headers=headers, origin=f"http://{host}"))[0] == 403
    assert (await refusal(url, additional_headers=headers, origin=f"https://a@{host}"))[0] == 403
    async with connect(url, additional_headers=headers, origin=f"https://{host}") as socket:
        assert await ask(socket, 1) == {"echo": 1}


async def test_handshake_for_a_host_that_is_not_the_sites_is_refused(here):
    port = int(here.url.rpartition(":")[2])
    status, body = await refusal(
        f"ws://rebound.example.net:{port}/ws/echo", host="127.0.0.1", port=port
    )
    assert status == 400
    assert "ALLOWED_HOSTS" in body["detail"]


async def test_by_message(here):
    async def authenticate() -> None:
        async with connect(f"{here.ws_url}/ws/auth/message") as socket:
            welcome = {"type": "welcome", "user": "alice"}
            assert await ask(socket, {"token": here.tokens["alice"]}) == welcome
            assert await ask(socket, [1]) == {"echo": [1]}

    await three_tries_of(authenticate)  # within FIRST_MESSAGE_SECONDS


@pytest.mark.parametrize("first", ['{"token": "rt_wrong"}', '{"token": 1}', "{}", "[]", "{", ""])
async def test_a_wrong_first_message_is_4401(here, first):
    async def fail() -> None:
        async with connect(f"{here.ws_url}/ws/auth/message") as socket:
            await socket.send(first)
            await socket.send("1")  # is not echoed
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 4401

    await three_tries_of(fail)  # within FIRST_MESSAGE_SECONDS


async def test_no_first_message_in_time_is_4408(here):
    async with connect(f"{here.ws_url}/ws/auth/message") as socket:
        assert await close_code(socket) == 4408


class ForUsers(WebSocketConsumer):
    """A consumer of a site's own for tokens with scopes too, which asks no rule."""

    is_scoped = True

    async def connected(self) -> None:
        await self.send_json("open")


class ForUsersByMessage(ForUsers):
    authentication = "message"


@pytest.fixture
async def service(transactional_db: None) -> str:
    token, _ = await sync_to_async(create_token)(None, name="billing", scopes="read:*")
    return token


async def test_service_is_no_user_in_the_handshake(service):
    with pytest.raises(testing.ConnectionRefused, match="401: This token is a service's"):
        async with testing.websocket(ForUsers.as_asgi(), "/", token=service):
            pass


async def test_nor_is_it_in_the_first_message(service):
    async with testing.websocket(ForUsersByMessage.as_asgi(), "/") as socket:
        await socket.send_json({"token": service})
        with pytest.raises(testing.ConnectionClosed, match="4401 This token is a service's"):
            await socket.receive()


@pytest.mark.parametrize("consumer", [ForUsers, ForUsersByMessage])
async def test_nor_is_a_token_that_was_made_a_services(transactional_db, consumer):
    alice = await User.objects.acreate(username="alice")
    text, token = await sync_to_async(create_token)(alice, name="billing", scopes="read:*")
    is_by_message = consumer is ForUsersByMessage
    sent = None if is_by_message else text
    async with testing.websocket(consumer.as_asgi(), "/", token=sent) as socket:
        if is_by_message:
            await socket.send_json({"token": text})
        assert await socket.receive_json() == "open"
        token.user = None
        await token.asave()
        await get_connections().check()
        with pytest.raises(testing.ConnectionClosed, match="4401 This token is a service's"):
            await socket.receive()


class TopicByMessage(TopicConsumer):
    authentication = "message"


class TopicsByMessage(MultiplexConsumer):
    authentication = "message"


@pytest.mark.django_db(transaction=True)
async def test_topics_for_a_token_in_the_first_message():
    alice = await User.objects.acreate(username="alice")
    token, _ = await sync_to_async(create_token)(alice)
    routes = URLRouter(
        [route("ws", TopicsByMessage.as_asgi()), route("ws/<topic>", TopicByMessage.as_asgi())]
    )
    event = await publish_now("room.a", 1, meta={"by": "us"})
    async with testing.websocket(routes, "/ws/room.a?after=0&meta=1") as socket:
        await socket.send_json({"token": token})
        frame = await socket.receive_json()
        assert (frame["id"], frame["meta"]) == (event.id, {"by": "us"})
    async with testing.websocket(routes, "/ws?meta=1") as socket:
        await socket.send_json({"token": token})
        await socket.send_json({"type": "subscribe", "topic": "room.a", "after": "0"})
        assert (await socket.receive_json())["type"] == "subscribed"
        assert (await socket.receive_json())["meta"] == {"by": "us"}
    async with testing.websocket(routes, "/ws/room%20a") as socket:
        await socket.send_json({"token": token})
        with pytest.raises(testing.ConnectionClosed, match="4400"):
            await socket.receive()


@pytest.mark.parametrize("path", ["/ws", "/ws/echo", "/ws/topics/public.a", "/ws/auth/message"])
async def test_the_origin_is_checked_everywhere(here, path):
    url = f"{here.ws_url}{path}"
    for origin in ["https://evil.example.com", "null", f"{here.url}0"]:
        status, body = await refusal(url, origin=origin)
        assert status == 403
        assert "origin" in body["detail"]
    for origin in [here.url, "https://app.example.com"]:
        async with connect(url, origin=origin):
            pass


# -- one topic


async def test_events_of_a_topic_from_its_history_on(here):
    topic, token = "room.history", here.tokens["alice"]
    ids = [await asyncio.to_thread(publish, here, token, topic, n) for n in range(3)]
    async with connect(f"{here.ws_url}/ws/topics/{topic}?after={ids[0]}&token={token}") as socket:
        await asyncio.to_thread(publish, here, token, topic, {"n": 3}, type="greeting")
        got = [await receive(socket) for _ in range(3)]
        assert [frame["data"] for frame in got] == [1, 2, {"n": 3}]
        assert [frame["event"] for frame in got] == ["message", "message", "greeting"]
        assert [frame["id"] for frame in got[:2]] == ids[1:]
        assert {frame["topic"] for frame in got} == {topic}
        answer = await ask(socket, {"type": "publish", "data": 4, "ref": 7})
        both = [answer, await receive(socket)]
        assert sorted(frame["type"] for frame in both) == ["event", "published"]
        published = next(frame for frame in both if frame["type"] == "published")
        assert published["ref"] == 7
        assert published["id"] == next(f["id"] for f in both if f["type"] == "event")


async def test_history_that_is_gone_is_a_reset(here):
    topic, token = "room.gone", here.tokens["alice"]
    head = await asyncio.to_thread(publish, here, token, topic, 1)
    epoch = head.partition("-")[0]
    for after in ["foreign0-3", f"{epoch}-99"]:
        url = f"{here.ws_url}/ws/topics/{topic}?after={after}&token={token}"
        async with connect(url) as socket:
            frame = await receive(socket)
            assert (frame["type"], frame["topic"], frame["id"]) == ("reset", topic, head)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ws/topics/room.a?after=garbage", 400),
        ("/ws/topics/room.a?after=", 400),
        ("/ws/topics/room%20a", 400),
        ("/ws/topics/" + "x" * 100, 400),
        ("/ws/topics/secret", 403),
        ("/ws/topics/user.0", 403),
    ],
)
async def test_a_bad_topic_or_id_refuses_the_handshake(here, path, status):
    got, body = await refusal(f"{here.ws_url}{path}", additional_headers=bearer(here.tokens["bob"]))
    assert got == status
    assert body["detail"]


async def test_an_anonymous_user_reads_public_topics_only(here):
    assert (await refusal(f"{here.ws_url}/ws/topics/room.a"))[0] == 401
    async with connect(f"{here.ws_url}/ws/topics/public.news") as socket:
        answer = await ask(socket, {"type": "publish", "data": 1, "ref": "r"})
        assert (answer["code"], answer["ref"]) == ("not_identified", "r")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "dance"}, "bad_message"),
        ({}, "bad_message"),
        ([], "bad_message"),
        ({"type": 7}, "bad_message"),
        ({"type": "publish"}, "bad_message"),
        ({"type": "publish", "data": 1, "event": ""}, "bad_event"),
        ({"type": "publish", "data": 1, "event": "reset"}, "bad_event"),
        ({"type": "publish", "data": 1, "event": 7}, "bad_event"),
        ({"type": "publish", "data": 1, "ephemeral": "yes"}, "bad_message"),
        ({"type": "publish", "data": 1, "key": ""}, "bad_key"),
        ({"type": "publish", "data": 1, "key": 7}, "bad_key"),
        ({"type": "publish", "data": 1, "key": "k", "ephemeral": True}, "bad_key"),
        ({"type": "publish", "data": "x" * 1000}, "too_large"),
    ],
)
async def test_a_wrong_request_is_answered(here, message, code):
    url = f"{here.ws_url}/ws/topics/room.wrong?token={here.tokens['bob']}"
    async with connect(url) as socket:
        if isinstance(message, dict):
            message = {**message, "ref": [1]}
        answer = await ask(socket, message)
        assert (answer["type"], answer["code"]) == ("error", code)
        assert answer.get("ref") == ([1] if isinstance(message, dict) else None)
        assert await ask(socket, {"type": "ping"}) == {"type": "pong"}


async def test_what_a_client_publishes_again_with_its_key_is_published_once(here):
    topic = "room.key"
    one = f"{here.ws_url}/ws/topics/{topic}?token={here.tokens['alice']}"
    said = {"type": "publish", "topic": topic, "data": {"n": 1}, "key": "k"}

    def ids(frames: list[Any]) -> list[Any]:
        return [frame["id"] for frame in frames if frame["type"] == "published"]

    async with connect(one) as socket:
        await send(socket, said)
        frames = [await receive(socket) for _ in range(2)]  # the event, and the answer
        [first] = ids(frames)
    async with connect(f"{here.ws_url}/ws?token={here.tokens['alice']}") as socket:
        assert await ask(socket, {**said, "ref": 1}) == {"type": "published", "id": first, "ref": 1}
        refused = await ask(socket, {**said, "data": 2})
        assert (refused["type"], refused["code"]) == ("error", "key_reused")
    async with connect(f"{here.ws_url}/ws?token={here.tokens['bob']}") as socket:
        another = await ask(socket, {**said, "data": 2})
        assert another["type"] == "published"
        assert another["id"] != first
    async with connect(f"{one}&after=0") as socket:
        assert [(await receive(socket))["id"] for _ in range(2)] == [first, another["id"]]


# -- many topics


async def test_many_topics_on_one_socket(here):
    token = here.tokens["alice"]
    async with connect(f"{here.ws_url}/ws?token={token}") as socket:
        first = await ask(socket, {"type": "subscribe", "topic": "room.x", "ref": 1})
        assert (first["type"], first["ref"], first["recovered"]) == ("subscribed", 1, True)
        event_id = await asyncio.to_thread(publish, here, token, "room.x", "hello")
        frame = await receive(socket)
        assert (frame["topic"], frame["id"], frame["data"]) == ("room.x", event_id, "hello")

        gone = {"type": "subscribe", "topic": "room.y", "after": "foreign0-1", "ref": 2}
        second = await ask(socket, gone)
        assert (second["type"], second["ref"], second["recovered"]) == ("subscribed", 2, False)

        again = await ask(socket, {"type": "subscribe", "topic": "room.x", "ref": 3})
        assert (again["type"], again["ref"]) == ("error", 3)
        await ask(socket, {"type": "subscribe", "topic": "room.z"})

        many = await ask(socket, {"type": "subscribe", "topic": "room.more", "ref": 4})
        assert (many["code"], many["ref"]) == ("too_many", 4)
        left = await ask(socket, {"type": "unsubscribe", "topic": "room.x", "ref": 5})
        assert left == {"type": "unsubscribed", "topic": "room.x", "ref": 5}
        await asyncio.to_thread(publish, here, token, "room.x", "unheard")
        assert await ask(socket, {"type": "ping", "ref": 6}) == {"type": "pong", "ref": 6}

        back = {"type": "subscribe", "topic": "room.x", "after": event_id}
        assert (await ask(socket, back))["recovered"] is True
        assert (await receive(socket))["data"] == "unheard"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "subscribe"}, "bad_topic"),
        ({"type": "subscribe", "topic": "a b"}, "bad_topic"),
        ({"type": "subscribe", "topic": "room.a", "after": "garbage"}, "bad_id"),
        ({"type": "subscribe", "topic": "room.a", "after": 7}, "bad_id"),
        ({"type": "subscribe", "topic": "secret"}, "not_allowed"),
        ({"type": "unsubscribe", "topic": "room.never"}, "bad_message"),
        ({"type": "publish", "topic": "secret", "data": 1}, "not_allowed"),
        ({"type": "nonsense"}, "bad_message"),
    ],
)
async def test_a_wrong_request_on_many_topics_is_answered(here, message, code):
    async with connect(f"{here.ws_url}/ws?token={here.tokens['bob']}") as socket:
        answer = await ask(socket, {**message, "ref": "it"})
        assert (answer["type"], answer["code"], answer["ref"]) == ("error", code, "it")


@pytest.mark.parametrize("path", ["/ws", "/ws/topics/public.a"])
async def test_long_messages_are_refused_with_their_ref_and_then_close_the_socket(here, path):
    async with connect(f"{here.ws_url}{path}") as socket:
        for _ in range(SHORT["MAX_BAD_MESSAGES"]):
            answer = await ask(socket, {"ref": 1, "type": "ping", "more": [[]] * 2000})
            assert (answer["code"], answer["ref"]) == ("too_large", 1)
        assert await close_code(socket) == 4400
    async with connect(f"{here.ws_url}{path}") as socket:
        answer = await ask(socket, {"type": "ping", "ref": [[]] * 500})
        assert (answer["code"], answer.get("ref")) == ("too_large", None)


# -- metadata

FORGED = {"sender": {"id": 1, "username": "root"}}


def sender_of(frame: Any) -> Any:
    """The name of who the server says has sent an event."""
    return frame["meta"]["sender"]["username"]


async def test_the_server_says_who_has_sent_what_a_client_publishes(here):
    """Live and from the log, by WebSocket and by POST, whatever the client itself says."""
    topic, token = "room.sender", here.tokens["alice"]
    one = f"{here.ws_url}/ws/topics/{topic}?meta=1&token={here.tokens['bob']}&after=0"
    async with connect(one) as bob, connect(f"{here.ws_url}/ws?token={token}") as alice:
        said = {"type": "publish", "topic": topic, "meta": FORGED, "sender": FORGED}
        live = []
        for more in ({"data": 1}, {"data": 2, "ephemeral": True}):
            await send(alice, said | more)
            live.append(await receive(bob))
        await asyncio.to_thread(publish, here, token, topic, 3, meta="1", sender="root")
        live.append(await receive(bob))
        await asyncio.to_thread(here.shell.run, f"import realtime; realtime.publish({topic!r}, 4)")
        live.append(await receive(bob))
    assert [frame["data"] for frame in live] == [1, 2, 3, 4]
    assert [sender_of(frame) for frame in live[:3]] == ["alice"] * 3
    assert set(live[3]) == {"type", "topic", "id", "event", "data"}
    async with connect(one) as bob:
        assert [await receive(bob) for _ in range(3)] == [frame for frame in live if "id" in frame]


async def test_metadata_goes_to_those_that_ask_for_it(here):
    topic, token = "room.asked", here.tokens["alice"]
    query = f"token={here.tokens['bob']}"
    async with (
        connect(f"{here.ws_url}/ws?{query}&meta=1") as asks,
        connect(f"{here.ws_url}/ws?{query}") as does_not,
    ):
        for socket in (asks, does_not):
            answer = await ask(socket, {"type": "subscribe", "topic": topic})
            assert answer["type"] == "subscribed"
        for number in range(3):
            await asyncio.to_thread(publish, here, token, topic, number)
            frame = await receive(asks)
            assert sender_of(frame) == "alice"
            del frame["meta"]
            assert await receive(does_not) == frame


# -- row 6


async def test_an_event_for_a_user_reaches_each_of_the_users_sockets_and_no_other(here):
    def url(name: str) -> str:
        return f"{here.ws_url}/ws/user?token={here.tokens[name]}"

    async with (
        connect(url("alice")) as one,
        connect(url("alice")) as two,
        connect(url("bob")) as bob,
    ):
        await send(one, {"hello": 1})
        assert await receive(one) == {"echo": {"hello": 1}}
        assert await receive(two) == {"echo": {"hello": 1}}
        await send(bob, 2)
        assert await receive(bob) == {"echo": 2}
    assert (await refusal(f"{here.ws_url}/ws/user"))[0] == 401


# -- heartbeats


async def test_a_socket_that_answers_its_heartbeats_stays_open(here):
    async def answer() -> None:
        async with connect(f"{here.ws_url}/ws/topics/public.beat") as socket:
            for _ in range(4):
                async with asyncio.timeout(15):
                    assert json.loads(await socket.recv()) == {"type": "ping"}
                await send(socket, {"type": "pong"})

    await three_tries_of(answer)


async def test_a_socket_that_stops_answering_heartbeats_is_closed(here):
    async with connect(f"{here.ws_url}/ws/topics/public.beat") as socket:
        await socket.recv()
        await send(socket, {"type": "pong"})
        assert await close_code(socket) == 1011


async def test_a_socket_that_never_answered_a_heartbeat_stays_open(here):
    async with connect(f"{here.ws_url}/ws/topics/public.beat") as socket:
        for _ in range(5):
            async with asyncio.timeout(15):
                assert json.loads(await socket.recv()) == {"type": "ping"}


class Slowly(WebSocketConsumer):
    """Takes as many seconds as it is told."""

    authentication = "optional"
    heartbeat = True

    async def received(self, content: Any) -> None:
        await asyncio.sleep(content)
        await self.send_json("done")


async def test_heartbeats_are_not_missed_while_a_message_is_handled():
    with override_settings(REALTIME={"HEARTBEAT_SECONDS": 0.1}):
        async with testing.websocket(Slowly.as_asgi(), "/") as socket:
            assert await socket.receive_json() == {"type": "ping"}
            await socket.send_json({"type": "pong"})
            await socket.send_json(1)
            while (said := await socket.receive_json()) == {"type": "ping"}:
                await socket.send_json({"type": "pong"})
            assert said == "done"


# -- order, slowness, bounds


async def test_messages_are_handled_in_order(here):
    async with connect(f"{here.ws_url}/ws/tests/slow") as socket:
        pauses = [0.1, 0.0, 0.05, 0.0, 0.01, 0.0]
        for pause in pauses:
            await send(socket, {"sleep": pause})
        assert [(await receive(socket))["slept"] for _ in pauses] == pauses


async def is_finished(here: SiteServer, name: str) -> None:
    def finished() -> Any:
        return name in httpx.get(f"{here.url}/tests/inside").json()["finished"]

    async with asyncio.timeout(15):
        while not await asyncio.to_thread(finished):
            await asyncio.sleep(0.02)


async def test_a_slow_handler_does_not_block_the_disconnect(here):
    async with connect(f"{here.ws_url}/ws/tests/slow") as socket:
        await send(socket, {"sleep": 50, "name": "one"})
        await socket.close(4321)
    await is_finished(here, "one cancelled")
    await is_finished(here, "slow 4321")


async def test_nor_does_one_with_a_full_inbox(here):
    async with connect(f"{here.ws_url}/ws/tests/slow", close_timeout=0.1) as socket:
        for number in range(300):
            await send(socket, {"sleep": 50, "name": f"full {number}"})
        socket.transport.abort()
    await is_finished(here, "full 0 cancelled")


async def test_the_inbox_is_bounded(here):
    # Past the inbox (4) and the server's own queue (32), the kernel holds what is sent: a client
    # that sends on gets stuck.
    filler = json.dumps({"sleep": 50, "name": "bound", "filler": "x" * 60_000})
    async with connect(f"{here.ws_url}/ws/tests/slow", close_timeout=0.1) as socket:
        reset_on_close(socket)
        sent, before = 0, -1

        async def flood() -> None:
            nonlocal sent
            for _ in range(1_000):  # 60 MB, more than any kernel holds
                await socket.send(filler)
                sent += 1

        flooding = asyncio.create_task(flood())
        while sent != before:
            before = sent
            await asyncio.sleep(0.5)
        assert not flooding.done()
        flooding.cancel()
        socket.transport.abort()
    await is_finished(here, "bound cancelled")


async def test_publish_and_leave_publishes(here):
    topic, token = "room.leave", here.tokens["alice"]
    async with connect(f"{here.ws_url}/ws/topics/{topic}?token={token}") as socket:
        await send(socket, {"type": "publish", "data": "last words"})
    async with connect(f"{here.ws_url}/ws/topics/{topic}?after=0&token={token}") as socket:
        assert (await receive(socket))["data"] == "last words"
