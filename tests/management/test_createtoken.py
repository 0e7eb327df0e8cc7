"""`manage.py createtoken`."""

from io import StringIO

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.utils import timezone

from realtime.access.authentication import authenticate_token
from realtime.models import AccessToken

from ..support.servers import manage

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


@pytest.fixture(autouse=True)
def alice():
    return User.objects.create_user("alice")


def createtoken(*arguments: str) -> str:
    out = StringIO()
    call_command("createtoken", *arguments, stdout=out)
    return out.getvalue()


def test_the_last_line_is_the_token_alone(alice):
    token = createtoken("alice", "--name", "my phone").splitlines()[-1]
    assert token == token.strip()
    assert async_to_sync(authenticate_token)(token).user == alice
    row = AccessToken.objects.get()
    assert (row.name, row.expires) == ("my phone", None)


def test_expiry():
    createtoken("alice", "--expires-in", "90")
    assert 80 < (AccessToken.objects.get().expires - timezone.now()).total_seconds() <= 90


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bob"], "no user 'bob'"),
        (["ALICE"], "no user 'ALICE'"),
        ([""], "no user ''"),
        (["alice", "--expires-in", "0"], "above zero"),
        (["alice", "--expires-in", "-5"], "above zero"),
        (["alice", "--expires-in", "nan"], "above zero"),
        (["alice", "--expires-in", "inf"], "at most"),
        (["alice", "--expires-in", "1e300"], "at most"),
        (["alice", "--expires-in", "1e11"], "at most"),
        (["alice", "--expires-in", "soon"], "invalid float value"),
        (["alice", "--name", "x" * 101], "at most 100 characters"),
        ([], "username"),
    ],
    ids=str,
)
def test_what_is_refused(arguments, says):
    with pytest.raises(CommandError, match=says):
        createtoken(*arguments)
    assert AccessToken.objects.count() == 0


def test_a_user_who_is_not_active(alice):
    alice.is_active = False
    alice.save()
    with pytest.raises(CommandError, match="not active"):
        createtoken("alice")
    assert AccessToken.objects.count() == 0


def test_in_a_process_of_its_own(site):
    lines = manage("createtoken", "alice", env=site).splitlines()
    assert lines[-1].startswith("rt_")
