"""`realtime.access.authentication`: sessions, access tokens, tickets, and which of them decides."""

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib.auth import HASH_SESSION_KEY, get_user_model, login
from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.test import Client, override_settings
from django.utils import timezone

from realtime.access.authentication import authenticate, authenticate_token
from realtime.access.identity import ANONYMOUS, MAX_CREDENTIAL_LENGTH, Identity
from realtime.access.tickets import create_ticket
from realtime.access.tokens import TOKEN_PREFIX, _look_up_tokens, create_token
from realtime.access.users import look_up
from realtime.exceptions import NotIdentified
from realtime.models import AccessToken, Ticket

from ..support.databases import new_database_url
from ..support.servers import ROOT

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


@pytest.fixture
def alice():
    return User.objects.create_user("alice", password="sesame")


@pytest.fixture
def bob():
    return User.objects.create_user("bob", password="sesame")


def sign_in(user) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies[django_settings.SESSION_COOKIE_NAME].value


def asked(*, session=None, bearer=None, query="", headers=(), **options) -> Identity:
    headers = list(headers)
    if session is not None:
        headers.append((b"cookie", f"theme=dark; sessionid={session}; x=1".encode()))
    if bearer is not None:
        headers.append((b"authorization", f"Bearer {bearer}".encode()))
    scope = {"headers": headers, "query_string": query.encode()}
    return async_to_sync(authenticate)(scope, **options)


def refused(**request) -> str:
    with pytest.raises(NotIdentified) as caught:
        asked(**request)
    return str(caught.value)


# -- sessions


def test_nothing_sent():
    assert asked() is ANONYMOUS
    assert asked(headers=[(b"cookie", b"theme=dark")]) is ANONYMOUS
    assert not ANONYMOUS.user.is_authenticated


def test_a_session(alice):
    key = sign_in(alice)
    identity = asked(session=key)
    assert identity == Identity(alice, "session", key)
    assert look_up("session", key) == alice


def expire(key, user):
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))


def flush(key, user):
    Session.objects.all().delete()


def new_password(key, user):
    user.set_password("another")
    user.save()


def deactivate(key, user):
    user.is_active = False
    user.save()


def delete(key, user):
    user.delete()


@pytest.mark.parametrize("spoil", [expire, flush, new_password, deactivate, delete])
def test_a_session_that_is_no_good_any_more(alice, spoil):
    key = sign_in(alice)
    spoil(key, alice)
    assert asked(session=key) is ANONYMOUS
    assert look_up("session", key) is None


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
        assert look_up("session", key) == alice
    assert [row.session_data for row in Session.objects.all()] == [stored]
    assert request.session[HASH_SESSION_KEY]


def test_cookies_over_several_headers(alice):
    key = sign_in(alice)
    headers = [(b"cookie", f"sessionid={key}".encode()), (b"cookie", b"theme=dark")]
    assert asked(headers=headers).user == alice


def test_the_site_may_name_its_cookie(alice):
    key = sign_in(alice)
    with override_settings(SESSION_COOKIE_NAME="sid"):
        assert asked(session=key) is ANONYMOUS
        assert asked(headers=[(b"cookie", f"sid={key}".encode())]).user == alice


# -- access tokens


def test_a_token(alice):
    token, row = create_token(alice, name="phone")
    assert token.startswith(TOKEN_PREFIX)
    assert (row.user, row.name, row.expires, row.revoked) == (alice, "phone", None, None)
    identity = async_to_sync(authenticate_token)(token)
    assert identity == Identity(alice, "token", str(row.pk))
    assert look_up("token", str(row.pk)) == alice
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


def test_several_tokens_in_one_look_up(alice, bob):
    """Two of one user, one of another, one of nobody."""
    tokens = [create_token(user)[0] for user in (alice, bob, alice)]
    first, second, third, nobody = _look_up_tokens([*tokens, "rt_unknown"])
    assert [each.user for each in (first, second, third)] == [alice, bob, alice]
    assert len({each.key for each in (first, second, third)}) == 3
    assert isinstance(nobody, NotIdentified)


