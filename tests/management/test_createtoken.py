"""`manage.py createtoken`."""

from io import StringIO

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.utils import timezone

from realtime.access.authentication import authenticate_token
from realtime.access.service_user import ServiceUser
from realtime.access.tokens import create_token
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


def test_scopes(alice):
    createtoken("alice", "--scope", "read:a", "--scope", "publish:room.* presence:b")
    row = AccessToken.objects.get()
    assert (row.user, row.scopes) == (alice, "read:a publish:room.* presence:b")


def test_rotation_of_a_user_s_token_and_of_a_service_s(alice):
    bob = User.objects.create_user("bob")
    old, row = create_token(alice, name="phone", scopes="read:a", expires_in=1000)
    create_token(bob, name="phone")
    with pytest.raises(CommandError, match="Several tokens are named 'phone'"):
        createtoken("--rotate", "phone")
    new = createtoken("alice", "--rotate", "phone").splitlines()[-1]
    assert new != old
    identity = async_to_sync(authenticate_token)(new)
    assert (identity.user, identity.key != str(row.pk)) == (alice, True)
    assert async_to_sync(authenticate_token)(old).key == str(row.pk)
    again = createtoken("alice", "--rotate", "phone", "--expires-in", "90").splitlines()[-1]
    assert async_to_sync(authenticate_token)(again).ends_at is not None
    create_token(None, name="billing", scopes="read:a")
    service = createtoken("--rotate", "billing").splitlines()[-1]
    assert async_to_sync(authenticate_token)(service).user == ServiceUser("billing")


def test_service():
    token = createtoken("--service", "billing", "--scope", "publish:orders.*").splitlines()[-1]
    assert async_to_sync(authenticate_token)(token).user == ServiceUser("billing")
    row = AccessToken.objects.get()
    assert (row.user, row.name, row.scopes) == (None, "billing", "publish:orders.*")


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
        ([], "Give a username, or --service"),
        (["alice", "--service", "billing", "--scope", "read:a"], "Give a username, or --service"),
        (["--service", "billing"], "needs scopes"),
        (["--service", "x", "--scope", "read:a publish:realtime.*"], "'publish:realtime.*'"),
        (["--service", "", "--scope", "read:a"], "needs a name"),
        (["--service", "x", "--name", "y", "--scope", "read:a"], "leave --name out"),
        (["--service", "x" * 101, "--scope", "read:a"], "at most 100 characters"),
        (["alice", "--scope", "room.*"], "no scope"),
        (["--rotate", "phone"], "is named 'phone'"),
        (["bob", "--rotate", "phone"], "no user 'bob'"),
        (["alice", "--rotate", "phone", "--scope", "read:a"], "leave the other options out"),
        (["alice", "--rotate", "phone", "--expires-in", "0"], "above zero"),
        (["alice", "--scope", "read:" + "a" * 10_000], "at most"),
        # How Python gives bytes that are not UTF-8.
        (["\udcff"], "username: invalid utf8"),
        (["alice", "--name", "\udcff"], "--name: invalid utf8"),
        (["--service", "\udcff", "--scope", "read:a"], "--service: invalid utf8"),
        (["--rotate", "\udcff"], "--rotate: invalid utf8"),
        (["alice", "--scope", "read:\udcff"], "no topic's name"),
    ],
    ids=ascii,
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
