"""The HTTP side as clients see it, over real sockets."""

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.test import AsyncRequestFactory

from realtime.http import views

from ..support.clients import bearer, open_stream, publish, signed_in
from ..support.sites import site_for_module

SHORT = {
    "KEEPALIVE_SECONDS": 0.3,
    "MAX_TOPICS": 3,
    "MAX_BATCH_EVENTS": 10,
    "MAX_EVENT_BYTES": 1000,
    "HEAD_CHECK_SECONDS": 0.3,
    "ALLOWED_ORIGINS": ["https://app.example.com"],
}


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    """A site that all of this module's tests share, with tokens of its users."""
    with site_for_module(_site_template, SHORT) as site:
        yield site


async def post(here: Any, topic: str, data: Any, **query: str) -> str:
    """Publish as alice without blocking the loop; the event's id."""
    token = here.tokens["alice"]
    return await asyncio.to_thread(publish, here, token, topic, data, **query)


def alice(here: Any) -> dict[str, str]:
    return bearer(here.tokens["alice"])


def get(here: Any, path: str, **options: Any) -> httpx.Response:
    return httpx.get(f"{here.url}{path}", **options)


# -- one topic as server-sent events


async def test_what_a_stream_looks_like(here):
    async with open_stream(f"{here.url}/topics/public.look/events") as stream:
        headers = stream.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-cache, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in headers or headers["content-encoding"] == "identity"
        event_id = await post(here, "public.look", {"a": "é\n"})
        named = await post(here, "public.look", 2, type="greeting")
        first = await stream.next()
        assert (first.event, first.id, json.loads(first.data)) == (
            "message",
            event_id,
            {"a": "é\n"},
        )
        second = await stream.next()
        assert (second.event, second.id, second.data) == ("greeting", named, "2")


async def test_from_a_position_the_first_blank_line_is_that_of_an_event(here):
    url = f"{here.url}/topics/public.raw/events?after=new-0"
    async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
        lines = response.aiter_lines()
        async with asyncio.timeout(20):
            seen = [await anext(lines) for _ in range(3)]
    assert seen == ["id: new-0", "retry: 2000", ": keepalive"]


async def test_the_raw_bytes_begin_with_an_id_and_keep_alive(here):
    url = f"{here.url}/topics/public.raw/events"
    async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
        seen = ""
        async with asyncio.timeout(15):
            async for text in response.aiter_text():
                seen += text
                if seen.count(": keepalive\n") >= 2:
                    break
    assert seen.startswith("id: new-0\nretry: 2000\n\n: keepalive\n")
    assert seen.count(": keepalive\n") >= 2, "the stream has ended"


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/event-stream", 200),
        ("*/*", 200),
        ("text/*", 200),
        ("text/html, */*;q=0.1", 200),
        ("application/json", 406),
        ("text/html", 406),
    ],
)
async def test_what_the_client_accepts(here, accept, status):
    url = f"{here.url}/topics/public.accept/events"
    headers = {"Accept": accept}
    async with httpx.AsyncClient() as client, client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == status
        if status != 200:
            assert "text/event-stream" in json.loads(await answer.aread())["detail"]


async def test_a_resumed_stream_has_no_gap_and_no_duplicate(here):
    topic, published = "room.resume", 30
    url = f"{here.url}/topics/{topic}/events"
    got: list[int] = []
    last_id = ""

    async def publish_all() -> None:
        for number in range(published):
            await post(here, topic, number)

    # From the start, so that all that follows is part of the story.
    headers = {**alice(here), "Last-Event-ID": "0"}
    publishing = asyncio.create_task(publish_all())
    while len(got) < published:
        async with open_stream(url, headers=headers) as stream:
            for _ in range(3):
                if len(got) < published:
                    event = await stream.next()
                    got.append(json.loads(event.data))
                    last_id = event.id
        headers["Last-Event-ID"] = last_id
    await publishing
    assert got == list(range(published))


async def test_the_header_wins_over_the_query(here):
    topic = "room.header"
    ids = [await post(here, topic, number) for number in range(3)]
    url = f"{here.url}/topics/{topic}/events?after={ids[0]}"
    async with open_stream(url, headers=alice(here)) as stream:
        assert await stream.take(2) == [1, 2]
    headers = {**alice(here), "Last-Event-ID": ids[1]}
    async with open_stream(url, headers=headers) as stream:
        assert await stream.take(1) == [2]


