"""The limits as clients meet them, over real sockets."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import websockets

from ..support.clients import ask, bearer, connect, open_stream, receive, refusal, send
from ..support.sites import site_for_module
from .support import opens

LIMITS = {
    "RATE_MESSAGES": "1/h burst 40",
    "RATE_PUBLISHES": "5/s burst 3",
    "RATE_SUBSCRIBES": "1/h burst 2",
    "RATE_PUBLISHES_PER_TOKEN": "1/h burst 20",
    "RATE_TOPICS_PER_TOKEN": "1/h burst 2",
    "RATE_OPENS_PER_TOKEN": "1/h burst 8",
    "MAX_CONNECTIONS_PER_TOKEN": 3,
    "TOPICS": {"public.slow": {"PUBLISH_RATE": "1/h burst 1"}},
    "HAMMERING_REFUSALS": 12,
    "HAMMERING_SECONDS": 60.0,
}


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    """A site with narrow limits that all of this module's tests share."""
    with site_for_module(_site_template, LIMITS) as site:
        yield site


@pytest.fixture
def token(here: SimpleNamespace) -> str:
    """A token that counts for nothing yet."""
    return str(here.shell.make_token("alice"))


def socket(here: SimpleNamespace, path: str, token: str) -> Any:
    return connect(f"{here.ws_url}{path}?token={token}")


