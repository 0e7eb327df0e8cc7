"""`realtime.presence.seen`: what the others see of a user."""

import json
import uuid

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import override_settings

from realtime.presence.seen import key_of, seen_of

ALICE = User(pk=7, username="alice", email="alice@example.com")


def test_a_key_is_a_user_s():
    assert [key_of(ALICE), key_of(AnonymousUser())] == ["7", ""]


async def test_no_address_by_default():
    assert json.loads(await seen_of(ALICE)) == {"id": 7, "username": "alice"}
    assert json.loads(await seen_of(User(pk=8, username="alice@example.com"))) == {"id": 8}
    assert await seen_of(AnonymousUser()) == ""


async def in_color(user):
    return {"id": uuid.UUID(int=user.pk), "color": "red"}


async def nothing(user):
    return None


async def much(user):
    return {"about": "é" * 50}


async def a_list(user):
    return ["alice"]


async def a_mistake(user):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("info", "seen", "said"),
    [
        (in_color, '{"id":"00000000-0000-0000-0000-000000000007","color":"red"}', ""),
        (nothing, "", ""),
        (None, "", ""),
        (much, "", "PRESENCE_INFO_BYTES"),
        (a_list, "", "no dict"),
        (a_mistake, "", "ZeroDivisionError"),
    ],
)
async def test_what_a_site_shows(info, seen, said, caplog):
    constants = {"PRESENCE_INFO": info, "PRESENCE_INFO_BYTES": 100}
    with override_settings(REALTIME=constants):
        assert await seen_of(ALICE) == seen
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)
