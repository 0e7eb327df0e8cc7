"""`realtime.llm.leases`: answers on requests count for their user in all processes."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import override_settings
from django.utils import timezone

from realtime.exceptions import DatabaseUnavailable, ProviderUnavailable, TooManyRequests
from realtime.llm import leases, slots, store
from realtime.llm.leases import begin, end, leased, renew
from realtime.llm.models import Generation, Lease
from tests.eventlog.support import Threads
from tests.support.clients import Stream, bearer, eventually

from .support import site_asking
from .test_answer_stream import Thread
from .upstream import openai_events

HALF = openai_events(["one", " two"], stop_reason=None)
LONG_AGO = timedelta(minutes=1)


@pytest.fixture
def user(transactional_db: None) -> User:
    return User.objects.create_user("asker")


@pytest.fixture(autouse=True)
def _not_full() -> Iterator[None]:
    """What a test has found out of a user is not believed of the next one's."""
    yield
    slots.slots._full.clear()


def publish(user: User, name: str, **values: Any) -> None:
    now = timezone.now()
    Generation.objects.create(
        user=user, name=name, topic=name, digest="", **{"beat": now, "heard": now, **values}
    )


def lease(user: User, age: timedelta = timedelta()) -> int:
    return Lease.objects.create(user=user, beat=timezone.now() - age).pk


@override_settings(REALTIME={"LLM_PER_USER": 3})
def test_answers_of_both_kinds_count_while_their_process_is_alive(user):
    other = User.objects.create_user("other")
    for number in range(3):
        lease(other)
        lease(user, LONG_AGO)
        publish(user, f"ended{number}", ended=timezone.now())
        publish(user, f"dead{number}", beat=timezone.now() - LONG_AGO)
    publish(user, "published")
    lease(user)
    pk = begin(user)
    for ask in (lambda: begin(user), lambda: store.create(user, None, "", "")):
        with pytest.raises(TooManyRequests, match="You have 3 answers"):
            ask()
    end(pk)
    assert store.create(user, None, "", "")[1]
    with pytest.raises(TooManyRequests):
        begin(user)


def test_a_renewal_deletes_what_nobody_renews(user):
    mine, dead, alive = lease(user, LONG_AGO), lease(user, LONG_AGO), lease(user)
    renew([mine])
    assert set(Lease.objects.values_list("pk", flat=True)) == {mine, alive}
    assert Lease.objects.get(pk=mine).beat > timezone.now() - LONG_AGO / 2
    assert dead not in (mine, alive)


@override_settings(REALTIME={"LLM_PER_USER": 2})
def test_of_many_at_once_no_more_begin_than_are_allowed(user):
    begun = []

    def ask() -> None:
        with suppress(TooManyRequests):
            begun.append(begin(user))

    with Threads(4) as threads:
        for _ in range(8):
            threads.start(ask)
    assert sorted(begun) == sorted(Lease.objects.values_list("pk", flat=True))
    assert len(begun) == 2


@override_settings(REALTIME={"LLM_PER_USER": 0})
async def test_what_is_waited_for_ends_at_once_where_there_are_too_many(user):
    waiting = asyncio.Event()
    async with leased(user) as unless_refused:
        with pytest.raises(TooManyRequests):
            await unless_refused(waiting.wait)
        with pytest.raises(TooManyRequests):
            await unless_refused(waiting.wait)
    assert user.pk in slots.slots._full  # the next one is known to be one too many


async def test_a_refusal_in_the_turn_in_which_a_text_comes_breaks_nothing(caplog):
    text = asyncio.get_running_loop().create_future()

    async def refuse() -> int:
        text.set_result("one")
        raise TooManyRequests("on purpose", 5)

    beginning = asyncio.create_task(refuse())
    assert await leases._unless_refused(beginning, lambda: text) == "one"
    with pytest.raises(TooManyRequests):
        await leases._unless_refused(beginning, lambda: text)
    assert not caplog.records


