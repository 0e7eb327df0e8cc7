"""`realtime.delivery.peers`: whether other processes listen, and when that is proven."""

import asyncio
import logging
import os
import signal
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.delivery.bus.base import PEERS_TOPIC, Joined, Message
from realtime.delivery.bus.memory import MemoryBus
from realtime.delivery.peers import Peers
from realtime.processes.registry import this_process

from ..support.clients import connect, receive, send
from ..support.clock import InstantLoop
from ..support.fakes import FakeRegistry
from ..support.hubs import stage
from ..support.servers import Valkey, serving, wait_until
from ..support.sites import site_for_module

SECONDS = 5.0  # much less than until the next look at the heads
ANOTHER = Joined("another")


class SilentBus(MemoryBus):
    """Takes note of what is said to all hubs."""

    is_local = False
    echoes_to_sender = True

    def __init__(self) -> None:
        super().__init__(logging.getLogger("realtime.hub"))
        self.sent: list[Message] = []
        self.is_broken = False

    async def send(self, topic: str, message: Message) -> bool:
        assert topic == PEERS_TOPIC
        self.sent.append(message)
        return not self.is_broken


class Scene(SimpleNamespace):
    """Peers with a bus and a register of the test's own."""

    peers: Peers
    bus: SilentBus
    registry: FakeRegistry
    returns: list[None]  # how often others may have taken this process for dead


def run(play: Callable[[Scene], Awaitable[None]], **constants: Any) -> None:
    """Play with peers that beat every second; a lease is five."""
    registry = FakeRegistry()

    async def main() -> None:
        bus, returns = SilentBus(), []
        peers = Peers(bus, lambda: returns.append(None))
        running = asyncio.create_task(peers.run())
        await play(Scene(peers=peers, bus=bus, registry=registry, returns=returns))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    times = {"PROCESS_BEAT_SECONDS": 1.0, "PROCESS_LEASE_SECONDS": 5.0, **constants}
    with (
        stage(registry=registry, **times),
        asyncio.Runner(loop_factory=InstantLoop) as runner,
    ):
        runner.run(main())


