"""What others see of a user, and the sender that is made of it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import override_settings

from realtime.access.user_info import publisher_of, sender_meta


def sender(user: Any) -> Any:
    return asyncio.run(sender_meta(user))


def test_others_see_key_and_user_name():
    assert sender(User(pk=7, username="ž")) == {"sender": {"id": 7, "username": "ž"}}


@pytest.mark.parametrize(
    "user",
    [
        User(pk=7, username="alice@example.com"),
        SimpleNamespace(
            pk=7, USERNAME_FIELD="phone", phone="+420 123", username="a", is_authenticated=True
        ),
    ],
    ids=["e-mail", "telephone"],
)
def test_nobody_sees_an_address_in_the_place_of_a_user_name(user):
    assert sender(user) == {"sender": {"id": 7}}


def test_each_user_is_a_publisher_and_those_without_a_name_are_one():
    assert publisher_of(User(pk=7)) == "user.7"
    assert publisher_of(AnonymousUser()) == "anonymous"


async def nickname(user: Any) -> dict[str, str]:
    return {"name": user.username.title()}


async def nothing(user: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("info", "meta"),
    [
        (f"{__name__}.nickname", {"sender": {"name": "Alice"}}),
        (f"{__name__}.nothing", None),
        (None, None),
    ],
)
def test_the_site_says_what_others_see(info, meta):
    with override_settings(REALTIME={"PRESENCE_INFO": info}):
        assert sender(User(pk=7, username="alice")) == meta


def test_who_is_not_signed_in_is_no_sender():
    assert sender(AnonymousUser()) is None
