"""The cache of identities: shared look-ups, revocation, what is not remembered."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from django.contrib.auth.models import User
from django.test import override_settings

from realtime.access import cache as module
from realtime.access.cache import IdentityCache
from realtime.access.identity import Identity
from realtime.exceptions import NotIdentified

ALICE = Identity(User(pk=1, username="alice"), "token", "1")
BOB = Identity(User(pk=2, username="bob"), "token", "2")
KEY = ("token", "a")


class Directory:
    """Answers look-ups, and counts them."""

    def __init__(self, identity: Identity = ALICE) -> None:
        self.identity = identity
        self.asked = 0
        self.answer = asyncio.Event()
        self.answer.set()

    async def __call__(self) -> Identity:
        self.asked += 1
        identity = self.identity
        await self.answer.wait()
        return identity


@pytest.fixture
def cache() -> IdentityCache:
    cache = IdentityCache()
    cache.trusted = True
    return cache


async def test_remembers(cache: IdentityCache) -> None:
    directory = Directory()
    assert [await cache.get(KEY, directory) for _ in range(3)] == [ALICE] * 3
    assert directory.asked == 1


async def test_remembers_nothing_while_nobody_listens_for_revocations() -> None:
    cache, directory = IdentityCache(), Directory()
    for _ in range(3):
        await cache.get(KEY, directory)
    assert directory.asked == 3


async def test_can_be_turned_off(cache: IdentityCache) -> None:
    directory = Directory()
    with override_settings(REALTIME={"IDENTITY_CACHE_SECONDS": None}):
        for _ in range(3):
            await cache.get(KEY, directory)
    assert directory.asked == 3


async def test_forgets_in_time(cache: IdentityCache) -> None:
    directory = Directory()
    with override_settings(REALTIME={"IDENTITY_CACHE_SECONDS": 0.01}):
        await cache.get(KEY, directory)
        await asyncio.sleep(0.02)
        await cache.get(KEY, directory)
    assert directory.asked == 2


async def test_those_who_ask_at_once_share_a_look_up(cache: IdentityCache) -> None:
    directory = Directory()
    directory.answer.clear()
    tasks = [asyncio.create_task(cache.get(KEY, directory)) for _ in range(100)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # the one who asked first leaves; the others are still answered
    await asyncio.sleep(0)
    directory.answer.set()
    assert await asyncio.gather(*tasks[1:]) == [ALICE] * 99
    assert directory.asked == 1


async def test_an_error_goes_to_all_who_asked_and_is_not_kept(cache: IdentityCache) -> None:
    async def refuse() -> Identity:
        await asyncio.sleep(0)
        raise NotIdentified("no")

    results = await asyncio.gather(
        cache.get(KEY, refuse), cache.get(KEY, refuse), return_exceptions=True
    )
    assert [type(result) for result in results] == [NotIdentified] * 2
    assert await cache.get(KEY, Directory()) == ALICE


@pytest.mark.parametrize(("users", "asked"), [({"1"}, 2), ({"2"}, 1), (None, 2)])
async def test_forgets_whom_it_is_told(
    cache: IdentityCache, users: set[str] | None, asked: int
) -> None:
    directory = Directory()
    await cache.get(KEY, directory)
    cache.forget(users)
    await cache.get(KEY, directory)
    assert directory.asked == asked


async def test_a_look_up_under_way_at_a_revocation_is_not_kept(cache: IdentityCache) -> None:
    directory = Directory()
    directory.answer.clear()
    early = asyncio.create_task(cache.get(KEY, directory))
    while not directory.asked:
        await asyncio.sleep(0)
    cache.forget({"1"})
    directory.identity = BOB
    late = asyncio.create_task(cache.get(KEY, directory))
    while directory.asked < 2:
        await asyncio.sleep(0)
    directory.answer.set()
    assert (await early, await late) == (ALICE, BOB)
    assert await cache.get(KEY, directory) == BOB
    assert directory.asked == 2


async def test_a_refused_session_is_dropped(cache: IdentityCache) -> None:
    await cache.get(KEY, Directory())
    assert not cache.is_refused(KEY)
    cache.refuse(KEY)
    assert cache.is_refused(KEY)
    directory = Directory()
    await cache.get(KEY, directory)
    assert directory.asked == 1


async def test_is_bounded(cache: IdentityCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    look_up: Callable[[], Awaitable[Identity]] = Directory()
    for number in range(10):
        await cache.get(("token", str(number)), look_up)
        cache.refuse(("session", str(number)))
    assert len(cache._known) == 3
    assert [cache.is_refused(("session", str(n))) for n in range(10)] == [False] * 7 + [True] * 3
