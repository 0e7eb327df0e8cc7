"""Access tokens: what is stored, which are good, what a look-up costs."""

import hashlib
import os
import subprocess
import sys
from datetime import timedelta
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.test import override_settings
from django.utils import timezone

from realtime.access.authentication import authenticate_token
from realtime.access.identity import MAX_CREDENTIAL_LENGTH, Identity
from realtime.access.tokens import TOKEN_PREFIX, _find_tokens, create_token
from realtime.access.users import find_user
from realtime.exceptions import NotIdentified
from realtime.models import AccessToken

from ..support.credentials import deactivate, refused
from ..support.databases import new_database_url
from ..support.servers import ROOT

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


def test_a_token(alice):
    token, row = create_token(alice, name="phone")
    assert token.startswith(TOKEN_PREFIX)
    assert (row.user, row.name, row.expires, row.revoked) == (alice, "phone", None, None)
    identity = async_to_sync(authenticate_token)(token)
    assert identity == Identity(alice, "token", str(row.pk))
    assert find_user("token", str(row.pk)) == alice
    assert create_token(alice)[0] != token


def test_only_the_digest_of_a_token_is_stored(alice):
    token, row = create_token(alice, name="phone")
    row.refresh_from_db()
    assert row.digest == hashlib.sha256(token.encode()).hexdigest()
    stored = AccessToken.objects.values().get()
    assert not any(token[len(TOKEN_PREFIX) :] in str(value) for value in stored.values())


def test_a_token_with_an_end(alice):
    token, row = create_token(alice, expires_in=60)
    assert 50 < (row.expires - timezone.now()).total_seconds() <= 60
    assert async_to_sync(authenticate_token)(token).user == alice


def test_the_user_of_a_token_is_whole(alice):
    """All of its columns have been read, with the types that the fields have, and no others."""
    token, _ = create_token(alice)
    user = async_to_sync(authenticate_token)(token).user
    stored = User.objects.get(pk=alice.pk)
    assert not user.get_deferred_fields()
    assert {**vars(user), "_state": None} == {**vars(stored), "_state": None}
    assert (user._state.db, user._state.adding) == (stored._state.db, False)


def test_several_tokens_are_found_at_once(alice, bob):
    """Two of one user, one of another, one of nobody."""
    tokens = [create_token(user)[0] for user in (alice, bob, alice)]
    first, second, third, nobody = _find_tokens([*tokens, "rt_unknown"])
    assert [each.user for each in (first, second, third)] == [alice, bob, alice]
    assert len({each.key for each in (first, second, third)}) == 3
    assert isinstance(nobody, NotIdentified)


def test_tokens_and_their_users_are_two_statements(alice, bob, django_assert_num_queries):
    tokens = [create_token(user)[0] for user in (alice, bob)]
    _find_tokens(tokens)  # notes the time
    with django_assert_num_queries(2):
        assert [each.user for each in _find_tokens(tokens)] == [alice, bob]


@pytest.mark.parametrize("model", ["Switch", "Plain", "Child", "Keyed"])
def test_revocation_works_with_any_user_model_of_django(model):
    """A site with this AUTH_USER_MODEL: its tokens work, and its revoked streams end."""
    script = ROOT / "tests" / "people" / "site.py"
    env = {**os.environ, "PERSON": model, "DATABASE_URL": new_database_url()}
    command = [sys.executable, "-W", "error", script]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": timezone.now() - timedelta(seconds=1)},
        {"revoked": timezone.now()},
        {"revoked": timezone.now(), "expires": timezone.now() + timedelta(days=1)},
    ],
    ids=["expired", "revoked", "revoked before its end"],
)
def test_a_token_that_is_no_good_any_more(alice, changes):
    token, row = create_token(alice)
    AccessToken.objects.update(**changes)
    assert "unknown, expired or revoked" in refused(bearer=token)
    assert find_user("token", str(row.pk)) is None
    row.refresh_from_db()
    assert row.last_used is None


def test_a_token_of_a_user_who_is_not_active(alice):
    token, row = create_token(alice)
    deactivate(None, alice)
    assert "unknown, expired or revoked" in refused(bearer=token)
    assert find_user("token", str(row.pk)) is None


@pytest.mark.parametrize(
    "token", ["", "x", "rt_unknown", "r" * (MAX_CREDENTIAL_LENGTH + 1), "ž", "\0", "rt_ a"]
)
def test_an_unknown_token(alice, token):
    create_token(alice)
    with pytest.raises(NotIdentified, match="make a new one") as caught:
        async_to_sync(authenticate_token)(token)
    assert not token or len(token) < 5 or token not in str(caught.value)


def test_a_token_that_is_too_long_is_refused_without_a_query(alice):
    token = "r" * (MAX_CREDENTIAL_LENGTH + 1)
    AccessToken.objects.create(user=alice, digest=hashlib.sha256(token.encode()).hexdigest())
    assert refused(bearer=token)


def test_the_last_use_is_written_now_and_then(alice):
    token, row = create_token(alice)

    def use(seconds: float):
        with patch(
            "realtime.access.tokens.timezone.now", return_value=start + timedelta(seconds=seconds)
        ):
            async_to_sync(authenticate_token)(token)
        row.refresh_from_db()
        return (row.last_used - start).total_seconds()

    start = timezone.now()
    with override_settings(REALTIME={"TOKEN_TOUCH_SECONDS": 60}):
        assert [use(seconds) for seconds in (0, 30, 60, 61, 100, 122)] == [0, 0, 0, 61, 61, 122]
