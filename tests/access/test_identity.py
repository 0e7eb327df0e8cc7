"""An identity as a key, and the session it rests on."""

import pytest
from django.contrib.auth import get_user_model

from realtime.access.identity import ANONYMOUS, Identity

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


def test_identities_are_keys(alice):
    assert Identity(alice, "token", "1") == Identity(User.objects.get(), "token", "1")
    assert len({Identity(alice, "token", "1"), Identity(alice, "token", "2"), ANONYMOUS}) == 3


@pytest.mark.parametrize(
    ("source", "key", "session"),
    [
        ("session", "a", "a"),
        ("ticket", "session:a", "a"),
        ("ticket", "token:1", None),
        ("token", "1", None),
    ],
)
def test_session_key_is_of_the_session_it_rests_on(source, key, session):
    assert Identity(ANONYMOUS.user, source, key).session_key == session
