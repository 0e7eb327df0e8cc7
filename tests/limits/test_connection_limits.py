"""`realtime.limits.connection_limits`: what one connection may send."""

import pytest
from django.test import override_settings

from realtime.access.identity import ANONYMOUS
from realtime.conf.rate import parse_rate
from realtime.exceptions import RateLimited
from realtime.limits.connection_limits import NO_LIMITS, PUBLISH_BYTES, ConnectionLimits

SLOW = parse_rate("2/d")


def refused(take, *arguments) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        take(*arguments)
    return caught.value


@pytest.mark.parametrize("name", ["take_publish", "take_subscribe"])
def test_each_kind_has_its_own(name):
    limits = ConnectionLimits(None, SLOW, SLOW)
    take = getattr(limits, name)
    take()
    take()
    error = refused(take)
    assert 43_000 < error.retry_after <= 43_200
    assert "2/d" in str(error)
    assert str(error).endswith(" in 43200 s.")
    limits.take_message(1)  # has no limit
    {"take_publish": limits.take_subscribe, "take_subscribe": limits.take_publish}[name]()


def test_what_is_too_long_for_anything_else_is_refused_as_a_publication():
    limits = ConnectionLimits(None, SLOW, None)
    limits.take_message(PUBLISH_BYTES + 1)  # counts when it is known to be one
    limits.take_publish()
    limits.take_publish()
    limits.take_message(PUBLISH_BYTES)  # may be a subscription
    assert "RATE_PUBLISHES" in str(refused(limits.take_message, PUBLISH_BYTES + 1))


def test_refusals_at_ten_times_the_rate_are_hammering():
    limits = ConnectionLimits(SLOW, None, None)
    limits.take_message(1)
    limits.take_message(1)
    hammering = [refused(limits.take_message, 1).is_hammering for _ in range(21)]
    assert hammering == [False] * 20 + [True]


def test_without_limits_nothing_is_refused():
    for _ in range(10_000):
        NO_LIMITS.take_message(10**6)
        NO_LIMITS.take_publish()
        NO_LIMITS.take_subscribe()


async def test_another_identity_has_its_own_and_what_is_spent_stays_spent():
    rates = {"RATE_MESSAGES": "4/d", "RATE_PUBLISHES": "2/d", "RATE_SUBSCRIBES": None}

    async def plan(identity: object, action: str) -> str | None:
        return {"RATE_MESSAGES": "3/d", "RATE_SUBSCRIBES": "1/d"}.get(action)

    with override_settings(REALTIME=rates):
        first = await ConnectionLimits.of(ANONYMOUS)
    for take in (first.take_publish, first.take_publish, first.take_subscribe):
        take()
    first.take_message(1)
    with override_settings(REALTIME={**rates, "RATE_FOR": plan}):
        second = await first.renewed(ANONYMOUS)
    second.take_message(1)
    second.take_message(1)
    refused(second.take_message, 1)
    refused(second.take_publish)
    second.take_subscribe()
    refused(second.take_subscribe)


async def test_they_are_those_of_the_settings():
    with override_settings(
        REALTIME={"RATE_MESSAGES": "1/d", "RATE_PUBLISHES": None, "RATE_SUBSCRIBES": "unlimited"}
    ):
        limits = await ConnectionLimits.of(ANONYMOUS)
    limits.take_message(1)
    refused(limits.take_message, 1)
    for _ in range(200):
        limits.take_publish()
        limits.take_subscribe()