async def post(here: SimpleNamespace, path: str, token: str, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(headers=bearer(token), timeout=20) as client:
        return await client.post(f"{here.url}{path}", **body)


async def until_closed(wire: Any) -> AsyncIterator[str]:
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            yield await wire.recv()


async def test_one_over_is_refused_with_when_to_come_back_and_the_socket_stays(here, token):
    async with socket(here, "/ws", token) as wire:
        for number in range(2):
            answer = await ask(wire, {"type": "subscribe", "topic": f"room.{number}"})
            assert answer["type"] == "subscribed"
        answer = await ask(wire, {"type": "subscribe", "topic": "room.more", "ref": 7})
        assert 3_500 < answer.pop("retry_after") <= 3_600
        assert "1/h burst 2 (RATE_SUBSCRIBES)" in answer.pop("detail")
        assert answer == {"type": "error", "code": "rate_limited", "ref": 7}
        assert (await ask(wire, {"type": "ping", "ref": 8})) == {"type": "pong", "ref": 8}


async def test_who_waits_as_long_as_told_loses_nothing(here, token):
    left, at_once, refused = list(range(12)), 12, 0
    async with socket(here, "/ws/topics/room.obedient", token) as wire:
        while left:
            batch, wait = left[:at_once], 0.0
            for number in batch:
                padding = "x" * 8_000 * (number % 2)  # so long, it is refused unparsed
                await send(wire, {"type": "publish", "ref": number, "data": [number, padding]})
            for number in batch:
                while (answer := await receive(wire))["type"] == "event":
                    pass
                assert answer["ref"] == number
                if answer["type"] == "published":
                    left.remove(number)
                else:
                    assert answer["code"] == "rate_limited"
                    at_once, refused, wait = 1, refused + 1, answer["retry_after"]
            await asyncio.sleep(wait)
    assert refused


async def test_who_goes_on_all_the_same_is_closed_with_4429(here, token):
    async with socket(here, "/ws/topics/room.hammer", token) as wire:
        for number in range(60):
            await send(wire, {"type": "ping", "ref": number})
        answers = [json.loads(text) async for text in until_closed(wire)]
        assert [each["ref"] for each in answers if each["type"] == "pong"] == list(range(40))
        errors = [each for each in answers if each["type"] == "error"]
        assert [each["ref"] for each in errors] == list(range(40, 53))
        assert (wire.close_code, wire.close_reason) == (
            4429,
            "Too many were refused; retry after 30",
        )
    status, body = await refusal(f"{here.ws_url}/ws?token={token}")
    assert (status, body["detail"][:8]) == (429, "Too much")


async def test_a_token_s_publications_count_together_by_http_and_websocket(here, token):
    batch = [{"topic": "room.batch", "data": number} for number in range(18)]
    assert (await post(here, "/events", token, json=batch)).status_code == 201
    answer = await post(here, "/events", token, json=batch)
    assert answer.status_code == 429
    publication = {"type": "publish", "topic": "room.batch", "data": 1, "ref": "r"}
    async with socket(here, "/ws", token) as wire:
        assert (await ask(wire, publication))["type"] == "published"
        single = await post(here, "/topics/room.batch/events", token, json=1)
        assert single.status_code == 201
        answer = await post(here, "/topics/room.batch/events", token, content=b"{ no JSON")
        assert answer.status_code == 429  # and not 400: it was not parsed
        assert 3_500 < int(answer.headers["retry-after"]) <= 3_600
        assert "RATE_PUBLISHES_PER_TOKEN" in answer.json()["detail"]
        said = await ask(wire, publication)
        assert (said["code"], said["ref"]) == ("rate_limited", "r")
    too_many = await post(here, "/events", token, json=batch * 2)
    assert too_many.status_code == 429
    other = here.shell.make_token("alice")
    assert (await post(here, "/events", other, json=batch * 2)).status_code == 413
    assert (await post(here, "/events", other, json=batch)).status_code == 201


async def test_connections_over_the_limit_are_refused_before_they_open(here, token):
    url = f"{here.url}/topics/public.a/events"
    async with (
        socket(here, "/ws", token),
        open_stream(url, headers=bearer(token)),
        open_stream(url, headers=bearer(token)) as last,
    ):
        began = time.monotonic()
        status, body = await refusal(f"{here.ws_url}/ws?token={token}")
        assert time.monotonic() - began > 1.0  # HOLD_BACK_SECONDS
        assert status == 429
        assert "3 connections are open already (MAX_CONNECTIONS_PER_TOKEN)" in body["detail"]
        headers = bearer(token) | {"Accept": "text/event-stream"}
        async with httpx.AsyncClient(headers=headers, timeout=20) as client:
            answer = await client.get(url)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
            assert answer.json() == body
            await last.response.aclose()
        async with asyncio.timeout(20):  # until the server sees that it has gone
            while not await opens(f"{here.ws_url}/ws?token={token}"):
                await asyncio.sleep(0.1)


async def test_streams_that_are_opened_at_once_are_counted_before_they_begin(here, token):
    url = f"{here.url}/topics/public.a/events"
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            httpx.AsyncClient(headers=bearer(token), timeout=20)
        )
        requests = [client.build_request("GET", url) for _ in range(6)]
        answers = await asyncio.gather(*(client.send(each, stream=True) for each in requests))
        for answer in answers:
            stack.push_async_callback(answer.aclose)
        assert sorted(each.status_code for each in answers) == [200] * 3 + [429] * 3


async def test_a_ticket_counts_as_an_opening(here, token):
    answers = [await post(here, "/realtime/tickets", token) for _ in range(9)]
    assert [answer.status_code for answer in answers] == [201] * 8 + [429]
    assert "RATE_OPENS_PER_TOKEN" in answers[-1].json()["detail"]


async def test_new_topics_have_a_rate_and_old_ones_go_on(here, token):
    for topic, status in [("a", 201), ("b", 201), ("c", 429), ("a", 201), ("b", 201)]:
        answer = await post(here, f"/topics/room.new.{topic}/events", token, json=1)
        assert answer.status_code == status
    assert (await post(here, "/topics/room.new.c/events", token, json=1)).status_code == 429


async def test_a_topic_s_rate_is_of_all_who_publish_to_it(here, token):
    assert (await post(here, "/topics/public.slow/events", token, json=1)).status_code == 201
    other = here.tokens["bob"]
    answer = await post(here, "/topics/public.slow/events", other, json=1)
    assert answer.status_code == 429
    assert "PUBLISH_RATE" in answer.json()["detail"]