async def test_without_a_position_only_what_comes(here):
    topic = "room.live"
    await post(here, topic, "before")
    async with open_stream(f"{here.url}/topics/{topic}/events", headers=alice(here)) as stream:
        await post(here, topic, "after")
        assert await stream.take(1) == ["after"]


@pytest.mark.parametrize("which", ["other epoch", "future offset"])
async def test_history_that_is_gone_is_a_reset(here, which):
    topic = "room.gone"
    head = await post(here, topic, 1)
    after = "foreign0-1" if which == "other epoch" else f"{head.partition('-')[0]}-999"
    url = f"{here.url}/topics/{topic}/events?after={after}"
    async with open_stream(url, headers=alice(here)) as stream:
        reset = await stream.next()
        assert (reset.event, reset.id) == ("reset", head)
        assert json.loads(reset.data) == {"topic": topic, "id": head}
        await post(here, topic, 2)
        assert await stream.take(1) == [2]


@pytest.mark.parametrize("after", ["garbage", "-1", "new-1", "abc-01", "abc-99999999999999999999"])
def test_an_id_that_is_not_ours_is_400(here, after):
    answer = get(here, f"/topics/public.a/events?after={after}")
    assert answer.status_code == 400
    assert "event id" in answer.json()["detail"]
    answer = get(here, "/topics/public.a/events", headers={"Last-Event-ID": after})
    assert answer.status_code == 400


@pytest.mark.parametrize("topic", ["a%20b", "x" * 100, "%C3%A9"])
def test_a_topic_that_can_not_be_is_400(here, topic):
    assert get(here, f"/topics/{topic}/events").status_code == 400


def test_a_stream_without_the_right_to_read_is_answered_401_or_403(here):
    answer = get(here, "/topics/room.a/events")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "Sign in" in answer.json()["detail"]
    answer = get(here, "/topics/secret/events", headers=alice(here))
    assert answer.status_code == 403
    assert "secret" in answer.json()["detail"]
    answer = get(here, "/topics/public.a/events", headers=bearer("rt_wrong"))
    assert answer.status_code == 401
    assert get(here, "/topics/public.a/events?token=rt_wrong").status_code == 401


async def test_tickets_open_a_stream_once(here):
    answer = httpx.post(f"{here.url}/realtime/tickets", headers=alice(here))
    assert answer.status_code == 201
    assert answer.json()["expires_in"] == 30
    url = f"{here.url}/topics/room.ticket/events?ticket={answer.json()['ticket']}"
    async with open_stream(url):
        pass
    assert get(here, url.removeprefix(here.url)).status_code == 401
    assert httpx.post(f"{here.url}/realtime/tickets").status_code == 401


def test_a_ticket_needs_no_body(here):
    url, csrf = "/realtime/tickets", "csrfmiddlewaretoken"
    with signed_in(here, "alice") as client:
        token = client.headers.pop("X-CSRFToken")
        for form in [{"data": {csrf: token}}, {"data": {csrf: token}, "files": {"a": b"1"}}]:
            assert client.post(url, **form).status_code == 201
        for size in (4_096, 3_000_000):
            answer = client.post(url, data={csrf: token}, files={"a": b"x" * size})
            assert answer.status_code == 413, answer.text
    for size, status in ((4_096, 201), (4_097, 413)):
        answer = httpx.post(f"{here.url}{url}", content=b" " * size, headers=alice(here))
        assert answer.status_code == status


@pytest.mark.django_db(transaction=True)
async def test_a_form_for_a_ticket_that_the_site_has_parsed_is_no_error():
    request = AsyncRequestFactory().post("/realtime/tickets", {"a": "b"})
    assert request.POST["a"] == "b"  # as a middleware may
    answer = await views.tickets(request)
    assert answer.status_code == 401


