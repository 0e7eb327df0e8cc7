"""Users whose credentials the tests of this folder use."""

import pytest
from django.contrib.auth import get_user_model

User = get_user_model()


@pytest.fixture
def alice():
    return User.objects.create_user("alice", password="sesame")


@pytest.fixture
def bob():
    return User.objects.create_user("bob", password="sesame")