def test_tokens_and_their_users_are_two_statements(alice, bob, django_assert_num_queries):
    tokens = [create_token(user)[0] for user in (alice, bob)]
    _look_up_tokens(tokens)  # notes the time
    with django_assert_num_queries(2):
        assert [each.user for each in _look_up_tokens(tokens)] == [alice, bob]


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
    assert look_up("token", str(row.pk)) is None
    row.refresh_from_db()
    assert row.last_used is None


def test_a_token_of_a_user_who_is_not_active(alice):
    token, row = create_token(alice)
    deactivate(None, alice)
    assert "unknown, expired or revoked" in refused(bearer=token)
    assert look_up("token", str(row.pk)) is None


@pytest.mark.parametrize(
    "token", ["", "x", "rt_unknown", "r" * (MAX_CREDENTIAL_LENGTH + 1), "ž", "\0", "rt_ a"]
)
def test_an_unknown_token(alice, token):
    create_token(alice)
    with pytest.raises(NotIdentified, match="make a new one") as caught:
        async_to_sync(authenticate_token)(token)
    assert not token or len(token) < 5 or token not in str(caught.value)


def test_a_token_that_is_too_long_is_not_even_looked_for(alice):
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


# -- tickets


def new_ticket(user: User) -> str:
    """A ticket that somebody with an access token has got."""
    _, row = create_token(user)
    return async_to_sync(create_ticket)(Identity(user, "token", str(row.pk)))


def test_a_ticket_is_no_better_than_its_token(alice):
    ticket, unused = new_ticket(alice), new_ticket(alice)
    identity = asked(query=f"ticket={ticket}")
    AccessToken.objects.update(revoked=timezone.now())
    assert look_up(identity.source, identity.key) is None
    assert "get a new one" in refused(query=f"ticket={unused}")


def test_a_ticket_is_no_better_than_its_session(alice):
    client = Client()
    client.force_login(alice)
    session = client.session.session_key
    ticket = async_to_sync(create_ticket)(Identity(alice, "session", session))
    identity = asked(query=f"ticket={ticket}")
    assert (identity.user, identity.session_key) == (alice, session)
    assert look_up(identity.source, identity.key) == alice
    Session.objects.all().delete()
    assert look_up(identity.source, identity.key) is None


def test_a_ticket_for_a_ticket_stands_for_the_same(alice):
    identity = asked(query=f"ticket={new_ticket(alice)}")
    again = asked(query=f"ticket={async_to_sync(create_ticket)(identity)}")
    assert again == identity


def test_a_ticket_is_good_once(alice):
    ticket = new_ticket(alice)
    identity = asked(query=f"ticket={ticket}")
    assert (identity.user, identity.source) == (alice, "ticket")
    assert look_up("ticket", identity.key) == alice
    assert Ticket.objects.count() == 0
    assert "used" in refused(query=f"ticket={ticket}")


def test_only_the_digest_of_a_ticket_is_stored(alice):
    ticket = new_ticket(alice)
    assert Ticket.objects.get().digest == hashlib.sha256(ticket.encode()).hexdigest()


def test_of_many_who_come_with_one_ticket_one_gets_in(alice):
    ticket = new_ticket(alice)
    together, deletes = threading.Barrier(4), []

    class Late(QuerySet):
        """All of them have found the ticket before any of them deletes it."""

        def delete(self):
            deletes.append(together.wait(10))
            return super().delete()

    async def use() -> object:
        scope = {"headers": [], "query_string": f"ticket={ticket}".encode()}
        try:
            return (await authenticate(scope)).user
        except NotIdentified as error:
            return error

    async def main() -> list[object]:
        return await asyncio.gather(*(use() for _ in range(4)))

    with patch.object(Ticket._default_manager, "_queryset_class", Late):
        got = asyncio.run(main())
    assert len(deletes) == 4
    assert [user for user in got if not isinstance(user, NotIdentified)] == [alice]


