"""Rows are read where they are written."""

import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings

from realtime.utils.primary import primary_rows

from ..support.databases import ReplicaForReads

pytestmark = pytest.mark.django_db


@override_settings(DATABASE_ROUTERS=[ReplicaForReads()])
def test_replica_is_not_asked():
    User = get_user_model()
    User.objects.create_user("alice")
    assert primary_rows(User).get().username == "alice"
    assert primary_rows(User).filter(username="bob").first() is None
