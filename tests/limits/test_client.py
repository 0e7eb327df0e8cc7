"""`realtime.limits.client`: whom a request counts for."""

import asyncio

import pytest
from django.test import override_settings

from realtime.access.identity import Identity
from realtime.exceptions import DataTooLarge, RateLimited, TooManyRequests
from realtime.limits import client as module
from realtime.limits.client import Client, network_of
from realtime.limits.exchange import get_limiter

from ..support.clients import eventually
from .support import anonymous, by_session, by_token, user

TWO = {f"RATE_PUBLISHES_PER_{kind}": "2/d" for kind in ("USER", "TOKEN", "ADDRESS")}


async def count(client: Client) -> int:
    """How many are let through, one after the other."""
    for number in range(100):
        try:
            await client.take("PUBLISHES")
        except RateLimited:
            return number
    return 100


@override_settings(REALTIME={**TWO, "RATE_PUBLISHES_PER_ADDRESS": None})
async def test_connections_of_one_user_count_together():
    assert await count(by_session(1)) == 2
    assert await count(by_session(1, "192.0.2.9")) == 0
    assert await count(by_session(2)) == 2


@override_settings(REALTIME={**TWO, "RATE_PUBLISHES_PER_ADDRESS": None})
async def test_a_token_counts_by_itself_and_not_for_its_user():
    assert await count(by_token("7")) == 2
    assert await count(Client(Identity(user(), "ticket", "token:7"), {})) == 0
    assert await count(by_token("8")) == 2
    assert await count(Client(Identity(user(), "ticket", "session:x"), {})) == 2
    assert await count(by_session()) == 0


@override_settings(REALTIME={**TWO, "RATE_PUBLISHES_PER_USER": None})
async def test_who_is_nobody_counts_by_the_address():
    assert await count(anonymous("2001:db8::1")) == 2
    assert await count(anonymous("2001:db8::ffff:2")) == 0
    assert await count(by_session(1, "2001:db8::3")) == 0
    assert await count(anonymous("2001:db8:0:1::1")) == 2
    assert await count(anonymous(None)) == 100  # on a Unix socket


@override_settings(REALTIME={"RATE_PUBLISHES_PER_USER": "9/d", "RATE_PUBLISHES_PER_ADDRESS": "2/d"})
async def test_what_one_limit_refuses_costs_nothing_of_the_others():
    for _ in range(20):
        await count(by_session(1, "192.0.2.1"))
    assert await count(by_session(1, "192.0.2.2")) == 2


@override_settings(REALTIME=TWO)
async def test_several_at_once_are_taken_all_or_not_at_all():
    client = by_session()
    with pytest.raises(DataTooLarge, match="2/d"):
        await client.take("PUBLISHES", 3)
    await client.take("PUBLISHES", 2)
    with pytest.raises(RateLimited):
        await client.check("PUBLISHES")


@override_settings(REALTIME=TWO)
async def test_to_check_costs_nothing_and_to_owe_costs_more_than_there_is():
    client = by_session()
    for _ in range(10):
        await client.check("PUBLISHES")
    await client.owe("PUBLISHES", 3)
    with pytest.raises(RateLimited) as caught:
        await client.check("PUBLISHES")
    assert caught.value.retry_after > 86_000


async def test_the_hook_decides_for_users_and_tokens_and_not_for_addresses():
    asked = []

    async def rate(identity: Identity, action: str) -> str:
        asked.append(action)
        return "1/d"

    with override_settings(REALTIME={**TWO, "RATE_FOR": rate}):
        assert await count(by_session(1, "192.0.2.1")) == 1
        assert await count(anonymous("192.0.2.1")) == 1
    assert asked == ["RATE_PUBLISHES_PER_USER"]  # once, and not for each


async def test_another_rate_is_noticed_and_what_was_spent_stays_spent(monkeypatch):
    plan = ["5/d"]

    async def rate(identity: Identity, action: str) -> str:
        return plan[0]

    with override_settings(REALTIME={"RATE_FOR": rate}):
        client = by_session()
        assert await count(client) == 5
        plan[0] = "7/d"
        assert await count(client) == 0, "it is not asked each time"
        monkeypatch.setattr(module, "ASKS_AFTER", 0)
        [bucket] = get_limiter().buckets.values()
        bucket.asks_at = 0
        assert await count(client) == 2
        plan[0] = "unlimited"
        assert await count(client) == 100
        plan[0] = "4/d"
        assert await count(client) == 4


