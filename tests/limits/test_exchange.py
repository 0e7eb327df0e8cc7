"""`realtime.limits.exchange`: one rate for all processes."""

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from realtime.limits.exchange import get_limiter, parse, processes

from ..support.clients import ask, bearer, connect
from ..support.servers import Valkey, serving
from ..support.sites import site_for_module
from .support import opens

LIMITS = {
    "RATE_PUBLISHES": None,
    "RATE_PUBLISHES_PER_TOKEN": "1/h burst 40",
    "MAX_CONNECTIONS_PER_TOKEN": 5,
    "PROCESS_BEAT_SECONDS": 0.3,
    "PROCESS_LEASE_SECONDS": 3.0,
}


@pytest.fixture(scope="module")
def two_servers(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    """Two servers of one site behind one Valkey."""
    valkey = Valkey()
    env = {"REDIS_URL": valkey.url, "CHANNEL_LAYER": "redis-pubsub"}
    with site_for_module(_site_template, LIMITS, **env) as site, serving(site.env) as two:
        site.two = two
        yield site
    valkey.stop()


async def publish(socket: Any, topic: str) -> str:
    """The type of the answer, or the code of a refusal."""
    answer = await ask(socket, {"type": "publish", "topic": topic, "data": 1})
    return str(answer.get("code", answer["type"]))


async def test_what_was_spent_in_one_process_is_not_left_in_the_other(two_servers):
    token = two_servers.shell.make_token("alice")
    urls = [f"{each.ws_url}/ws?token={token}" for each in (two_servers.server, two_servers.two)]
    async with connect(urls[0]) as one, connect(urls[1]) as two:
        for socket in (one, two):  # so that each process has a reader, and knows of the other
            await ask(socket, {"type": "subscribe", "topic": "public.readers"})
        assert [await publish(one, "room.spent") for _ in range(25)] == ["published"] * 25
        # The second may have heard of the first meanwhile; its half is there in any case.
        spent = [await publish(two, "room.spent") for _ in range(25)]
        assert spent[:20] == ["published"] * 20
        # Together they have spent more than all; alone, the first would have 15 left.
        for _ in range(15):
            await asyncio.sleep(0.7)
            if await publish(one, "room.spent") == "rate_limited":
                break
        else:
            pytest.fail("It has not heard of the other process.")


async def test_connections_to_all_processes_count_together(two_servers):
    token = two_servers.shell.make_token("bob")
    urls = [f"{each.ws_url}/ws?token={token}" for each in (two_servers.server, two_servers.two)]
    async with connect(urls[0]), connect(urls[0]), connect(urls[1]), connect(urls[1]):
        async with connect(urls[1]) as last, asyncio.timeout(30):
            await ask(last, {"type": "subscribe", "topic": "public.readers"})
            while await opens(urls[0]):
                await asyncio.sleep(0.3)
        async with asyncio.timeout(30):  # until both have heard that one has gone
            while not await opens(urls[0]):
                await asyncio.sleep(0.3)


async def test_nothing_is_said_while_nobody_is_near_a_limit(two_servers):
    token = two_servers.shell.make_token("admin")
    url = f"{two_servers.server.ws_url}/ws?token={two_servers.tokens['admin']}"
    async with connect(url) as listener:
        await ask(listener, {"type": "subscribe", "topic": "realtime.limits"})
        headers = bearer(token)
        async with httpx.AsyncClient(headers=headers, timeout=20) as client:
            for _ in range(20):  # the half
                answer = await client.post(f"{two_servers.two.url}/topics/room.calm/events", json=1)
                assert answer.status_code == 201
            with pytest.raises(TimeoutError):
                await told(listener, token, seconds=3)
            await client.post(f"{two_servers.two.url}/topics/room.calm/events", json=1)
            said = await told(listener, token, seconds=20)
    assert [21] in [[count] for name, _, count in said if name == "RATE_PUBLISHES_PER_TOKEN"]


async def told(listener: Any, token: str, seconds: float) -> list[Any]:
    """What is said of 21 publications; TimeoutError where nothing is."""
    async with asyncio.timeout(seconds):
        while True:
            frame = json.loads(await listener.recv())
            if frame["type"] == "event":
                spent = frame["data"]["spent"]
                if any(count == 21 for _, _, count in spent):
                    return list(spent)


@pytest.mark.parametrize(
    "text",
    ["1", "null", "[]", "{}", '{"process": 1, "number": 1}', '{"process": "a", "number": "1"}'],
)
def test_what_no_process_says_is_passed_over(text):
    assert parse(text) is None


def test_of_what_is_said_only_what_can_be_meant_counts():
    said = {
        "process": "a",
        "number": 7,
        "spent": [["RATE", "x", 3], ["RATE", "x"], 7, ["RATE", "y", -1], [1, "z", 1]],
        "open": "many",
    }
    found = parse(json.dumps(said))
    assert (found.process, found.number) == ("a", 7)
    assert (found.spent, found.open) == ({("RATE", "x"): 3}, {})


async def test_a_process_without_readers_is_one():
    assert processes() == 1
    assert get_limiter() is get_limiter()
