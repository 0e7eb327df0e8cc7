"""Rows 10 to 12: server-sent events, and coming back without a gap."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

from .background import Vigil
from .clients import (
    Stream,
    call,
    events_path,
    http,
    is_ok,
    listening,
    new_topic,
    publish,
    publishing,
    resumable,
    stream,
    websocket,
    within,
)
from .contestants import Server, Site
from .outcomes import NotOffered, Seen, row, see

BEYOND_WHAT_IS_KEPT = 1_100  # the chapter's twin keeps 1,000 events of a topic


# -- row 10


@row(10, "The headers: text/event-stream, no caching, no buffering in nginx")
async def test_headers(here: Server) -> None:
    async with listening(here, new_topic()) as opened:
        headers = opened.headers
        kind = headers.get("content-type", "")
        see(kind.startswith("text/event-stream"), f"Content-Type was {kind!r}.")
        see("no-cache" in headers.get("cache-control", ""), "Cache-Control allowed caching.")
        see(headers.get("x-accel-buffering") == "no", "X-Accel-Buffering was not no.")


@row(10, "The head of a stream comes at once, however long its first event takes")
async def test_head_at_once(here: Server) -> None:
    path = "/progress?steps=1&interval=4"
    async with (
        within(2, "The head had not come 2 s later."),
        stream(here, path, here.users["alice"]),
    ):
        pass


@row(10, "An event arrives at once, with its data, its id and, unless it is message, its name")
async def test_event(here: Server) -> None:
    topic, data = new_topic(), {"text": "é\n\r\u2028", "n": [1, None]}
    async with listening(here, topic) as opened:
        event_id = await publish(here, topic, data)
        await publish(here, topic, 2, type="greeting")
        plain, named = await opened.next(), await opened.next()
        see(plain.json == data, "Other data came.")
        see(plain.event is None, "The name message was sent.")
        see(plain.id is not None, "The event had no id.")
        see(plain.id == event_id, "The id was not the one that its publisher got.")
        see(named.event == "greeting", "The event's name did not come.")


@row(10, "Who comes without an id gets what is published from then on")
async def test_live_only(here: Server) -> None:
    topic = new_topic()
    await publish(here, topic, "old")
    async with listening(here, topic) as opened:
        await publish(here, topic, "new")
        see((await opened.next()).json == "new", "An old event came.")


@row(10, "Every event reaches every stream, once and in order")
async def test_fan_out(here: Server) -> None:
    topic = new_topic()
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(listening(here, topic)) for _ in range(5)]
        async with publishing(here) as publisher:
            for number in range(40):
                await publisher.publish(topic, number)
        for each in opened:
            see(await each.take(40) == list(range(40)), "Events were missing or out of order.")


@row(10, "Several topics on one stream")
async def test_several_topics(here: Server) -> None:
    one, two = new_topic(), new_topic()
    async with stream(here, f"/events?topic={one}&topic={two}") as opened:
        await publish(here, one, 1)
        await publish(here, two, 2, type="greeting")
        first, second = await opened.next(), await opened.next()
        see(first.json == {"topic": one, "data": 1}, "The data did not name its topic.")
        see(second.json == {"topic": two, "data": 2}, "The data did not name its topic.")
        see(second.event == "greeting", "The event's name did not come.")


@row(10, "Who may not read gets 401 or 403 instead of a stream")
async def test_permissions(here: Server) -> None:
    topic = new_topic("room")
    async with listening(here, topic, here.users["alice"]):
        pass
    for path, user, status in (
        (events_path(topic), None, 401),
        (events_path("secret.topic"), here.users["alice"], 403),
    ):
        async with http(here, user) as client, client.stream("GET", path) as response:
            is_ok(response, status)


@row(10, "A wrong POST is answered with 400, 401, 403 or 413, and publishes nothing")
async def test_wrong_posts(here: Server) -> None:
    topic, alice = new_topic(), here.users["alice"]
    path = events_path(topic)
    async with listening(here, topic) as opened:
        for body, user, where, status in (
            (b"{", alice, path, 400),
            (b"", alice, path, 400),
            (b"1", None, path, 401),
            (b"1", alice, events_path("secret.topic"), 403),
            (json.dumps("x" * 2**21).encode(), alice, path, 413),
        ):
            answer = await call(here, "POST", where, user, content=body)
            is_ok(answer, status)
        await publish(here, topic, "right")
        see((await opened.next()).json == "right", "What was refused was published.")


# -- row 11


@row(11, "An idle stream gets a comment every 15 s")
async def test_keepalive(vigil: Vigil) -> None:
    await vigil.outcome("keepalive")


# -- row 12


async def last_of(opened: Stream, data: Any) -> str:
    """The id to come back with, of the event with this data."""
    while (event := await opened.next()).json != data:
        pass
    return await resumable(event)


@row(12, "Last-Event-ID replays what followed, then goes on live")
async def test_resume(here: Server) -> None:
    topic = new_topic()
    async with listening(here, topic) as opened:
        await publish(here, topic, 0)
        last = await last_of(opened, 0)
    for number in (1, 2, 3):
        await publish(here, topic, number)
    async with listening(here, topic, last=last) as opened:
        see(await opened.take(3) == [1, 2, 3], "Other events were replayed.")
        await publish(here, topic, 4)
        see(await opened.take(1) == [4], "The next event was another one.")


@row(12, "?after= does the same, and 0 replays all that is kept")
async def test_resume_by_query(here: Server) -> None:
    topic = new_topic()
    async with listening(here, topic) as opened:
        await publish(here, topic, 0)
        last = await last_of(opened, 0)
    await publish(here, topic, 1)
    for after, expected in ((last, [1]), ("0", [0, 1])):
        async with stream(here, f"{events_path(topic)}?after={after}") as opened:
            see(
                await opened.take(len(expected)) == expected,
                f"Other events came after {after!r}."
                if after == "0"
                else "Other events came after an id.",
            )


@row(12, "A WebSocket resumes by ?after= too")
async def test_resume_of_a_websocket(here: Server) -> None:
    topic = new_topic("room")
    alice = here.users["alice"]
    async with websocket(here, f"/ws/topics/{topic}", alice) as socket:
        await publish(here, topic, 0)
        last = (await socket.receive()).get("id")
        if not last:
            raise NotOffered("Events carry no id.")
    await publish(here, topic, 1)
    async with websocket(here, f"/ws/topics/{topic}?after={last}", alice) as socket:
        see((await socket.receive())["data"] == 1, "Another event came.")


@row(12, "A subscription on a socket of many topics resumes by its after")
async def test_resume_of_a_subscription(here: Server) -> None:
    topic = new_topic()
    first = await publish(here, topic, 0)
    await publish(here, topic, 1)
    async with websocket(here, "/ws", here.users["alice"]) as socket:
        answer = await socket.ask({"type": "subscribe", "topic": topic, "after": first})
        see(answer.get("recovered") is True, "It was not said that nothing was missed.")
        see((await socket.receive())["data"] == 1, "Another event came.")


@row(12, "One id covers all topics of a stream over several")
async def test_resume_of_several_topics(here: Server) -> None:
    one, two = new_topic(), new_topic()
    path = f"/events?topic={one}&topic={two}"
    async with stream(here, path) as opened:
        await publish(here, one, 1)
        await publish(here, two, 2)
        await opened.next()
        last = await last_of(opened, {"topic": two, "data": 2})
    await publish(here, one, 3)
    await publish(here, two, 4)
    async with stream(here, path, last=last) as opened:
        found = sorted(each["data"] for each in await opened.take(2))
        see(found == [3, 4], "Other events came.")


@row(12, "No gap and no duplicate while events are published and clients come and go")
async def test_no_gap(here: Server) -> None:
    topic, count = new_topic(), 300

    async def publishes() -> None:
        async with publishing(here) as publisher:
            for number in range(1, count + 1):
                await publisher.publish(topic, number)

    async with listening(here, topic) as opened:
        await publish(here, topic, 0)
        last = await last_of(opened, 0)
    found: list[int] = []
    work = asyncio.create_task(publishes())
    try:
        while len(found) < count:
            async with listening(here, topic, last=last) as opened:
                for _ in range(min(7, count - len(found))):
                    event = await opened.next()
                    found.append(event.json)
                    last = await resumable(event)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    see(found == list(range(1, count + 1)), "Events were missing, twice or out of order.")


@row(12, "Resumes over a restart of the server: nothing missing, no duplicate")
async def test_restart(site: Site) -> None:
    server, topic = site.start(), new_topic()
    async with listening(server, topic) as opened:
        await publish(server, topic, 0)
        last = await last_of(opened, 0)
    for number in (1, 2):
        await publish(server, topic, number)
    await asyncio.to_thread(server.terminate, 5)
    server = await asyncio.to_thread(site.start)
    await publish(server, topic, 3)
    async with listening(server, topic, last=last) as opened:
        found = await opened.take(1)
        see(found == [1], "What was published before the restart was missing.")
        see(await opened.take(2) == [2, 3], "Other events came.")
        await publish(server, topic, 4)
        see(await opened.take(1) == [4], "The next event was another one.")


@row(12, "Who comes back too late is told that history is gone")
async def test_reset(here: Server) -> None:
    server, topic = here, new_topic()
    async with listening(server, topic) as opened:
        await publish(server, topic, 0)
        last = await last_of(opened, 0)
    async with publishing(server) as publisher:
        await publisher.publish(topic, 1)
        await publisher.publish(topic, 2)
        if not await asyncio.to_thread(here.site.contestant.lose_history, server, topic):
            for number in range(BEYOND_WHAT_IS_KEPT):
                await publisher.publish(topic, number)
    async with listening(server, topic, last=last) as opened:
        event = await opened.next_block()
        while event.data is None and event.event is None:
            event = await opened.next_block()
        see(event.event == "reset", "The stream went on as if nothing were missing.")
        await publish(server, topic, "live")
        see(await opened.take(1) == ["live"], "The stream did not go on.")


@row(12, "A made-up id is not taken for one")
async def test_made_up_id(here: Server) -> None:
    topic = new_topic()
    async with listening(here, topic) as opened:
        await publish(here, topic, 0)
        await last_of(opened, 0)
    headers = {"Last-Event-ID": "nonsense"}
    async with (
        http(here) as client,
        client.stream("GET", events_path(topic), headers=headers) as response,
    ):
        if 400 <= response.status_code < 500:
            return
        opened = Stream(response)
        await publish(here, topic, "live")
        event = await opened.next_block()
        while event.data is None and event.event is None:
            event = await opened.next_block()
        see(event.event == "reset", "The stream went on as if nothing were missing.")


@row(12, "The kept events as NDJSON, oldest first, from an id on")
async def test_history(here: Server) -> None:
    topic, path = new_topic(), "/topics/{}/history"
    ids = [await publish(here, topic, number, type="greeting") for number in range(5)]
    for query, expected in (("", [0, 1, 2, 3, 4]), (f"?after={ids[1]}&limit=2", [2, 3])):
        answer = await call(here, "GET", path.format(topic) + query, here.users["alice"])
        is_ok(answer)
        kind = answer.headers.get("content-type", "")
        see(kind.startswith("application/x-ndjson"), f"Content-Type was {kind!r}.")
        lines = [json.loads(line) for line in answer.text.splitlines()]
        see([line.get("data") for line in lines] == expected, "Other events came.")
        if not all(line.get("id") for line in lines):
            raise Seen("The lines had no ids.")
