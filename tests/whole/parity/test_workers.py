"""Rows 7 and 8: several workers, the death of one, the death of Redis, and volume."""

import asyncio
from typing import Any

from .clients import (
    Publisher,
    Stream,
    listening,
    new_topic,
    publish,
    publishing,
    resumable,
    websocket,
    within,
)
from .contestants import Server, Site
from .outcomes import row, see


async def two_of(site: Site) -> list[Server]:
    """Two servers, started at once."""
    site.start_valkey()
    return await asyncio.gather(*[asyncio.to_thread(site.start) for _ in range(2)])


# -- row 7


@row(7, "What is published on one worker arrives at the subscribers of another")
async def test_two_workers(here: Server, there: Server) -> None:
    one, two = here, there
    topic, alice = new_topic("room"), one.users["alice"]
    async with (
        listening(one, topic, alice) as near,
        listening(two, topic, alice) as far,
        websocket(two, f"/ws/topics/{topic}", alice) as socket,
    ):
        for number in range(20):
            await publish(one, topic, number)
        for each in (near, far):
            see(await each.take(20) == list(range(20)), "Events were missing or out of order.")
        found = [(await socket.receive())["data"] for _ in range(20)]
        see(found == list(range(20)), "A WebSocket's events were missing or out of order.")


@row(7, "A user's sockets on two workers both get what one of them says")
async def test_user_on_two_workers(here: Server, there: Server) -> None:
    one, two = here, there
    alice = one.users["alice"]
    async with (
        websocket(one, "/ws/user", alice) as near,
        websocket(two, "/ws/user", alice) as far,
    ):
        await near.send({"n": 1})
        for socket in (near, far):
            see(await socket.receive() == {"echo": {"n": 1}}, "Another frame came.")


@row(7, "Redis is killed and restarted while events are published: all arrive, once, in order")
async def test_redis_dies(site: Site) -> None:
    one, two = await two_of(site)
    topic, count = new_topic(), 120
    async with listening(one, topic) as near, listening(two, topic) as far:
        async with publishing(one) as publisher:
            await _publish_over_a_death(site, publisher, topic, count)
        for each, where in ((near, "the publisher's worker"), (far, "another worker")):
            await _all_arrive(each, count, where)


async def _publish_over_a_death(site: Site, publisher: Publisher, topic: str, count: int) -> None:
    assert site.valkey is not None
    for number in range(count):
        if number == count // 3:
            await asyncio.to_thread(site.valkey.kill)
        if number == count * 2 // 3:
            await asyncio.to_thread(site.valkey.start)
        if count // 3 <= number < count * 2 // 3:
            await _try(publisher, topic, number)
        else:
            await publisher.publish(topic, number)


async def _try(publisher: Publisher, topic: str, number: int) -> None:
    """Publish while Redis is away. Who can't says so with an error, and nothing is expected."""
    async with within(5, "A POST got no answer for 5 s while Redis was away."):
        response = await publisher.client.post(f"/topics/{topic}/events", json=number)
    see(response.status_code == 201, "Publishing failed while Redis was away.")


async def _all_arrive(stream: Stream, count: int, where: str) -> None:
    found: list[Any] = []
    async with within(12, f"Events did not arrive on {where}."):
        while len(found) < count:
            found.append((await stream.next(13)).json)
    see(found == list(range(count)), f"Events were twice or out of order on {where}.")


@row(7, "Subscribers hear again what is published after a restart of Redis")
async def test_redis_comes_back(site: Site) -> None:
    one, two = await two_of(site)
    topic = new_topic()
    assert site.valkey is not None
    async with listening(two, topic) as far, publishing(one) as publisher:
        await publisher.publish(topic, 0)
        see(await far.take(1) == [0], "Another event came.")
        await asyncio.to_thread(site.valkey.kill)
        await asyncio.to_thread(site.valkey.start)
        await asyncio.sleep(0.2)
        async with within(15, "Nothing arrived within 15 s of the restart."):
            hears = asyncio.create_task(far.next(16))
            try:
                while not hears.done():
                    await publisher.publish(topic, 1)
                    await asyncio.wait([hears], timeout=0.5)
            finally:
                hears.cancel()
                await asyncio.gather(hears, return_exceptions=True)
        hears.result()


@row(7, "A worker is killed: its clients come back on another one and miss nothing")
async def test_worker_dies(here: Server) -> None:
    one, two = await asyncio.to_thread(here.site.start), here
    topic = new_topic()
    async with listening(one, topic) as stream:
        await publish(two, topic, 0)
        event = await stream.next()
        last = await resumable(event)
        await asyncio.to_thread(one.kill)
    for number in (1, 2, 3):
        await publish(two, topic, number)
    async with listening(two, topic, last=last) as stream:
        see(await stream.take(3) == [1, 2, 3], "Other events came.")


# -- row 8


@row(8, "A burst of 800 events of 8 publishers: a WebSocket and a stream get all, in one order")
async def test_burst(here: Server) -> None:
    topic, alice = new_topic(), here.users["alice"]

    async def burst(publisher_number: int) -> None:
        async with publishing(here) as publisher:
            for number in range(100):
                await publisher.publish(topic, [publisher_number, number])

    async with (
        listening(here, topic) as stream,
        websocket(here, f"/ws/topics/{topic}", alice) as socket,
    ):
        publishers = asyncio.gather(*[burst(number) for number in range(8)])
        try:
            by_stream = await stream.take(800, 20)
            by_socket = [(await socket.receive(20))["data"] for _ in range(800)]
        finally:
            publishers.cancel()
            await asyncio.gather(publishers, return_exceptions=True)
    expected = sorted([a, b] for a in range(8) for b in range(100))
    see(sorted(by_stream) == expected, "The stream's events were missing or twice.")
    see(by_stream == by_socket, "The WebSocket had them in another order.")
