"""Refusals are counted by what there was too much of."""

import asyncio

import pytest
from django.test import override_settings

from realtime.conf.rate import parse_rate
from realtime.exceptions import RateLimited, TooManyRequests
from realtime.limits.connection_limits import ConnectionLimits
from realtime.limits.refused import MOST_HELD, RATE_LIMITED, count_refused, hold_back

from .support import by_session


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("RATE_PUBLISHES_PER_USER", "publishes"),
        ("RATE_MESSAGES", "messages"),
        ("MAX_CONNECTIONS", "connections"),
        ("PUBLISH_RATE", "publish_rate"),
        ("RATE_OF_A_LATER_RELEASE", "other"),
    ],
)
def test_a_setting_names_what_it_limits(setting, what):
    before = RATE_LIMITED.value(what)
    count_refused(setting)
    assert RATE_LIMITED.value(what) == before + 1


@override_settings(REALTIME={"RATE_PUBLISHES_PER_USER": "1/d", "MAX_CONNECTIONS_PER_USER": 1})
async def test_what_clients_are_refused_counts():
    whats = ("publishes", "connections", "subscribes")
    before = [RATE_LIMITED.value(what) for what in whats]
    client = by_session(77)
    await client.take("PUBLISHES")
    with pytest.raises(RateLimited):
        await client.take("PUBLISHES")
    client.connect()
    with pytest.raises(TooManyRequests):
        await by_session(77).require_place()
    client.disconnect()
    limits = ConnectionLimits(None, None, parse_rate("1/d"))
    limits.take_subscribe()
    with pytest.raises(RateLimited):
        limits.take_subscribe()
    assert [RATE_LIMITED.value(what) for what in whats] == [count + 1 for count in before]


@override_settings(REALTIME={"HOLD_BACK_SECONDS": 0.5})
async def test_refused_handshakes_wait_but_for_those_over_a_thousand():
    waiting = [asyncio.create_task(hold_back()) for _ in range(MOST_HELD)]
    await asyncio.sleep(0)
    async with asyncio.timeout(0):
        await hold_back()
    assert not any(task.done() for task in waiting)
    waiting.pop().cancel()  # a client that has left, or a server that ends
    await asyncio.sleep(0)
    waiting.append(asyncio.create_task(hold_back()))
    await asyncio.sleep(0)
    assert not waiting[-1].done()
    await asyncio.gather(*waiting)
