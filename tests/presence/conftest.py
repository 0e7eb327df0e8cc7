"""Settings and users for who is here."""

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import override_settings

QUICK: dict[str, Any] = {
    "TOPICS": {"room.*": {"PRESENCE": True}, "public.*": {"PRESENCE": True}},
    "PRESENCE_SECONDS": 0.05,
    "PRESENCE_GRACE_SECONDS": 60.0,
    "PRESENCE_COUNT_SECONDS": 0.2,
    "BUS": "memory",
}


@pytest.fixture
def quick() -> Iterator[None]:
    """Everything at once, in this process alone."""
    with override_settings(REALTIME=QUICK):
        yield


@pytest.fixture
def at_once(quick: None) -> Iterator[None]:
    """Who leaves has left."""
    with override_settings(REALTIME={**QUICK, "PRESENCE_GRACE_SECONDS": 0.1}):
        yield


@pytest.fixture
async def alice(db: None) -> User:
    return await sync_to_async(User.objects.create_user)("alice")


@pytest.fixture
async def bob(db: None) -> User:
    return await sync_to_async(User.objects.create_user)("bob")