@pytest.mark.parametrize("ticket", ["", "x", "%00", "x" * 10_000, "%F0%9F%90%8E"])
def test_an_unknown_ticket(alice, ticket):
    new_ticket(alice)
    assert "get a new one" in refused(query=f"ticket={ticket}")
    assert Ticket.objects.count() == 1


def test_an_expired_ticket_is_refused_and_swept(alice):
    ticket = new_ticket(alice)
    Ticket.objects.update(expires=timezone.now() - timedelta(seconds=1))
    assert "30 s" in refused(query=f"ticket={ticket}")
    new_ticket(alice)
    assert Ticket.objects.count() == 1
    assert Ticket.objects.get().expires > timezone.now()


def test_how_long_a_ticket_lives_is_a_setting(alice):
    with override_settings(REALTIME={"TICKET_SECONDS": 300}):
        new_ticket(alice)
    assert 290 < (Ticket.objects.get().expires - timezone.now()).total_seconds() <= 300


def test_a_ticket_of_a_user_who_is_not_active(alice):
    ticket = new_ticket(alice)
    origin = Ticket.objects.get().origin
    deactivate(None, alice)
    assert refused(query=f"ticket={ticket}")
    assert look_up("ticket", origin) is None


# -- which decides


def test_the_header_comes_before_the_query_and_both_before_the_session(alice, bob):
    carol = User.objects.create_user("carol")
    header, query = create_token(alice)[0], create_token(bob)[0]
    session = sign_in(carol)
    everything = {"session": session, "bearer": header, "query": f"token={query}"}
    assert asked(**everything).user == alice
    assert asked(session=session, query=f"token={query}").user == bob
    assert asked(session=session).user == carol
    ticket = new_ticket(alice)
    assert asked(session=session, query=f"ticket={ticket}").user == alice


@pytest.mark.parametrize(
    "bad",
    [
        {"bearer": "wrong"},
        {"bearer": ""},
        {"query": "token=wrong"},
        {"query": "token="},
        {"query": "token"},
        {"query": "ticket=wrong"},
        {"query": "ticket="},
    ],
    ids=str,
)
def test_a_bad_credential_is_refused_even_with_a_good_session(alice, bad):
    assert refused(session=sign_in(alice), **bad)


def test_a_bad_header_is_refused_even_with_a_good_token_in_the_query(alice):
    assert refused(bearer="wrong", query=f"token={create_token(alice)[0]}")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
def test_the_scheme_is_written_in_any_case(alice, scheme):
    value = f"{scheme}  {create_token(alice)[0]} ".encode()
    assert asked(headers=[(b"authorization", value)]).user == alice


def test_another_scheme_is_not_for_us(alice):
    basic = [(b"authorization", b"Basic YWxpY2U6c2VzYW1l")]
    assert asked(headers=basic) is ANONYMOUS
    assert asked(headers=basic, session=sign_in(alice)).user == alice


def test_credentials_that_do_not_count_are_not_looked_at(alice):
    token, session = create_token(alice)[0], sign_in(alice)
    sent = {"session": session, "bearer": token, "query": f"token={token}"}
    assert asked(**sent, credentials={"session"}).source == "session"
    assert asked(**sent, credentials={"query"}).source == "token"
    assert asked(session=session, credentials={"query", "ticket"}) is ANONYMOUS
    assert asked(bearer="wrong", session=session, credentials={"session"}).user == alice


def test_identities_are_keys(alice):
    assert Identity(alice, "token", "1") == Identity(User.objects.get(), "token", "1")
    assert len({Identity(alice, "token", "1"), Identity(alice, "token", "2"), ANONYMOUS}) == 3
    assert look_up("anonymous", "") == ANONYMOUS.user
