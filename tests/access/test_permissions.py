"""`realtime.access.permissions`: unknown means denied."""

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import override_settings

from realtime.access.permissions import may, require
from realtime.exceptions import NotAllowed, NotIdentified

NOBODY = AnonymousUser()
ALICE = User(pk=7, username="alice")
STAFF = User(pk=8, username="staff", is_staff=True)
PEOPLE = [NOBODY, ALICE, STAFF]


@pytest.mark.parametrize("action", ["read", "publish"])
@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        # nobody, alice (7), staff
        ("user.7", (False, True, True)),
        ("user.8", (False, False, True)),
        ("user.77", (False, False, True)),
        ("user.7.x", (False, True, True)),
        ("user.7.", (False, True, True)),
        ("user.77.x", (False, False, True)),
        ("user.", (False, False, True)),
        ("user.None", (False, False, True)),
        ("User.7", (False, False, True)),
        ("room.lobby", (False, True, True)),
        ("room.", (False, True, True)),
        ("room", (False, False, True)),
        ("rooms.a", (False, False, True)),
        ("Room.a", (False, False, True)),
        ("public", (False, False, True)),
        ("publicity.a", (False, False, True)),
        ("realtime.revocation", (False, False, True)),
        ("anything", (False, False, True)),
    ],
)
async def test_the_default_rule(topic, allowed, action):
    assert tuple([await may(user, topic, action) for user in PEOPLE]) == allowed


async def test_public_topics():
    assert [await may(user, "public.news", "read") for user in PEOPLE] == [True, True, True]
    assert [await may(user, "public.news", "publish") for user in PEOPLE] == [False, True, True]


async def test_a_user_model_without_staff():
    class Member:
        pk = 7
        is_authenticated = True

    assert await may(Member(), "user.7", "read")
    assert not await may(Member(), "anything", "read")


async def test_require():
    assert await require(ALICE, "room.a", "publish") is None
    with pytest.raises(NotAllowed, match=r"You may not read 'user\.8'"):
        await require(ALICE, "user.8", "read")
    with pytest.raises(NotIdentified, match=r"Sign in.* to publish 'room\.a'"):
        await require(NOBODY, "room.a", "publish")


def answers(answer):
    async def rule(user, topic, action):
        return answer

    return rule


@pytest.mark.parametrize("answer", [None, 0, 1, "yes", [1], object(), False])
async def test_a_rule_that_does_not_say_true_denies(answer):
    with override_settings(REALTIME={"PERMISSION": answers(answer)}):
        assert await may(STAFF, "a", "read") is False
        with pytest.raises(NotAllowed):
            await require(STAFF, "a", "read")


async def test_a_rule_of_the_sites_own():
    asked = []

    async def rule(user, topic, action):
        asked.append((user, topic, action))
        return True

    with override_settings(REALTIME={"PERMISSION": rule}):
        await require(NOBODY, "a", "publish")
    assert asked == [(NOBODY, "a", "publish")]


async def test_a_rule_that_fails_denies_and_the_error_comes_through():
    async def rule(user, topic, action):
        raise LookupError("the rule's database is gone")

    with override_settings(REALTIME={"PERMISSION": rule}):
        for ask in (may, require):
            with pytest.raises(LookupError):
                await ask(STAFF, "a", "read")


async def test_a_rule_that_is_not_async_permits_nothing():
    rule = {"PERMISSION": lambda user, topic, action: True}
    with override_settings(REALTIME=rule), pytest.raises(TypeError):
        await require(STAFF, "a", "read")
