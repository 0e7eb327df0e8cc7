"""Django's sessions as a credential."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.contrib.auth import HASH_SESSION_KEY, get_user_model, login
from django.contrib.sessions.models import Session
from django.test import Client, override_settings
from django.utils import timezone

from realtime.access.identity import ANONYMOUS, Identity
from realtime.access.users import find_identity

from ..support.credentials import asked, deactivate, sign_in

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


def test_a_session(alice):
    key = sign_in(alice)
    identity = asked(session=key)
    assert identity == Identity(alice, "session", key)
    assert find_identity("session", key) == Identity(alice, "session", key)


def expire(key, user):
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))


def flush(key, user):
    Session.objects.all().delete()


def new_password(key, user):
    user.set_password("another")
    user.save()


def delete(key, user):
    user.delete()


@pytest.mark.parametrize("spoil", [expire, flush, new_password, deactivate, delete])
def test_a_session_that_is_no_good_any_more(alice, spoil):
    key = sign_in(alice)
    spoil(key, alice)
    assert asked(session=key) is ANONYMOUS
    assert find_identity("session", key) is None


@pytest.mark.parametrize(
    "key", ["", "x", "x" * 32, "x" * 10_000, '"quoted12"', r'"nul\000inside"', "ž" * 10, "'; --"]
)
def test_a_session_key_that_is_not_ours(key):
    assert asked(session=key) is ANONYMOUS


def test_a_session_of_an_anonymous_visitor():
    client = Client()
    session = client.session
    session["theme"] = "dark"
    session.save()
    assert asked(session=session.session_key) is ANONYMOUS


def test_a_changed_secret_key_signs_nobody_out(alice):
    """Only an answer with a cookie can renew a session: here it has to stay as it is."""
    request = SimpleNamespace(session=Client().session, META={}, user=None)
    with override_settings(SECRET_KEY="the old one"):
        login(request, alice, backend="django.contrib.auth.backends.ModelBackend")
        request.session.save()
        key = request.session.session_key
        stored = Session.objects.get(pk=key).session_data
    with override_settings(SECRET_KEY="the new one", SECRET_KEY_FALLBACKS=["the old one"]):
        assert asked(session=key).user == alice
        assert find_identity("session", key) == Identity(alice, "session", key)
    assert [row.session_data for row in Session.objects.all()] == [stored]
    assert request.session[HASH_SESSION_KEY]