def stand_still(seconds: float) -> None:
    """Have the process stopped for a while."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, InstantLoop)
    loop.now += seconds


# -- proof


def test_the_second_beat_that_finds_nobody_proves_it():
    async def play(scene: Scene) -> None:
        await asyncio.sleep(0.5)
        assert scene.registry.beats == 1
        assert not scene.peers.is_alone
        for _ in range(20):
            await asyncio.sleep(1)
            assert scene.peers.is_alone

    run(play)


def test_a_proof_holds_for_two_beats():
    async def play(scene: Scene) -> None:
        await asyncio.sleep(3.5)
        scene.registry.failing = True
        await asyncio.sleep(1.4)  # the last one that succeeded began at 3
        assert scene.peers.is_alone
        await asyncio.sleep(0.2)
        assert not scene.peers.is_alone
        scene.registry.failing = False
        await asyncio.sleep(1)
        assert scene.peers.is_alone

    run(play)


def test_a_beat_that_comes_late_proves_nothing_before_it_comes():
    async def play(scene: Scene) -> None:
        await asyncio.sleep(3.5)
        scene.registry.seconds = 4.0
        await asyncio.sleep(2)
        assert not scene.peers.is_alone

    run(play)


def test_another_process_counts_for_its_lease():
    async def play(scene: Scene) -> None:
        scene.registry.alive.add("another")
        await asyncio.sleep(10.5)
        assert not scene.peers.is_alone
        scene.registry.alive.clear()  # it is killed
        await asyncio.sleep(3)
        assert not scene.peers.is_alone
        await asyncio.sleep(3)
        assert scene.peers.is_alone

    run(play)


def test_who_hears_of_another_is_not_alone_at_once_and_beats():
    async def play(scene: Scene) -> None:
        await asyncio.sleep(3.5)
        assert scene.peers.is_alone
        beats = scene.registry.beats
        scene.registry.alive.add("another")
        scene.peers.receive(ANOTHER)
        assert not scene.peers.is_alone
        await asyncio.sleep(0.1)
        assert scene.registry.beats == beats + 1
        assert not scene.peers.is_alone

    run(play)


def test_a_beat_that_is_under_way_when_another_joins_proves_nothing():
    async def play(scene: Scene) -> None:
        scene.registry.seconds = 0.5
        await asyncio.sleep(1.6)  # the second one has looked, and not answered yet
        assert scene.registry.beats == 2
        scene.peers.receive(ANOTHER)
        await asyncio.sleep(0.6)
        assert scene.registry.beats == 2
        assert not scene.peers.is_alone
        await asyncio.sleep(2)
        assert scene.peers.is_alone

    run(play)


def test_those_who_are_not_alone_do_not_beat_whenever_another_joins():
    """A hundred that start together would write ten thousand times."""

    async def play(scene: Scene) -> None:
        scene.registry.alive.add("another")
        await asyncio.sleep(3.5)
        beats = scene.registry.beats
        for _ in range(100):
            scene.peers.receive(ANOTHER)
            await asyncio.sleep(0.004)
        assert scene.registry.beats == beats

    run(play)


# -- what others know of this process


def test_it_says_once_that_it_has_joined():
    async def play(scene: Scene) -> None:
        await asyncio.sleep(30)
        assert scene.bus.sent == [Joined(this_process())]
        assert scene.returns == []

    run(play)


def test_it_says_so_once_its_row_is_written_and_the_bus_takes_it():
    async def play(scene: Scene) -> None:
        scene.registry.failing = scene.bus.is_broken = True
        await asyncio.sleep(5.5)
        assert scene.bus.sent == []  # who heard of it would not find it
        scene.registry.failing = False
        await asyncio.sleep(2)
        assert len(scene.bus.sent) == 2
        scene.bus.is_broken = False
        await asyncio.sleep(10)
        assert len(scene.bus.sent) == 3

    run(play)


def test_it_is_new_for_two_beats():
    async def play(scene: Scene) -> None:
        await asyncio.sleep(0)
        for _ in range(19):
            assert scene.peers.is_new
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)
        assert not scene.peers.is_new

    run(play)


def test_a_process_that_has_stood_still_is_new_again_and_not_alone():
    """Others have taken it for dead, and so announced nothing to it."""

    async def play(scene: Scene) -> None:
        await asyncio.sleep(10.5)
        stand_still(60)
        assert not scene.peers.is_alone
        await asyncio.sleep(0.1)
        assert not scene.peers.is_alone
        assert scene.peers.is_new
        assert (len(scene.bus.sent), len(scene.returns)) == (2, 1)
        await asyncio.sleep(10)
        assert scene.peers.is_alone
        assert len(scene.bus.sent) == 2

    run(play)


def test_a_row_that_has_gone_is_written_again():
    """As after a flush, or where the database was restored from a backup."""

    async def play(scene: Scene) -> None:
        await asyncio.sleep(3.5)
        scene.registry.rows.clear()
        await asyncio.sleep(1)
        assert this_process() in scene.registry.rows
        assert not scene.peers.is_alone
        assert len(scene.bus.sent) == 2

    run(play)


# -- clocks


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_database_with_another_clock_proves_nothing_at_first(hours):
    """After a failover: the others have beaten by the clock of the one before."""

    async def play(scene: Scene) -> None:
        await asyncio.sleep(3.5)
        assert scene.peers.is_alone
        scene.registry.skew = hours * 3_600.0
        await asyncio.sleep(1)
        assert not scene.peers.is_alone
        await asyncio.sleep(1)
        assert scene.peers.is_alone

    run(play)


def test_after_a_time_in_which_nobody_could_write_nobody_is_taken_for_dead():
    """The first that can finds the rows of all others old."""

    async def play(scene: Scene) -> None:
        scene.registry.alive.add("another")
        await asyncio.sleep(3.5)
        scene.registry.failing = True
        scene.registry.alive.clear()
        await asyncio.sleep(30)
        scene.registry.failing = False
        await asyncio.sleep(0.9)
        assert scene.registry.rows[this_process()] > scene.registry.rows["another"]
        assert not scene.peers.is_alone

    run(play)


# -- the register


def test_a_register_that_can_not_be_written_is_told_once(caplog):
    async def play(scene: Scene) -> None:
        await asyncio.sleep(3.5)
        for _ in range(2):
            scene.registry.failing = True
            await asyncio.sleep(20)
            scene.registry.failing = False
            await asyncio.sleep(20)

    run(play)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "manage.py migrate" in said[0]


def test_a_row_that_can_not_be_deleted_holds_nothing_up():
    async def play(scene: Scene) -> None:
        await asyncio.sleep(1)
        scene.registry.failing = True
        await scene.peers.leave()

    run(play)


def test_without_beats_nothing_is_proven():
    async def main() -> None:
        peers = Peers(SilentBus(), lambda: None)
        assert not peers.is_active
        await peers.registered()
        await peers.leave()
        assert not peers.is_alone
        assert not peers.is_new

    with stage(PROCESS_BEAT_SECONDS=None):
        asyncio.run(main())


# -- processes of an earlier release, which say hello


def test_a_hello_counts_for_as_long_as_it_says():
    async def play(scene: Scene) -> None:
        await asyncio.sleep(3.5)
        beats = scene.registry.beats
        scene.peers.receive(Joined("old", 10.0))
        scene.peers.receive(Joined("older", 2.0))
        assert not scene.peers.is_alone
        await asyncio.sleep(9.9)
        assert not scene.peers.is_alone
        assert scene.registry.beats - beats <= 10
        await asyncio.sleep(0.2)
        assert scene.peers.is_alone

    run(play)


def test_a_hello_that_asks_is_answered():
    async def play(scene: Scene) -> None:
        await asyncio.sleep(3.5)
        scene.peers.receive(Joined("old", 10.0))
        await asyncio.sleep(0.1)
        assert len(scene.bus.sent) == 1
        scene.peers.receive(Joined("old", 10.0, is_asking=True))
        await asyncio.sleep(0.1)
        assert len(scene.bus.sent) == 2

    run(play)


# -- two processes


@pytest.fixture(scope="module", params=["redis", "redis-pubsub"])
def two_workers(
    _site_template: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[SimpleNamespace]:
    """Two servers of one site behind one Valkey; what is not announced is found after a minute."""
    valkey = Valkey()
    env = {"REDIS_URL": valkey.url, "CHANNEL_LAYER": request.param, "LIMITS": "0"}
    rates = ("RATE_MESSAGES", "RATE_PUBLISHES", "RATE_PUBLISHES_PER_USER")  # for one that hurries
    with (
        site_for_module(
            _site_template, {"HEAD_CHECK_SECONDS": 60.0, **dict.fromkeys(rates)}, **env
        ) as site,
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
    url = f"{one.ws_url}/ws/topics/{topic}?token={token}"
    # Its answers are not read; in a full queue the server's own goodbye would not be seen either.
    async with connect(url, max_queue=None) as publisher:
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
            # The other worker's only one. It closes at once: nothing waits here to be read.
            async with connect(url, max_queue=None) as reader:
                first = await receive(reader, SECONDS)
                for offset in range(1, 100):
                    assert (await receive(reader, SECONDS))["data"] == first["data"] + offset
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)


# -- two processes, one of which stops


@pytest.fixture(scope="module")
def short_leases(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    """Two servers of one site, with short leases; nothing is found by a regular check."""
    valkey = Valkey()
    constants = {
        "HEAD_CHECK_SECONDS": 60.0,
        "PROCESS_BEAT_SECONDS": 0.2,
        "PROCESS_LEASE_SECONDS": 1.0,
    }
    env = {"REDIS_URL": valkey.url, "CHANNEL_LAYER": "redis-pubsub"}
    with site_for_module(_site_template, constants, **env) as site, serving(site.env) as two:
        site.two = two
        yield site
    valkey.stop()


def names(site: SimpleNamespace) -> set[str]:
    """The processes in the register; one that was killed before may be among them."""
    code = (
        "from realtime.models import Process\nresult = [row.name for row in Process.objects.all()]"
    )
    return set(site.shell.run(code))


async def test_a_process_that_is_stopped_for_a_while_misses_nothing(short_leases):
    """The other one takes it for dead meanwhile, and announces nothing to it."""
    one, two = short_leases.server, short_leases.two
    token = short_leases.tokens["alice"]
    topic = f"room.{uuid.uuid4().hex[:8]}"
    async with (
        connect(f"{one.ws_url}/ws/topics/{topic}?token={token}") as first,
        connect(f"{two.ws_url}/ws/topics/{topic}?token={token}") as second,
    ):
        await send(first, {"type": "publish", "data": "before"})
        for socket in (first, second):
            await receive_event(socket, "before")
        (worker,) = two.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        try:
            await asyncio.sleep(2)
            for number in range(10):
                await send(first, {"type": "publish", "data": number})
                await receive_event(first, number)
        finally:
            os.kill(worker, signal.SIGCONT)
        for number in range(10):
            assert (await receive(second, SECONDS))["data"] == number
        for number in range(10, 13):
            await send(first, {"type": "publish", "data": number})
            for socket in (first, second):
                await receive_event(socket, number)


async def test_the_row_of_a_process_goes_with_its_last_reader(short_leases):
    token = short_leases.tokens["alice"]
    for server in (short_leases.server, short_leases.two):
        async with connect(f"{server.ws_url}/ws/topics/room.a?token={token}") as socket:
            await send(socket, {"type": "publish", "data": 1})
            await receive_event(socket, 1)
            served = await asyncio.to_thread(names, short_leases)
            assert served
        gone = await asyncio.to_thread(
            wait_until, lambda served=served: served - names(short_leases)
        )
        assert len(gone) == 1


async def test_what_a_killed_process_leaves_keeps_nobody_from_anything(short_leases):
    one, two = short_leases.server, short_leases.two
    token = short_leases.tokens["alice"]
    topic = f"room.{uuid.uuid4().hex[:8]}"
    async with connect(f"{one.ws_url}/ws/topics/{topic}?token={token}") as first:
        async with connect(f"{two.ws_url}/ws/topics/{topic}?token={token}") as second:
            await send(first, {"type": "publish", "data": "before"})
            for socket in (first, second):
                await receive_event(socket, "before")
            (worker,) = two.worker_pids()
            os.kill(worker, signal.SIGKILL)
            await send(first, {"type": "publish", "data": "after"})
            await receive_event(first, "after")
        await asyncio.to_thread(wait_until, lambda: two.worker_pids() not in ([], [worker]))
        async with connect(f"{two.ws_url}/ws/topics/{topic}?token={token}") as second:
            for number in range(3):
                await send(first, {"type": "publish", "data": number})
                for socket in (first, second):
                    await receive_event(socket, number)
