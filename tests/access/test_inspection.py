"""What a process has open, and what it tells others of it over the bus."""

import asyncio
import json
from typing import Any

import pytest
from django.contrib.auth.models import User

from realtime.access.identity import Identity
from realtime.access.inspection import (
    ANSWERS,
    MOST_CONNECTIONS,
    MOST_NAMES,
    MOST_TOPICS,
    ConnectionInfo,
    address_of,
    answer,
    inspect,
)
from realtime.delivery.hub import get_hub
from realtime.delivery.parts import PART_BYTES
from realtime.delivery.subscription import Subscription
from realtime.events.event import Event

from ..support.hubs import Reader, stage


class Stream:
    def __init__(self, *topics: str) -> None:
        self.topics = topics

    def describe(self) -> ConnectionInfo:
        return ConnectionInfo("SSE", self.topics, "192.0.2.7")


def live(pk: Any, *streams: Stream) -> dict[Any, dict[Any, float]]:
    return {Identity(User(pk=pk), "session", str(pk)): dict.fromkeys(streams, 5.0)}


async def test_the_topics_with_the_most_readers_are_named():
    with stage():
        hub = get_hub()
        names = [f"room.{number}" for number in range(MOST_TOPICS + 5)]
        readers = [(name, Reader()) for name in [*names, "room.54", "realtime.own"]]
        for name, reader in readers:
            await hub.attach(name, reader)
        found = inspect({}, []).topics
        assert found[0] == ["room.54", 2]
        assert len(found) == MOST_TOPICS
        assert "realtime.own" not in dict(found)
        for name, reader in readers:
            hub.detach(hub.feeds[name], reader)
        await hub._closing


def test_the_connections_of_those_who_were_asked_for():
    many = [f"room.{number}" for number in range(MOST_NAMES + 2)]
    open_now = live(1, Stream("room.a")) | live(2, Stream(*many)) | live(3, Stream())
    assert inspect(open_now, ["1", "2", "4"]).connections == [
        ["1", "SSE", 5.0, ["room.a"], 1, "192.0.2.7"],
        ["2", "SSE", 5.0, many[:MOST_NAMES], MOST_NAMES + 2, "192.0.2.7"],
    ]
    crowd = live(1, *(Stream() for _ in range(MOST_CONNECTIONS + 1)))
    assert len(inspect(crowd, ["1"]).connections) == MOST_CONNECTIONS


async def test_an_answer_comes_in_parts_that_every_bus_takes():
    open_now = live(1, *(Stream(*["t" * 99] * MOST_NAMES) for _ in range(20)))
    got: list[Any] = []
    with stage():
        async with Subscription() as subscription, asyncio.timeout(20):
            await subscription.add(f"{ANSWERS}7")
            hub = get_hub()
            await answer(open_now, {"number": "7", "process": "another", "users": ["1"]})
            while not got or "is_last" not in got[-1]:
                for event in await subscription.read():
                    assert isinstance(event, Event)
                    assert len(event.data) < PART_BYTES + 100
                    got.append(json.loads(event.data))
        await hub._closing
    assert sum(len(part.get("connections", ())) for part in got) == 20


@pytest.mark.parametrize(
    "question", [None, [], "x", {}, {"number": "a b"}, {"number": "1", "users": {}}]
)
async def test_what_is_no_question_does_no_harm(question):
    """Staff may publish anything to the topic on which it comes."""
    with stage():
        await answer({}, question)


@pytest.mark.parametrize(
    ("scope", "address"),
    [({"client": ("::1", 5)}, "::1"), ({"client": ("", 0)}, None), ({"client": None}, None)],
)
def test_address_is_that_of_the_request(scope, address):
    assert address_of(scope) == address
