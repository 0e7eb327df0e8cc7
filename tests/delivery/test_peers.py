"""`realtime.delivery.peers`: which other processes listen, and for how long that is believed."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.delivery.bus.base import PEERS_TOPIC, Heartbeat, Message, this_process
from realtime.delivery.bus.memory import MemoryBus
from realtime.delivery.peers import LEASE_HEARTBEATS, Peers

from ..support.clients import connect, receive, send
from ..support.clock import InstantLoop
from ..support.hubs import stage
from ..support.servers import Valkey, serving
from ..support.sites import site_for_module

SECONDS = 5.0  # much less than until the next look at the heads


class SilentBus(MemoryBus):
    """Takes note of the heartbeats."""

    echoes_to_sender = True

    def __init__(self) -> None:
        super().__init__(logging.getLogger("realtime.hub"))
        self.sent: list[Heartbeat] = []
        self.is_broken = False

    async def send(self, topic: str, message: Message) -> bool:
        assert topic == PEERS_TOPIC
        assert isinstance(message, Heartbeat)
        self.sent.append(message)
        return not self.is_broken


def run(play: Callable[[Peers, SilentBus, list[None]], Awaitable[None]]) -> None:
    """Play with peers whose bus is joined when the play says so."""

    async def main() -> None:
        bus, answers = SilentBus(), []
        peers = Peers(bus, lambda: answers.append(None))
        running = asyncio.create_task(peers.run())
        await asyncio.sleep(0)
        await play(peers, bus, answers)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with stage(HEAD_CHECK_SECONDS=1.0), asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(main())


def test_each_peer_is_forgotten_by_its_own_interval():
    async def play(peers: Peers, bus: SilentBus, answers: list[None]) -> None:
        assert peers.is_alone
        peers.receive(Heartbeat("often", 1.0))
        peers.receive(Heartbeat("seldom", 10.0))
        await asyncio.sleep(LEASE_HEARTBEATS * 10.0 - 2.0)
        assert not peers.is_alone
        await asyncio.sleep(5)
        assert peers.is_alone

    run(play)


def test_a_heartbeat_prolongs_the_lease():
    async def play(peers: Peers, bus: SilentBus, answers: list[None]) -> None:
        for _ in range(10):
            peers.receive(Heartbeat("other", 1.0))
            await asyncio.sleep(LEASE_HEARTBEATS - 1.0)
            assert not peers.is_alone

    run(play)


def test_it_asks_once_the_topic_is_joined_and_again_after_it_was_joined_anew():
    async def play(peers: Peers, bus: SilentBus, answers: list[None]) -> None:
        await asyncio.sleep(5)
        assert bus.sent == []  # what would be answered would not be heard
        for _ in range(2):
            peers.joined()
            await asyncio.sleep(2.5)
            assert [heartbeat.is_asking for heartbeat in bus.sent] == [True, False, False]
            bus.sent.clear()

    run(play)


def test_a_heartbeat_says_when_the_next_one_comes():
    async def play(peers: Peers, bus: SilentBus, answers: list[None]) -> None:
        peers.joined()
        await asyncio.sleep(0.1)
        assert bus.sent == [Heartbeat(this_process(), 1.0, True, [])]

    run(play)


def test_a_peer_that_asks_or_is_new_is_answered_at_once():
    async def play(peers: Peers, bus: SilentBus, answers: list[None]) -> None:
        peers.joined()
        await asyncio.sleep(0.5)
        for heartbeat, is_answered in [
            (Heartbeat("other", 2.0), True),
            (Heartbeat("other", 2.0), False),
            (Heartbeat("other", 2.0, is_asking=True), True),
        ]:
            bus.sent.clear()
            peers.receive(heartbeat)
            await asyncio.sleep(0.01)
            assert [sent.answers for sent in bus.sent] == ([["other"]] if is_answered else [])

    run(play)


def test_a_heartbeat_that_could_not_be_sent_asks_and_answers_again():
    async def play(peers: Peers, bus: SilentBus, answers: list[None]) -> None:
        bus.is_broken = True
        peers.joined()
        peers.receive(Heartbeat("other", 2.0))
        await asyncio.sleep(2.5)
        bus.is_broken = False
        bus.sent.clear()
        await asyncio.sleep(2)
        assert [(sent.is_asking, sent.answers) for sent in bus.sent] == [
            (True, ["other"]),
            (False, []),
        ]

    run(play)


def test_only_an_answer_to_this_process_is_noticed():
    async def play(peers: Peers, bus: SilentBus, answers: list[None]) -> None:
        peers.receive(Heartbeat("other", 2.0, answers=["somebody"]))
        assert answers == []
        peers.receive(Heartbeat("other", 2.0, answers=["somebody", this_process()]))
        assert answers == [None]

    run(play)


# -- two processes


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
