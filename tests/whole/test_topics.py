"""`TOPICS` of a site that is served: what its clients notice, over real sockets."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ..support.clients import ask, bearer, connect, open_stream, publish, receive
from ..support.sites import site_for_module

TOPICS = {
    "room.state.*": {"STATE": True},
    "public.news": {"PUBLISH": "staff"},
    "board.*": {"READ": "anyone", "PUBLISH": "nobody"},
}


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with site_for_module(_site_template, {"TOPICS": TOPICS}) as site:
        yield site


def say(here: SimpleNamespace, topic: str, data: Any, name: str = "alice") -> str:
    return publish(here.server, here.tokens[name], topic, data)


def history(here: SimpleNamespace, topic: str, name: str | None = "alice") -> list[Any]:
    headers = bearer(here.tokens[name]) if name else {}
    answer = httpx.get(f"{here.url}/topics/{topic}/history", headers=headers)
    return [json.loads(line)["data"] for line in answer.text.splitlines()]


async def test_a_stream_begins_with_the_newest_event_and_goes_on_from_its_id(here):
    topic = "room.state.sse"
    headers, url = bearer(here.tokens["alice"]), f"{here.url}/topics/{topic}/events"
    first, second = say(here, topic, 1), say(here, topic, 2)
    async with open_stream(url, headers=headers) as stream:
        event = await stream.next()
        assert (event.data, event.id) == ("2", second)
        third = say(here, topic, 3)
        event = await stream.next()
        assert (event.data, event.id) == ("3", third)
    for last_id, expected in ((second, ["3"]), (third, []), (first, ["2", "3"])):
        async with open_stream(url, headers={**headers, "Last-Event-ID": last_id}) as stream:
            end = say(here, topic, "end")
            found = []
            while (event := await stream.next()).id != end:
                found.append(event.data)
        assert [data for data in found if data != '"end"'] == expected
    assert history(here, topic) == [1, 2, 3, "end", "end", "end"]


async def test_so_does_a_stream_over_several_topics_for_those_it_has_no_position_of(here):
    headers = bearer(here.tokens["alice"])
    say(here, "room.state.a", "a")
    say(here, "room.b", "not a state")
    position = say(here, "room.state.c", "c")
    params = {"topic": ["room.state.a", "room.b", "room.state.c"]}
    async with open_stream(f"{here.url}/events", headers=headers, params=params) as stream:
        found = sorted([each["data"] for each in await stream.take(2)])
        assert found == ["a", "c"]
        say(here, "room.b", "live")
        [event] = await stream.take(1)
        assert event == {"topic": "room.b", "data": "live"}
    after = {**params, "after": f"room.state.c={position}"}
    async with open_stream(f"{here.url}/events", headers=headers, params=after) as stream:
        assert await stream.take(1) == [{"topic": "room.state.a", "data": "a"}]


async def test_so_do_sockets(here):
    topic = "room.state.ws"
    old, newest = say(here, topic, "old"), say(here, topic, "newest")
    headers = bearer(here.tokens["alice"])
    url = f"{here.ws_url}/ws/topics/{topic}"
    async with connect(url, additional_headers=headers) as one:
        event = await receive(one)
        assert (event["data"], event["id"]) == ("newest", newest)
        async with connect(f"{here.ws_url}/ws", additional_headers=headers) as many:
            answer = await ask(many, {"type": "subscribe", "topic": topic})
            assert (answer["type"], answer["id"], answer["recovered"]) == ("subscribed", old, True)
            assert (await receive(many))["id"] == newest
            live = say(here, topic, "live")
            assert [(await receive(each))["id"] for each in (one, many)] == [live, live]
    async with connect(f"{url}?after={newest}", additional_headers=headers) as again:
        assert (await receive(again))["id"] == live


async def test_who_may_read_and_publish(here):
    def status(topic: str, name: str) -> int:
        url = f"{here.url}/topics/{topic}/events"
        return httpx.post(url, json=1, headers=bearer(here.tokens[name])).status_code

    assert [status("public.news", name) for name in ("alice", "admin")] == [403, 201]
    assert [status("board.a", name) for name in ("alice", "admin")] == [403, 403]
    here.shell.run("import realtime; realtime.publish('board.a', 'by the site')")
    assert history(here, "board.a", name=None) == ["by the site"]
