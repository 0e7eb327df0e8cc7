"""`realtime.company`: who else listens, and for how long that is believed."""

import asyncio
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.announcements import Hello
from realtime.company import ROUNDS, Company

from .clients import connect, receive, send, site_for_module
from .servers import Valkey, serving

SECONDS = 5.0  # much less than until the next look at the heads


def test_nobody_is_there_at_first():
    assert not Company()


def test_who_says_hello_is_new_once():
    company = Company()
    assert company.hear(Hello("a", 2.0), 0.0)
    assert not company.hear(Hello("a", 2.0), 2.0)
    assert company.hear(Hello("b", 2.0), 2.0)
    assert company


def test_each_is_forgotten_by_its_own_time():
    company = Company()
    company.hear(Hello("often", 1.0), 0.0)
    company.hear(Hello("seldom", 10.0), 0.0)
    company.forget(ROUNDS * 1.0)
    assert not company.hear(Hello("often", 1.0), ROUNDS * 1.0)
    company.forget(2 * ROUNDS * 1.0 + 0.1)
    assert company.hear(Hello("often", 1.0), 11.0)
    company.forget(ROUNDS * 10.0 + 0.1)
    assert not company
    assert company.hear(Hello("seldom", 10.0), 60.0)


@pytest.fixture(scope="module", params=["redis", "redis-pubsub"])
def two_workers(
    _site_template: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[SimpleNamespace]:
    """Two servers of one site behind one Valkey; what is not announced is found after a minute."""
    valkey = Valkey()
    env = {"REDIS_URL": valkey.url, "CHANNEL_LAYER": request.param}
    with (
        site_for_module(_site_template, {"HEAD_CHECK_SECONDS": 60.0}, **env) as site,
        serving(site.env) as two,
    ):
        site.two = two
        yield site
    valkey.stop()


async def receive_event(socket: Any, data: object) -> Mapping[str, Any]:
    while (message := await receive(socket, SECONDS)).get("data") != data:
        assert message["type"] == "published"
    return message


@pytest.mark.parametrize("has_others", [False, True], ids=["none else", "one stays"])
async def test_what_is_published_reaches_the_other_worker_at_once(two_workers, has_others):
    """Also just after its first reader has come, and when its readers come and go."""
    servers = [two_workers.server, two_workers.two]
    async with AsyncExitStack() as stack:
        if has_others:
            url = f"{servers[0].ws_url}/ws?token={two_workers.tokens['bob']}"
            await stack.enter_async_context(connect(url))
        for turn in range(4):
            await converse(*(servers if turn % 2 else servers[::-1]), two_workers.tokens["alice"])


async def converse(one: Any, two: Any, token: str) -> None:
    topic = f"room.{uuid.uuid4().hex[:8]}"
    async with connect(f"{one.ws_url}/ws/topics/{topic}?token={token}") as first:
        await send(first, {"type": "publish", "data": "alone"})
        await receive_event(first, "alone")
        async with connect(f"{two.ws_url}/ws/topics/{topic}?token={token}") as second:
            for number in range(3):
                for publisher in (second, first):
                    await send(publisher, {"type": "publish", "data": number})
                    for socket in (first, second):
                        await receive_event(socket, number)


async def test_what_is_published_in_the_moment_of_coming_is_found(two_workers):
    one, two = two_workers.server, two_workers.two
    token = two_workers.tokens["alice"]
    topic = f"room.{uuid.uuid4().hex[:8]}"
    async with connect(f"{one.ws_url}/ws/topics/{topic}?token={token}") as publisher:
        published = 0

        async def publish() -> None:
            nonlocal published
            while True:
                published += 1
                await send(publisher, {"type": "publish", "data": published})
                await asyncio.sleep(0.002)

        publishing = asyncio.create_task(publish())
        for _ in range(5):
            url = f"{two.ws_url}/ws/topics/{topic}?token={token}"
            async with connect(url) as reader:  # the other worker's only one
                first = await receive(reader, SECONDS)
                for offset in range(1, 100):
                    assert (await receive(reader, SECONDS))["data"] == first["data"] + offset
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