def test_the_origin(here):
    headers = {"Origin": "https://evil.example.com"}
    answer = get(here, "/topics/public.a/events", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    for origin in [here.url, "https://app.example.com"]:
        url = f"{here.url}/topics/public.a/events"
        with httpx.stream("GET", url, headers={"Origin": origin}) as response:
            assert response.status_code == 200
            assert response.headers["access-control-allow-origin"] == origin
            assert response.headers["access-control-allow-credentials"] == "true"
            assert "Origin" in response.headers["vary"]


APP = "https://app.example.com"


def test_page_of_an_allowed_origin_asks_before_it_publishes(here):
    """As a browser does: it asks, then sends, and lets the page read what came."""
    asks = {"Access-Control-Request-Method": "POST", "Origin": APP}
    asks["Access-Control-Request-Headers"] = "authorization,content-type"
    url = f"{here.url}/topics/room.a/events"
    told = httpx.options(url, headers=asks)
    assert told.status_code == 204
    assert told.headers["access-control-allow-origin"] == APP
    assert "POST" in told.headers["access-control-allow-methods"].split(", ")
    assert {"Authorization", "Content-Type"} <= {
        *told.headers["access-control-allow-headers"].split(", ")
    }
    for headers in (alice(here), bearer("rt_wrong")):
        for query in ("", "?token=" + headers["Authorization"].removeprefix("Bearer ")):
            sent = {"Origin": APP, **({} if query else headers)}
            answer = httpx.post(url + query, headers=sent, json=1)
            assert answer.status_code == (201 if headers == alice(here) else 401)
            assert answer.headers["access-control-allow-origin"] == APP
    foreign = httpx.options(url, headers={**asks, "Origin": "https://evil.example.com"})
    assert foreign.status_code == 403
    assert "access-control-allow-origin" not in foreign.headers
    assert httpx.options(url, headers={"Origin": APP}).status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/topics/public.a/events", "GET, POST"),
        ("DELETE", "/topics/public.a/events", "GET, POST"),
        ("PUT", "/events?topic=public.a", "GET, POST"),
        ("GET", "/realtime/tickets", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_405(here, method, path, allow):
    answer = httpx.request(method, f"{here.url}{path}", headers=alice(here))
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    assert allow in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/ws", "/ws/topics/public.a", "/ws/auth/query"])
def test_a_plain_get_of_a_websocket_says_what_is_missing(here, path):
    answer = httpx.get(f"{here.url}{path}")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"
    assert "upgrade" in answer.headers["connection"].lower()
    assert "does not pass the headers Upgrade and Connection on" in answer.json()["detail"]


async def test_a_stream_has_metadata_where_it_is_asked_for(here):
    """Live and from the log; of what has none, and of rows of an earlier release, nothing."""
    topic = "public.meta"
    code = "import realtime; result = realtime.publish({!r}, {{'a': 0}}).id"
    await asyncio.to_thread(here.shell.run, code.format(topic))
    url = f"{here.url}/topics/{topic}/events?after=0"
    many = f"{here.url}/events?topic={topic}&after={topic}%3D0"
    async with (
        open_stream(f"{url}&meta=1") as one,
        open_stream(f"{many}&meta=1") as combined,
        open_stream(url) as plain,
    ):
        assert await one.take(1) == [{"data": {"a": 0}}]
        assert await combined.take(1) == [{"topic": topic, "data": {"a": 0}}]
        event_id = await post(here, topic, 1)
        live = await one.next()
        assert (live.event, live.id) == ("message", event_id)
        said = json.loads(live.data)
        assert said["data"] == 1
        assert said["meta"]["sender"]["username"] == "alice"
        assert await combined.take(1) == [{"topic": topic, **said}]
        assert await plain.take(2) == [{"a": 0}, 1]
    async with open_stream(f"{url}&meta=1") as again:
        assert await again.take(2) == [{"data": {"a": 0}}, said]


async def test_the_sender_of_a_post_with_a_session_is_its_user(here):
    topic = "room.session"
    with signed_in(here, "bob") as client:
        answer = await asyncio.to_thread(client.post, f"/topics/{topic}/events", json="hi")
        assert answer.status_code == 201
    url = f"{here.url}/topics/{topic}/events?after=0&meta=1"
    async with open_stream(url, headers=alice(here)) as stream:
        [said] = await stream.take(1)
    assert said["meta"]["sender"]["username"] == "bob"


# -- several topics


async def test_several_topics_on_one_stream(here):
    a, b = "room.many.a", "room.many.b"
    await post(here, a, "a1")
    await post(here, b, "b1")
    url = f"{here.url}/events?topic={a}&topic={b}"
    async with open_stream(f"{url}&after=0", headers=alice(here)) as stream:
        events = [await stream.next() for _ in range(2)]
        got = [json.loads(event.data) for event in events]
        assert {(each["topic"], each["data"]) for each in got} == {(a, "a1"), (b, "b1")}
        await post(here, a, "a2", type="named")
        third = await stream.next()
        assert (third.event, json.loads(third.data)) == ("named", {"topic": a, "data": "a2"})
    await post(here, b, "b2")
    headers = {**alice(here), "Last-Event-ID": third.id}
    async with open_stream(url, headers=headers) as stream:
        assert await stream.take(1) == [{"topic": b, "data": "b2"}]
    # The position before the last event of both: that one again, and what followed.
    headers["Last-Event-ID"] = events[1].id
    async with open_stream(url, headers=headers) as stream:
        again = {(each["topic"], each["data"]) for each in await stream.take(2)}
        assert again == {(a, "a2"), (b, "b2")}


async def test_a_reset_of_one_of_several_topics(here):
    a, b = "room.lost.a", "room.lost.b"
    head = await post(here, a, "a1")
    after = await post(here, b, "b1")
    await post(here, b, "b2")
    url = f"{here.url}/events?topic={a}&topic={b}&after={a}=foreign0-7,{b}={after}"
    async with open_stream(url, headers=alice(here)) as stream:
        reset = await stream.next()
        assert (reset.event, json.loads(reset.data)) == ("reset", {"topic": a, "id": head})
        assert await stream.take(1) == [{"topic": b, "data": "b2"}]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("topic=room.a&topic=a%20b", 400),
        ("topic=room.a&topic=room.b&topic=room.c&topic=room.d", 400),
        ("topic=room.a&topic=room.b&after=abc-1", 400),
        ("topic=room.a&topic=room.b&after=room.a%3Dgarbage", 400),
        ("topic=room.a&topic=secret", 403),
    ],
)
def test_a_wrong_request_for_several_topics(here, query, status):
    answer = get(here, f"/events?{query}", headers=alice(here))
    assert answer.status_code == status
    assert answer.json()["detail"]


