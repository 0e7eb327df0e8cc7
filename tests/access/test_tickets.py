"""Tickets: good once, and no better than what they stand for."""

import asyncio
import hashlib
import threading
from datetime import timedelta
from unittest.mock import patch

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db.models import QuerySet
from django.test import override_settings
from django.utils import timezone

from realtime.access.authentication import authenticate
from realtime.access.identity import Identity
from realtime.access.tickets import create_ticket
from realtime.access.users import find_identity
from realtime.exceptions import NotIdentified
from realtime.models import AccessToken, Ticket

from ..support.credentials import asked, deactivate, new_ticket, refused, sign_in
from ..support.databases import ReplicaForReads

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


def test_a_ticket_is_no_better_than_its_token(alice):
    ticket, unused = new_ticket(alice), new_ticket(alice)
    identity = asked(query=f"ticket={ticket}")
    AccessToken.objects.update(revoked=timezone.now())
    assert find_identity(identity.source, identity.key) is None
    assert "get a new one" in refused(query=f"ticket={unused}")


def test_a_ticket_is_no_better_than_its_session(alice):
    session = sign_in(alice)
    ticket = async_to_sync(create_ticket)(Identity(alice, "session", session))
    identity = asked(query=f"ticket={ticket}")
    assert (identity.user, identity.session_key) == (alice, session)
    assert find_identity(identity.source, identity.key) == identity
    Session.objects.all().delete()
    assert find_identity(identity.source, identity.key) is None


def test_a_ticket_for_a_ticket_stands_for_the_same(alice):
    identity = asked(query=f"ticket={new_ticket(alice)}")
    again = asked(query=f"ticket={async_to_sync(create_ticket)(identity)}")
    assert again == identity


@override_settings(DATABASE_ROUTERS=[ReplicaForReads()])
def test_tickets_are_read_where_they_are_written(alice):
    ticket = new_ticket(alice)
    assert asked(query=f"ticket={ticket}").user == alice
    assert "used" in refused(query=f"ticket={ticket}")


def test_a_ticket_is_good_once(alice):
    ticket = new_ticket(alice)
    identity = asked(query=f"ticket={ticket}")
    assert (identity.user, identity.source) == (alice, "ticket")
    assert find_identity("ticket", identity.key) == identity
    assert Ticket.objects.count() == 0
    assert "used" in refused(query=f"ticket={ticket}")


def test_only_the_digest_of_a_ticket_is_stored(alice):
    ticket = new_ticket(alice)
    assert Ticket.objects.get().digest == hashlib.sha256(ticket.encode()).hexdigest()


def test_a_ticket_used_several_times_at_once_is_accepted_once(alice):
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
    assert find_identity("ticket", origin) is None
