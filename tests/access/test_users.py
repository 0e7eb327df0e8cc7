"""The user of an identity, as it is now."""

import pytest
from django.contrib.auth import get_user_model

from realtime.access.identity import ANONYMOUS
from realtime.access.tokens import create_token
from realtime.access.users import find_user

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
        assert find_user(source, key) == alice, source
    assert find_user("anonymous", "") == ANONYMOUS.user


def test_user_who_is_not_active_is_found_by_none(alice):
    session, (_, row) = sign_in(alice), create_token(alice)
    deactivate(None, alice)
    for source, key in [("session", session), ("token", row.pk), ("ticket", f"token:{row.pk}")]:
        assert find_user(source, str(key)) is None, source
