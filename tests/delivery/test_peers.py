"""`realtime.delivery.peers`: who else listens, and for how long that is believed."""

import asyncio
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.delivery.announcements import to_hello
from realtime.delivery.layer import Layer
from realtime.delivery.peers import ROUNDS, Company

from ..support.clients import (
    FakeLayer,
    InstantLoop,
    connect,
    hello_from_elsewhere,
    receive,
    send,
    site_for_module,
    stage,
)
from ..support.servers import Valkey, serving

SECONDS = 5.0  # much less than until the next look at the heads


def test_each_is_forgotten_by_its_own_time():
    async def main() -> None:
        answered = False

        def on_answer() -> None:
            nonlocal answered
            answered = True

        company = Company(Layer(FakeLayer()), on_answer)
        assert not company
        company.hear(hello_from_elsewhere(every=1.0))
        company.hear({**hello_from_elsewhere(every=10.0), "process": "seldom"})
        company.hear(to_hello(100.0))  # one's own
        greeting = asyncio.create_task(company.greet())
        company._layer.channel = "specific.0"
        company._layer._has_channel.set()
        for seconds, is_there in [(ROUNDS * 10.0 - 2.0, True), (5.0, False)]:
            await asyncio.sleep(seconds)
            assert bool(company) is is_there
        assert not answered
        greeting.cancel()
        await asyncio.gather(greeting, return_exceptions=True)

    with stage(HEAD_CHECK_SECONDS=1.0), asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(main())


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