# -- publishing


@pytest.mark.parametrize(
    ("body", "query", "status"),
    [
        (b'{"a": 1}', "", 201),
        (b"null", "?type=greeting", 201),
        (b"", "", 400),
        (b"{", "", 400),
        (b"NaN", "", 400),
        (b"\xff", "", 400),
        (b"1", "?type=", 400),
        (b"1", "?type=reset", 400),
        (b"1", "?type=a%0Ab", 400),
        (b'"' + b"x" * 999 + b'"', "", 413),
        (b'"' + b"x" * 7000 + b'"', "", 413),
        (b'"' + b"x" * 3_000_000 + b'"', "", 413),
    ],
)
def test_publishing(here, body, query, status):
    url = f"{here.url}/topics/room.publish/events{query}"
    answer = httpx.post(url, content=body, headers=alice(here))
    assert answer.status_code == status
    assert ("id" if status == 201 else "detail") in answer.json()


def test_publishing_needs_a_permission(here):
    def attempt(topic: str, **options: Any) -> int:
        return httpx.post(f"{here.url}/topics/{topic}/events", content=b"1", **options).status_code

    assert attempt("public.a") == 401
    assert attempt("secret", headers=alice(here)) == 403
    assert attempt("public.a", headers=bearer("rt_wrong")) == 401
    assert attempt("a%20b", headers=alice(here)) == 400


def test_a_session_needs_the_csrf_token(here):
    url = "/topics/room.csrf/events"
    with signed_in(here, "alice") as client:
        assert client.post(url, content=b"1").status_code == 201
        token = client.headers.pop("X-CSRFToken")
        refused = client.post(url, content=b"1")
        assert refused.status_code == 403
        assert "X-CSRFToken" in refused.json()["detail"]
        assert client.post("/realtime/tickets").status_code == 403
        headers = {"X-CSRFToken": token}
        assert client.post("/realtime/tickets", headers=headers).status_code == 201
        # What calls itself a form is no JSON, but no reason to fail either.
        for files in [{"files": {"a": b"1"}}, {"data": {"a": "1"}}]:
            answer = client.post(url, headers=headers, **files)
            assert answer.status_code == 400, answer.text


# -- publishing several events


