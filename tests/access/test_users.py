"""The user of an identity, as it is now."""

import pytest
from django.contrib.auth import get_user_model

from realtime.access.identity import ANONYMOUS, Identity
from realtime.access.tokens import create_token
from realtime.access.users import find_identities, find_identity

from ..support.credentials import deactivate, sign_in

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


def test_user_of_each_source_is_found(alice):
    session, (_, row) = sign_in(alice), create_token(alice)
    for source, key in [
        ("session", session),
        ("token", str(row.pk)),
        ("ticket", f"session:{session}"),
        ("ticket", f"token:{row.pk}"),
    ]:
        assert find_identity(source, key) == Identity(alice, source, key), source
    assert find_identity("anonymous", "") == ANONYMOUS


def test_user_who_is_not_active_is_found_by_none(alice):
    session, (_, row) = sign_in(alice), create_token(alice)
    deactivate(None, alice)
    for source, key in [("session", session), ("token", row.pk), ("ticket", f"token:{row.pk}")]:
        assert find_identity(source, str(key)) is None, source


def test_users_of_many_tokens_are_found_by_two_statements(alice, bob, django_assert_num_queries):
    rows = [create_token(user)[1] for user in (alice, bob, alice)]
    deactivate(None, bob)
    live = [Identity(row.user, "token", str(row.pk)) for row in rows]
    live += [Identity(alice, "ticket", f"token:{rows[0].pk}"), Identity(alice, "token", "987654")]
    with django_assert_num_queries(2):
        assert find_identities(live) == [live[0], None, live[2], live[3], None]


def test_users_are_found_whatever_they_came_with(alice):
    session, (_, row) = sign_in(alice), create_token(alice)
    live = [
        Identity(alice, "session", session),
        Identity(alice, "token", str(row.pk)),
        Identity(alice, "ticket", f"session:{session}"),
        ANONYMOUS,
    ]
    assert find_identities(live) == live
    deactivate(None, alice)
    assert find_identities(live) == [None, None, None, ANONYMOUS]