async def test_connections_that_come_at_once_wait_for_the_hook_before_they_are_counted():
    async def rate(identity: Identity, action: str) -> None:
        await asyncio.sleep(0)

    async def open_one() -> None:
        client = by_session()
        await client.require_place()
        client.connect()

    with override_settings(REALTIME={"MAX_CONNECTIONS_PER_USER": 3, "RATE_FOR": rate}):
        ends = await asyncio.gather(*(open_one() for _ in range(9)), return_exceptions=True)
    assert [type(end) for end in ends] == [type(None)] * 3 + [TooManyRequests] * 6


async def test_who_has_no_limit_by_the_hook_has_none():
    async def rate(identity: Identity, action: str) -> str:
        return "unlimited"

    with override_settings(REALTIME={"RATE_PUBLISHES_PER_USER": "1/d", "RATE_FOR": rate}):
        assert await count(by_session()) == 100


@override_settings(REALTIME={"MAX_CONNECTIONS_PER_USER": 2})
async def test_connections_are_counted_until_they_end():
    clients = [by_session(), by_session()]
    for client in clients:
        await client.require_place()
        client.connect()
    with pytest.raises(TooManyRequests, match=r"2 connections .* \(MAX_CONNECTIONS_PER_USER\)"):
        await by_session().require_place()
    await by_token("1").require_place()
    for client in clients:
        client.disconnect()
        client.disconnect()  # is no matter
    await by_session().require_place()
    assert not get_limiter()._connections


async def test_a_connection_that_does_not_begin_counts_no_more(monkeypatch):
    monkeypatch.setattr(module, "BEGIN_SECONDS", 0.0)
    lost, begun = by_session(1), by_session(2)
    for client in (lost, begun):
        client.reserve()
    begun.connect()
    counted = get_limiter()._connections
    assert counted["MAX_CONNECTIONS_PER_USER", "1"] == 1
    await eventually(lambda: "1" not in {name for _, name in counted})
    assert counted["MAX_CONNECTIONS_PER_USER", "2"] == 1
    lost.connect()  # all the same, and late
    begun.disconnect()
    assert counted["MAX_CONNECTIONS_PER_USER", "1"] == 1
    lost.disconnect()
    assert not counted


@override_settings(REALTIME={"MAX_CONNECTIONS_PER_TOKEN": 1, "MAX_CONNECTIONS_PER_ADDRESS": 2})
async def test_a_connection_that_goes_on_by_another_token_counts_for_that_one():
    first, other = by_token("1"), by_token("3")
    first.connect()
    other.connect()
    second = by_token("2")
    second.replace(first)  # its address has two already, of which this is one
    with pytest.raises(TooManyRequests, match="MAX_CONNECTIONS_PER_TOKEN"):
        by_token("2").replace(other)
    assert set(get_limiter()._connections.values()) == {1, 2}
    again = by_token("3")
    again.replace(other)  # the same is no matter
    first.disconnect()
    for client in (second, again):
        client.disconnect()
    assert not get_limiter()._connections


async def test_who_hammers_is_kept_out_from_that_address():
    by_session().keep_out()
    with pytest.raises(TooManyRequests, match="come back later") as caught:
        await by_session().require_place()
    assert 0 < caught.value.retry_after <= 30
    for other in (by_session(2), by_session(1, "192.0.2.9"), by_token("1"), anonymous("192.0.2.1")):
        await other.require_place()


async def test_an_address_is_not_kept_out_for_one_who_is_nobody():
    anonymous("192.0.2.1").keep_out()
    await anonymous("192.0.2.1").require_place()


async def test_who_was_kept_out_comes_back():
    with override_settings(REALTIME={"HAMMERING_BACK_SECONDS": 0.01}):
        by_session().keep_out()
        await asyncio.sleep(0.05)
        await by_session().require_place()


@override_settings(REALTIME={"RATE_OPENS_PER_USER": "1/d"})
async def test_how_often_they_are_opened_has_a_rate():
    await by_session().require_place()
    with pytest.raises(RateLimited, match="RATE_OPENS_PER_USER") as caught:
        await by_session().require_place()
    assert str(caught.value).endswith(f"again in {caught.value.headers['Retry-After']} s.")


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_the_network_of_an_address(host, network):
    assert network_of(host) == network
