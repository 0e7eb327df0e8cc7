"""The consumer in front of Django answers as the view behind it does, over real sockets."""

import asyncio
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from channels.routing import URLRouter
from django.test import override_settings
from django.urls import path, re_path

from realtime.http.publish_consumer import PublishConsumer

from ..support.clients import bearer, open_stream
from ..support.servers import wait_until
from ..support.sites import site_for_module

SHORT = {"MAX_EVENT_BYTES": 1000}


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    """A site that all of this module's tests share, with tokens of its users."""
    with site_for_module(_site_template, SHORT) as site:
        yield site


def post(here: Any, topic: str, body: bytes, headers: dict[str, str], **query: str) -> Any:
    url = f"{here.url}/topics/{topic}/events"
    return httpx.post(url, content=body, headers=headers, params=query)


def is_past_django(answer: httpx.Response) -> bool:
    """Django's middleware sets this header on every answer of the site."""
    return "x-frame-options" not in answer.headers


@pytest.mark.parametrize(
    ("topic", "body", "query", "token", "status"),
    [
        ("room.a", b'{"a": 1}', {}, "", 201),
        ("room.a", b"null", {"type": "greeting"}, "", 201),
        ("room.a", b"", {}, "", 400),
        ("room.a", b"{", {}, "", 400),
        ("room.a", b"\xff", {}, "", 400),
        ("room.a", b"1", {"type": "reset"}, "", 400),
        ("room.a", b'"' + b"x" * 999 + b'"', {}, "", 413),
        ("room.a", b'"' + b"x" * 9_000 + b'"', {}, "", 413),
        ("room.a", b'"' + b"x" * 3_000_000 + b'"', {}, "", 413),
        ("secret", b"1", {}, "", 403),
        ("a%20b", b"1", {}, "", 400),
        ("a" * 200, b"1", {}, "", 400),
        ("room.a", b"1", {}, "rt_wrong", 401),
        ("room.a", b"1", {}, "x" * 4_000, 401),
    ],
)
def test_the_same_answers_as_the_view(here, topic, body, query, token, status):
    token = token or here.tokens["alice"]
    answer = post(here, topic, body, bearer(token), **query)
    assert is_past_django(answer)
    behind = post(here, topic, body, {}, token=token, **query)
    assert not is_past_django(behind)
    assert answer.status_code == behind.status_code == status
    for header in ("content-type", "www-authenticate", "x-content-type-options"):
        assert answer.headers.get(header) == behind.headers.get(header)
    if status == 201:
        assert answer.json().keys() == behind.json().keys() == {"id"}
    elif len(body) < 1_000_000:  # Django has a limit of its own
        assert answer.json() == behind.json()


def test_what_is_sent_again_with_its_key_is_published_once(here):
    """In front of Django and by the view: the key is its user's, whichever way it comes."""

    def send(body: bytes, key: str, name: str = "alice", *, in_front: bool, **query: str) -> Any:
        token = here.tokens[name]
        headers = {"Idempotency-Key": key, **(bearer(token) if in_front else {})}
        query |= {} if in_front else {"token": token}
        answer = post(here, "room.key", body, headers, **query)
        assert is_past_django(answer) is in_front
        return answer.status_code, answer.json().get("id") or answer.json()["detail"]

    for way in (True, False):
        key = f"k{way}"
        status, first = send(b'{"a": 1}', key, in_front=way)
        assert status == 201
        assert send(b'{"a":1}', key, in_front=way) == (200, first)
        assert send(b'{"a":1}', key, in_front=not way) == (200, first)
        status, detail = send(b'{"a":2}', key, in_front=way)
        assert (status, "nothing was stored" in detail) == (409, True)
        assert send(b'{"a":1}', key, in_front=way, type="other")[0] == 409
        status, other = send(b'{"a":2}', key, "bob", in_front=way)
        assert (status, other != first) == (201, True)
        for wrong in ("", "k" * 201):
            assert send(b"1", wrong, in_front=way)[0] == 400
    history = f"{here.url}/topics/room.key/history"
    kept = httpx.get(history, headers=bearer(here.tokens["alice"])).text
    assert kept.count('"data"') == 4


@pytest.mark.parametrize("in_front", [True, False])
def test_a_key_in_any_language_is_the_same_in_a_header_and_in_json(here, in_front):
    token, topic = here.tokens["alice"], f"room.{in_front}"
    events = [{"topic": topic, "data": 1, "key": key} for key in ("mü-日", "mü")]
    first = httpx.post(f"{here.url}/events", json=events, headers=bearer(token))

    def send(key: bytes) -> Any:
        headers: dict[Any, Any] = {"Idempotency-Key": key, **(bearer(token) if in_front else {})}
        answer = post(here, topic, b"1", headers, **({} if in_front else {"token": token}))
        assert is_past_django(answer) is in_front
        return answer

    # The second as `fetch` sends it, which takes no other characters.
    answers = [send("mü-日".encode()), send("mü".encode("latin1"))]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["id"] for answer in answers] == first.json()["ids"]