@pytest.mark.parametrize("has_failed", [False, True])
async def test_an_answer_that_ends_before_the_count_begins_holds_none(
    user, has_failed, monkeypatch
):
    monkeypatch.setattr(leases, "LEAD_SECONDS", 5.0)
    monkeypatch.setattr(leases, "begin", begun := Mock(side_effect=begin))
    with suppress(ProviderUnavailable):
        async with leased(user) as unless_refused:
            assert await unless_refused(partial(asyncio.sleep, 0, "text")) == "text"
            if has_failed:
                raise ProviderUnavailable
    begun.assert_not_called()  # it would have been by now: what has begun is waited for
    assert not await Lease.objects.aexists()


@override_settings(REALTIME={"LLM_PER_USER": 0})
async def test_who_leaves_at_once_is_found_to_have_too_many_all_the_same(user):
    with pytest.raises(asyncio.CancelledError):
        async with leased(user):
            raise asyncio.CancelledError  # as the server does
    assert user.pk in slots.slots._full


async def test_without_the_database_there_is_no_answer(user, monkeypatch):
    def fails(user: Any) -> int:
        raise OperationalError("on purpose")

    monkeypatch.setattr(leases, "begin", fails)
    async with leased(user) as unless_refused:
        with pytest.raises(DatabaseUnavailable):
            await unless_refused(asyncio.Event().wait)
    slots.slots.check(user)


@override_settings(REALTIME={"LLM_HEARTBEAT_SECONDS": 0.02})
async def test_a_lease_is_renewed_while_it_is_held_and_then_given_back(user):
    async def beat() -> Any:
        return await Lease.objects.values_list("beat", flat=True).afirst()

    async with leased(user) as unless_refused:
        async with asyncio.timeout(20):
            while (first := await unless_refused(beat)) is None:
                await asyncio.sleep(0.01)
            while await unless_refused(beat) == first:
                await asyncio.sleep(0.01)
    assert not await Lease.objects.aexists()
    assert not leases._leases.get().held


async def test_a_block_that_ends_at_once_leaves_no_lease(user):
    async with leased(user):
        pass
    assert not await Lease.objects.aexists()


async def test_one_user_has_so_many_answers_on_all_workers_and_those_of_a_killed_one_expire(
    template,
):
    short = {"LLM_PER_USER": 2, "LLM_LEASE_SECONDS": 4.0, "LLM_HEARTBEAT_SECONDS": 0.3}
    with Thread() as fake, site_asking(fake, template, short, "--workers", "2") as site:
        fake.respond(*HALF, hangs=True)
        async with AsyncExitStack() as stack:
            asked = [asyncio.create_task(refusal(await ask(site, stack))) for _ in range(8)]
            await eventually(lambda: sum(each.done() for each in asked) == 6, 30, "six refusals")
            await eventually(lambda: fake.open == 2, 10, "the end of the others")
            refused, answered = await asyncio.wait(asked, timeout=1)
            assert [each.exception() for each in refused] == [None] * 6
            for pid in site.server.worker_pids():
                os.kill(pid, signal.SIGKILL)
            await eventually(lambda: not fake.open, 10, "the death")
            await asyncio.wait(answered)
            assert all(isinstance(each.exception(), httpx.TransportError) for each in answered)
        async with AsyncExitStack() as stack, asyncio.timeout(40):
            while not await is_answered(site, stack):
                await asyncio.sleep(0.3)


async def ask(site: Any, stack: AsyncExitStack) -> httpx.Response:
    client = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
    headers = bearer(site.tokens["alice"])
    request = client.stream("GET", f"{site.url}/chat?prompt=Why", headers=headers)
    return await stack.enter_async_context(request)


async def refusal(response: httpx.Response) -> None:
    """Wait until the answer is refused; that of the others does not end."""
    if response.status_code != 200:
        assert response.status_code == 429
        return
    stream = Stream(response)
    while (event := await stream.next(60)).event != "error":
        pass
    assert "2 answers under way" in json.loads(event.data)["detail"]


async def is_answered(site: Any, stack: AsyncExitStack) -> bool:
    try:
        response = await ask(site, stack)
    except httpx.TransportError:
        return False
    with suppress(TimeoutError):
        async with asyncio.timeout(3):
            await refusal(response)
            return False
    return True
