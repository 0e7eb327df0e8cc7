"""`realtime.limits.exchange`: one rate for all processes."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from time import monotonic_ns
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.test import override_settings

from realtime.conf.rate import parse_rate
from realtime.delivery.bus.postgres import PostgresBus
from realtime.events.event import Event
from realtime.limits import exchange as module
from realtime.limits.exchange import MOST_KEYS, TOPIC, Exchange, get_limiter, parse, processes
from realtime.limits.limiter import Limiter

from ..support.buses import LOGGER, listening, send, tell_processes_apart
from ..support.clients import ask, bearer, connect
from ..support.databases import ON_POSTGRESQL
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
    [
        *(
            "1",
            "null",
            "[]",
            "{}",
            '{"process": 1, "number": 1}',
            '{"process": "a", "number": "1"}',
        ),
        '{"process": "a", "number": 1, "part": "0"}',
        '{"process": "a", "number": 1, "parts": null}',
    ],
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


@pytest.fixture
def many(monkeypatch):
    """An exchange of two processes with many clients near their limits, and what it tells."""
    monkeypatch.setattr(module, "processes", lambda: 2)
    limiter = Limiter()
    limiter.divide(2)
    for number in range(MOST_KEYS):
        limiter.make_bucket(("RATE_PUBLISHES_PER_USER", f"u{number}"), SLOW).spend(
            monotonic_ns(), 4
        )
        for _ in range(2):
            limiter.connect(("MAX_CONNECTIONS_PER_USER", f"u{number}"))
    told: list[Event] = []

    async def announce(events: Any) -> None:
        told.extend(events)

    monkeypatch.setattr(module, "announce", announce)
    settings = {"MAX_CONNECTIONS_PER_USER": 4, "MAX_EVENT_BYTES": 500}
    with override_settings(REALTIME=settings):
        yield SimpleNamespace(exchange=Exchange(limiter), told=told)


SLOW = parse_rate("5/d")


def sums(limiter: Limiter, number: int) -> tuple[int, int]:
    """What this limiter has left of a client's rate, and how many connections it knows of."""
    bucket, left = limiter.make_bucket(("RATE_PUBLISHES_PER_USER", f"u{number}"), SLOW), 0
    while not bucket.take(monotonic_ns()):
        left += 1
    return left, limiter.connections(("MAX_CONNECTIONS_PER_USER", f"u{number}"))


def heard_by(messages: Iterable[Event], hear: Callable[..., None] | None = None) -> Limiter:
    limiter = Limiter()
    for number in range(MOST_KEYS):
        limiter.make_bucket(("RATE_PUBLISHES_PER_USER", f"u{number}"), SLOW)
    for event in messages:
        said = parse(event.data)
        assert said is not None
        (hear or Limiter.hear)(limiter, *said)
    return limiter


async def test_totals_of_many_clients_are_told_whatever_an_event_may_hold(many):
    for _ in range(2):
        assert await many.exchange._tell()
    assert len(many.told) > 10
    limiter = heard_by(many.told)
    assert {sums(limiter, number) for number in range(MOST_KEYS)} == {(1, 2)}
    numbers = [json.loads(event.data)["number"] for event in many.told]
    assert numbers == sorted(set(numbers))


async def test_a_process_of_an_earlier_release_understands_parts_and_is_understood(many):
    await many.exchange._tell()

    def hear(limiter: Limiter, *said: Any) -> None:
        limiter.hear(*said[:4])  # it knows of nothing else in a message

    limiter = heard_by(many.told, hear)
    assert {sums(limiter, number)[0] for number in range(MOST_KEYS)} == {1}
    assert sums(limiter, MOST_KEYS - 1)[1] == 2
    key = ["MAX_CONNECTIONS_PER_USER", "u1", 2]
    said = json.dumps({"process": "before", "number": 1, "spent": [], "open": [key]})
    assert sums(heard_by([Event("t", "message", said)]), 1) == (5, 2)


@pytest.mark.skipif(not ON_POSTGRESQL, reason="a bus over PostgreSQL")
@pytest.mark.django_db(transaction=True)
async def test_totals_of_many_clients_cross_postgresql(many, monkeypatch):
    """As it goes out: of what does not fit, only the topic would come."""
    tell_processes_apart(monkeypatch)
    await many.exchange._tell()
    got: list[Event] = []
    async with listening(PostgresBus, {}, TOPIC) as (_, heard):
        assert await send(PostgresBus(LOGGER), *many.told)
        while len(got) < len(many.told):
            topic, events = await heard.get()
            assert (topic, bool(events)) == (TOPIC, True), "only that there is something"
            got += events
    limiter = heard_by(got)
    assert {sums(limiter, number) for number in range(MOST_KEYS)} == {(1, 2)}


@pytest.fixture
def over_postgresql(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    """Two servers of one site with many limited topics, and no bus but PostgreSQL."""
    settings = {
        "TOPICS": {"room.many.*": {"PUBLISH_RATE": "1/h burst 8"}},
        "RATE_PUBLISHES_PER_USER": None,
        "MAX_BATCH_EVENTS": 2_000,
        "PROCESS_BEAT_SECONDS": 0.3,
        "PROCESS_LEASE_SECONDS": 3.0,
    }
    site = site_for_module(_site_template, settings, BUS="postgres")
    with site as one, serving(one.env) as two:
        one.two = two
        yield one


@pytest.mark.skipif(not ON_POSTGRESQL, reason="a bus over PostgreSQL")
async def test_what_many_topics_had_in_one_process_is_not_left_in_the_other(over_postgresql):
    site, two = over_postgresql, over_postgresql.two

    async def post(server: Any, times: int, *numbers: int) -> int:
        topics = [f"room.many.{number}" for number in numbers for _ in range(times)]
        events = [{"topic": topic, "data": 1} for topic in topics]
        async with httpx.AsyncClient(headers=bearer(site.tokens["alice"]), timeout=60) as client:
            answer = await client.post(f"{server.url}/events", json=events)
        return answer.status_code

    urls = [f"{each.ws_url}/ws?token={site.tokens['alice']}" for each in (site.server, two)]
    async with connect(urls[0]) as one, connect(urls[1]) as other:
        for socket in (one, other):  # so that each process knows of the other
            await ask(socket, {"type": "subscribe", "topic": "public.readers"})
        await asyncio.sleep(1)
        assert await post(two, 1, *range(200)) == 201
        assert await post(site.server, 7, *range(200)) == 201
        # Of each topic the second has its part, 3 more; to refuse 4 it has to know of the first.
        for number in range(20):
            await asyncio.sleep(0.5)
            if await post(two, 4, number) == 429:
                break
        else:
            pytest.fail("It has not heard of the other process.")


async def test_a_process_without_readers_is_one():
    assert processes() == 1
    assert get_limiter() is get_limiter()
