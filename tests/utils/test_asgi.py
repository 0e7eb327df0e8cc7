"""What is read of a scope, and of a body that comes in parts."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from django.test import AsyncRequestFactory, RequestFactory

from realtime.utils.asgi import (
    Receive,
    header,
    is_wsgi,
    query,
    read_body,
    scope_of,
    send_json,
    wants,
)


def test_header_is_none_without_one():
    assert header({"headers": [(b"host", b"a")]}, b"origin") is None


@pytest.mark.parametrize(
    ("name", "joined"), [(b"cookie", "a=1; b=2"), (b"authorization", "a=1,b=2")]
)
def test_repeated_headers_are_joined(name, joined):
    assert header({"headers": [(name, b"a=1"), (b"x", b""), (name, b"b=2")]}, name) == joined


@pytest.mark.parametrize("raw", [b"a=1&b=&a=%C3%A9", "a=1&b=&a=%C3%A9"])
def test_query_keeps_empty_and_repeated_parameters(raw):
    assert query({"query_string": raw}) == {"a": ["1", "é"], "b": [""]}


@pytest.mark.parametrize(
    ("raw", "is_wanted"),
    [(b"meta=1", True), (b"meta=true", True), (b"meta=0", False), (b"", False)],
)
def test_what_a_url_asks_for(raw, is_wanted):
    assert wants({"query_string": raw}, "meta") is is_wanted


def test_scope_of_a_request_is_the_servers():
    request = AsyncRequestFactory().get("/a")
    assert scope_of(request) is request.scope
    assert not is_wsgi(request)


def test_scope_of_a_request_by_wsgi_is_made_of_its_environment():
    headers = {"Authorization": "Bearer x", "Cookie": "a=1", "X-Ä": "ü"}
    request = RequestFactory().get("/a?b=%C3%A9", headers=headers, REMOTE_ADDR="10.0.0.7")
    scope = scope_of(request)
    assert scope_of(request) is scope
    assert is_wsgi(request)
    assert (scope["type"], scope["method"], scope["path"]) == ("http", "GET", "/a")
    assert scope["client"][0] == "10.0.0.7"
    assert header(scope, b"authorization") == "Bearer x"
    assert header(scope, b"cookie") == "a=1"
    assert query(scope) == {"b": ["é"]}


def receiving(parts: Iterable[bytes | None]) -> Receive:
    left = list(parts)

    async def receive() -> dict[str, Any]:
        part = left.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    return receive


async def test_body_is_read_whole():
    assert await read_body(receiving([b"ab", b"", b"c"]), 3) == b"abc"


async def test_body_is_read_no_further_than_its_limit():
    receive = receiving([b"ab", b"cd", b"ef"])
    assert await read_body(receive, 3) == b"abcd"
    assert (await receive())["body"] == b"ef"


async def test_body_of_a_client_that_left_is_none():
    assert await read_body(receiving([b"ab", None]), 3) is None


async def test_json_is_a_whole_response():
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    more = {"WWW-Authenticate": "Bearer"}
    await send_json(send, 401, {"detail": "é"}, more, "websocket.http.response")
    start, body = sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert dict(start["headers"]) == {
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(body["body"]),
        b"x-content-type-options": b"nosniff",
        b"www-authenticate": b"Bearer",
    }
    assert (body["type"], json.loads(body["body"])) == (
        "websocket.http.response.body",
        {"detail": "é"},
    )