def batch(here: Any, events: Any, **options: Any) -> httpx.Response:
    """The answer to a POST of these events, as NDJSON."""
    content = "".join(json.dumps(event) + "\n" for event in events)
    options = {"headers": alice(here), "content": content} | options
    return httpx.post(f"{here.url}/events", **options)


def kept(here: Any, topic: str) -> list[Any]:
    text = get(here, f"/topics/{topic}/history?meta=1", headers=alice(here)).text
    return [json.loads(line) for line in text.splitlines()]


async def test_a_batch_is_published_in_order_with_its_sender(here):
    topics = ["room.batch.a", "room.batch.b"]
    events = [{"topic": topics[n % 2], "data": n, "type": f"t{n}"} for n in range(4)]
    url = f"{here.url}/events?topic={topics[0]}&topic={topics[1]}"
    async with open_stream(url, headers=alice(here)) as stream:
        answer = await asyncio.to_thread(batch, here, events)
        assert answer.status_code == 201
        heard = await stream.take(4)
    as_array = await asyncio.to_thread(batch, here, (), content=json.dumps(events).encode())
    assert as_array.status_code == 201
    for n, topic in enumerate(topics):
        assert [each["data"] for each in heard if each["topic"] == topic] == [n, n + 2]
        rows = kept(here, topic)
        ids = [*answer.json()["ids"][n::2], *as_array.json()["ids"][n::2]]
        assert [row["id"] for row in rows] == ids
        assert [row["event"] for row in rows] == [f"t{n}", f"t{n + 2}"] * 2
        assert {row["meta"]["sender"]["username"] for row in rows} == {"alice"}


def test_a_batch_with_keys_that_were_seen(here):
    events = [{"topic": "room.seen", "data": n, "key": f"k{n}"} for n in range(3)]
    first = batch(here, events[:2])
    assert first.status_code == 201
    again = batch(here, events[:2])
    assert (again.status_code, again.json()) == (200, first.json())
    more = batch(here, [events[1], events[2], events[0]])
    assert more.status_code == 201
    assert [more.json()["ids"][n] for n in (2, 0)] == first.json()["ids"]
    alone = httpx.post(
        f"{here.url}/topics/room.seen/events",
        content=b"2",
        headers={**alice(here), "Idempotency-Key": "k2"},
    )
    assert (alone.status_code, alone.json()["id"]) == (200, more.json()["ids"][1])
    reused = batch(here, [{"topic": "room.seen", "data": 9}, {**events[0], "data": 9}])
    assert reused.status_code == 409
    assert "'k0'" in reused.json()["detail"]
    assert [row["data"] for row in kept(here, "room.seen")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"topic": "secret", "data": 1}, 403),
        ({"topic": "a b", "data": 1}, 400),
        ({"topic": "room.none"}, 400),
        ({"topic": "room.none", "data": 1, "type": "reset"}, 400),
        ({"topic": "room.none", "data": 1, "key": 7}, 400),
        ({"topic": "room.none", "data": "x" * 1000}, 413),
        (1, 400),
    ],
)
def test_of_a_batch_with_a_wrong_event_none_is_published(here, wrong, status):
    answer = batch(here, [{"topic": "room.none", "data": 1}, wrong])
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)
    assert kept(here, "room.none") == []


def test_a_batch_that_is_refused_as_a_whole(here):
    event = {"topic": "room.none", "data": 1}
    assert batch(here, [event] * 11).status_code == 413
    assert batch(here, []).status_code == 400
    assert batch(here, [event], headers={}).status_code == 401
    keyed = batch(here, [event], headers={**alice(here), "Idempotency-Key": "k"})
    assert (keyed.status_code, 'a "key"' in keyed.json()["detail"]) == (400, True)
    assert batch(here, (), content=b" " * 1_100_000).status_code == 413
    assert batch(here, (), content=b" " * 3_000_000).status_code == 413
    with signed_in(here, "alice") as client:
        client.headers.pop("X-CSRFToken")
        assert client.post("/events", json=[event]).status_code == 403
    assert kept(here, "room.none") == []


def test_a_batch_of_a_session(here):
    with signed_in(here, "alice") as client:
        answer = client.post("/events", json=[{"topic": "room.session.batch", "data": 1}])
    assert answer.status_code == 201
    assert len(kept(here, "room.session.batch")) == 1
