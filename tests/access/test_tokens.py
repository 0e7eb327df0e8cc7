"""Access tokens: what is stored, which are good, what a look-up costs."""

import hashlib
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import InternalError, connection
from django.test import override_settings
from django.utils import timezone

from realtime.access.authentication import authenticate_token
from realtime.access.identity import MAX_CREDENTIAL_LENGTH, Identity
from realtime.access.tokens import TOKEN_PREFIX, _find_tokens, create_token, rotate_token
from realtime.access.users import find_identity
from realtime.exceptions import NotIdentified
from realtime.models import AccessToken

from ..support.credentials import deactivate, refused
from ..support.databases import ReplicaForReads, new_database_url
from ..support.servers import ROOT

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


def test_a_token(alice):
    token, row = create_token(alice, name="phone")
    assert token.startswith(TOKEN_PREFIX)
    assert (row.user, row.name, row.expires, row.revoked) == (alice, "phone", None, None)
    identity = async_to_sync(authenticate_token)(token)
    assert identity == Identity(alice, "token", str(row.pk))
    assert find_identity("token", str(row.pk)) == identity
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


@pytest.mark.parametrize("model", ["Switch", "Plain", "Child", "Keyed", "Kept"])
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
    assert find_identity("token", str(row.pk)) is None
    row.refresh_from_db()
    assert row.last_used is None


def test_a_token_of_a_user_who_is_not_active(alice):
    token, row = create_token(alice)
    deactivate(None, alice)
    assert "unknown, expired or revoked" in refused(bearer=token)
    assert find_identity("token", str(row.pk)) is None


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


def test_a_token_is_good_where_its_use_can_not_be_written(alice):
    token, row = create_token(alice)

    def refuse(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE"):
            raise InternalError("cannot execute UPDATE in a read-only transaction")
        return execute(sql, *rest)

    with connection.execute_wrapper(refuse):
        [identity] = _find_tokens([token])
    assert identity == Identity(alice, "token", str(row.pk))
    assert AccessToken.objects.get().last_used is None


@override_settings(DATABASE_ROUTERS=[ReplicaForReads()])
def test_tokens_and_their_users_are_read_where_they_are_written(alice):
    token, row = create_token(alice)
    identity = async_to_sync(authenticate_token)(token)
    assert identity == Identity(alice, "token", str(row.pk)) == find_identity("token", str(row.pk))
    assert rotate_token(row)[1].user == alice


# -- rotation


def test_rotated_token_ends_after_the_grace_or_earlier_as_it_would_have(alice):
    with override_settings(REALTIME={"TOKEN_GRACE_SECONDS": 100}):
        for lifetime, left in [(None, 100), (1000, 100), (50, 50)]:
            _, row = create_token(alice, expires_in=lifetime)
            _, fresh = rotate_token(row)
            row.refresh_from_db()
            assert row.expires - timezone.now() <= timedelta(seconds=left)
            assert row.expires - timezone.now() > timedelta(seconds=left - 20)
            if lifetime is None:
                assert fresh.expires is None
            else:
                given = fresh.expires - fresh.created
                assert abs(given - timedelta(seconds=lifetime)) < timedelta(seconds=5)
    _, fresh = rotate_token(fresh, expires_in=7)
    assert fresh.expires - timezone.now() <= timedelta(seconds=7)


@pytest.mark.parametrize("what", ["revoked", "expired", "rotated", "not active"])
def test_token_that_is_no_good_is_not_rotated(alice, what):
    _, row = create_token(alice, name="phone", expires_in=100)
    if what == "rotated":
        rotate_token(row)
    elif what == "not active":
        deactivate(None, alice)
    else:
        field = {"revoked": "revoked", "expired": "expires"}[what]
        AccessToken.objects.update(**{field: timezone.now() - timedelta(seconds=1)})
    count = AccessToken.objects.count()
    with pytest.raises(ValidationError, match="“phone” is no good any more"):
        rotate_token(AccessToken.objects.select_related("user").get(pk=row.pk))
    assert AccessToken.objects.count() == count


def test_of_two_who_rotate_the_same_token_one_does(alice):
    _, row = create_token(alice, name="phone")
    stale = AccessToken.objects.get(pk=row.pk)
    rotate_token(row)
    with pytest.raises(ValidationError, match="rotated before"):
        rotate_token(stale)
    assert AccessToken.objects.count() == 2


def test_what_was_taken_from_a_token_is_not_given_back_by_its_rotation(alice):
    _, row = create_token(alice, name="phone", scopes="publish:*")
    soon = timezone.now() + timedelta(seconds=60)
    AccessToken.objects.update(scopes="read:room.*", expires=soon)
    _, fresh = rotate_token(row)  # as it was loaded
    assert (fresh.scopes, AccessToken.objects.get(pk=row.pk).expires) == ("read:room.*", soon)
    assert fresh.expires is not None


def test_token_of_a_user_who_was_made_inactive_meanwhile_is_not_rotated(alice):
    _, row = create_token(alice, name="phone")
    assert row.user.is_active
    User.objects.update(is_active=False)
    with pytest.raises(ValidationError, match="no good"):
        rotate_token(row)
    assert AccessToken.objects.get().rotated is None