def test_the_trace_that_a_request_names_is_kept_for_those_that_ask(here):
    token, topic = here.tokens["alice"], "room.trace"
    given = f"00-{1:032x}-{2:016x}-01"
    for trace in (given, "00-1-2-01"):
        headers = {"traceparent": trace}
        assert post(here, topic, b"1", headers | bearer(token)).status_code == 201
        assert post(here, topic, b"1", headers, token=token).status_code == 201
        events = [{"topic": topic, "data": 1}]
        url = f"{here.url}/events"
        answer = httpx.post(url, json=events, headers=headers | bearer(token))
        assert answer.status_code == 201
    history = f"{here.url}/topics/{topic}/history"
    rows = httpx.get(f"{history}?meta=1", headers=bearer(token)).text.splitlines()
    metas = [json.loads(row)["meta"] for row in rows]
    assert {meta["sender"]["username"] for meta in metas} == {"alice"}
    assert [meta.get("traceparent") for meta in metas] == [given] * 3 + [None] * 3
    assert "traceparent" not in httpx.get(history, headers=bearer(token)).text


def test_of_two_at_once_in_two_processes_one_is_published(here):
    count, topic = 40, "room.race"
    code = f"""
import realtime
user = User.objects.get(username="alice")
result = []
for n in range({count}):
    event = realtime.publish({topic!r}, n, key=str(n), publisher=f"user.{{user.pk}}")
    result.append([event.id, event.is_repeated])
"""
    here.shell.run("pass")  # it has started
    with ThreadPoolExecutor(1) as executor:
        there = executor.submit(here.shell.run, code)
        headers = bearer(here.tokens["alice"])
        ours = [
            post(here, topic, b"%d" % n, {**headers, "Idempotency-Key": str(n)})
            for n in range(count)
        ]
        theirs = there.result()
    assert [answer.json()["id"] for answer in ours] == [event_id for event_id, _ in theirs]
    for answer, (_, is_repeated) in zip(ours, theirs, strict=True):
        assert answer.status_code == (201 if is_repeated else 200)
    history = httpx.get(f"{here.url}/topics/{topic}/history", headers=headers).text
    assert history.count('"data"') == count


async def test_what_is_published_arrives(here):
    async with open_stream(f"{here.url}/topics/public.arrives/events") as stream:
        headers = bearer(here.tokens["alice"])
        answer = await asyncio.to_thread(
            post, here, "public.arrives", b'{"a": "\xc3\xa9"}', headers, type="greeting"
        )
        event = await stream.next()
        assert (event.id, event.event, event.data) == (
            answer.json()["id"],
            "greeting",
            '{"a":"é"}',
        )


def test_what_goes_on_to_django(here):
    headers = bearer(here.tokens["alice"])
    url = f"{here.url}/topics/room.a/events"
    assert not is_past_django(httpx.get(f"{here.url}/login/"))
    assert not is_past_django(httpx.post(url, content=b"1"))
    assert not is_past_django(httpx.post(f"{url}/more", content=b"1", headers=headers))
    assert not is_past_django(httpx.put(url, content=b"1", headers=headers))
    basic = httpx.post(url, content=b"1", headers={"Authorization": "Basic YTpi"})
    assert (basic.status_code, is_past_django(basic)) == (401, False)
    here.server.expected.append("Invalid HTTP_HOST header")
    elsewhere = httpx.post(url, content=b"1", headers={**headers, "Host": "evil.example"})
    assert elsewhere.status_code == 400
    assert "<h1>Bad Request" in elsewhere.text  # Django's own page


def test_a_client_that_disconnects_within_its_body_publishes_nothing(here):
    token = here.tokens["alice"]
    head = (
        "POST /topics/room.left/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: 5\r\n\r\n12"
    )
    with socket.create_connection(("127.0.0.1", here.server.port)) as client:
        client.sendall(head.encode())
    history = f"{here.url}/topics/room.left/history"

    def kept() -> str:
        return httpx.get(history, headers=bearer(token)).text

    assert kept() == ""
    post(here, "room.left", b"3", bearer(token))
    wait_until(kept, what="the event")
    assert kept().count('"data":3') == 1
    assert '"data":12' not in kept()


async def answered_by(url: str = "/topics/room.a/events", **changes: Any) -> str:
    """Who answers a POST: `consumer` or `application`."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        said.append("application")

    async def send(message: Any) -> None:
        said.append("consumer")

    async def receive() -> dict[str, Any]:
        return (
            {"type": "http.disconnect"}
            if changes.pop("leaves", 0)
            else {
                "type": "http.request",
                "body": b"x",
            }
        )

    said: list[str] = []
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": url,
        "query_string": b"",
        "headers": [(b"host", b"testserver:80"), (b"authorization", b"bearer rt_no")],
        **changes,
    }
    publish = PublishConsumer.as_asgi(application=application)
    routes = [path("topics/<topic>/events", publish), re_path("", application)]
    await URLRouter(routes)(scope, receive, send)
    return said[0] if said else "nobody"


@pytest.mark.django_db(transaction=True)
async def test_when_it_keeps_out():
    assert await answered_by() == "consumer"
    assert await answered_by(leaves=1) == "nobody"
    assert await answered_by("/topics/room.a/history") == "application"
    assert await answered_by(method="GET") == "application"
    assert await answered_by("/below/topics/room.a/events", root_path="/below") == "consumer"
    assert await answered_by(headers=[(b"authorization", b"Bearer rt_no")]) == "application"
    assert await answered_by(headers=[(b"host", b"testserver")]) == "application"
    with override_settings(SECURE_SSL_REDIRECT=True):
        assert await answered_by() == "application"
        assert await answered_by(scheme="https") == "consumer"
    with override_settings(ALLOWED_HOSTS=["www.example.com"]):
        assert await answered_by() == "application"
