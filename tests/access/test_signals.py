"""What Django tells of users, tokens and sessions, and what it tells in vain."""

from collections.abc import Iterator
from datetime import timedelta
from unittest.mock import patch

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test import Client, override_settings
from django.utils import timezone

from realtime.access import signals
from realtime.access.identity import digest
from realtime.access.tokens import create_token

from ..support.credentials import sign_in

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


@pytest.fixture
def told() -> Iterator[list[dict[str, str]]]:
    """The changes that were published."""
    changes: list[dict[str, str]] = []

    def publish(topic: str, change: dict[str, str], *, ephemeral: bool) -> None:
        assert (topic, ephemeral) == (signals.TOPIC, True)
        changes.append(change)

    with patch.object(signals, "publish", publish):
        yield changes


def test_user_who_changes_or_goes_is_told_of(alice, told):
    key = str(alice.pk)
    alice.save()
    alice.save(update_fields=["last_login"])  # every login does
    alice.delete()
    assert told == [{"user": key}] * 2


def test_user_who_is_new_is_not_told_of(told, bob):
    assert told == []


def test_token_that_changes_or_goes_is_told_of(alice, told):
    _, row = create_token(alice)
    assert told == []
    row.save()
    row.delete()
    assert told == [{"user": str(alice.pk)}] * 2


def test_session_that_ends_is_told_of_by_its_digest(alice, told):
    client = Client()
    client.force_login(alice)
    key = client.cookies["sessionid"].value
    told.clear()
    client.logout()
    assert {"session": digest(key)} in told
    assert key not in repr(told)


def test_sign_out_of_a_signed_cookie_is_told_of_by_its_user(alice, told):
    """What is open on the session may have begun with the cookie of before its last change."""
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"):
        client = Client()
        client.force_login(alice)
        told.clear()
        client.logout()
    assert {"sessions_of": str(alice.pk)} in told


def test_session_that_has_expired_is_not_told_of(alice, told):
    key = sign_in(alice)
    told.clear()
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    Session.objects.get(pk=key).delete()
    assert told == []
