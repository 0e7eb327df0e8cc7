"""`realtime.models`: what the tables promise to the code above them."""

import os
import subprocess
import sys
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import IntegrityError, transaction

from realtime.access.tokens import create_token
from realtime.events.payload import MAX_TYPE_LENGTH
from realtime.events.topic import MAX_TOPIC_LENGTH
from realtime.models import AccessToken, Event, Ticket, Topic

from .support.databases import new_database_url
from .support.servers import ROOT

pytestmark = pytest.mark.django_db


def test_no_migration_is_missing():
    call_command("makemigrations", "realtime", "--check", "--dry-run", stdout=StringIO())


def test_what_is_valid_fits():
    topic = Topic.objects.create(name="a" * MAX_TOPIC_LENGTH)
    Event.objects.create(topic=topic, offset=2**63 - 1, type="🐎" * MAX_TYPE_LENGTH, data="1")
    Topic.objects.filter(pk=topic.pk).update(head=2**63 - 1)
    topic.refresh_from_db()
    assert topic.head == Event.objects.get().offset


def refuses(make) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make()


def test_what_is_unique():
    user = get_user_model().objects.create_user("alice")
    topic = Topic.objects.create(name="a")
    Event.objects.create(topic=topic, offset=1, data="1")
    refuses(lambda: Topic.objects.create(name="a"))
    refuses(lambda: Event.objects.create(topic=topic, offset=1, data="2"))
    for model, expires in ((AccessToken, {}), (Ticket, {"expires": topic.created})):
        model.objects.create(user=user, digest="d", **expires)
        with pytest.raises(IntegrityError), transaction.atomic():
            model.objects.create(user=user, digest="d", **expires)


def test_each_topic_has_an_epoch_of_its_own():
    made = [Topic.objects.create(name=name).epoch for name in "abc"]
    assert len(set(made)) == 3
    assert [topic.epoch for topic in Topic.objects.order_by("pk")] == made


def test_a_topic_takes_its_events_along():
    topic = Topic.objects.create(name="a")
    Event.objects.create(topic=topic, offset=1, data="1")
    topic.delete()
    assert Event.objects.count() == 0


def test_names_for_people():
    topic = Topic.objects.create(name="room.a")
    event = Event.objects.create(topic=topic, offset=7, data="1")
    user = get_user_model().objects.create_user("alice")
    ticket = Ticket.objects.create(user=user, digest="d", expires=topic.created)
    (secret, named), (_, nameless) = create_token(user, name="phone"), create_token(user)
    assert [str(row) for row in (topic, event, named, nameless, ticket)] == [
        "room.a",
        f"{topic.pk}-7",
        "phone",
        f"token {nameless.pk}",
        f"ticket {ticket.pk}",
    ]
    assert secret not in repr(named)


UPGRADE = """
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from realtime.access.identity import digest
from realtime.access.scopes import scopes_of
from realtime.access.tokens import _find_tokens, create_token
from realtime.models import AccessToken

def insert(secret):
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO realtime_accesstoken (user_id, name, digest, created)"
            " VALUES (%s, 'phone', %s, %s)",
            [user.pk, digest(secret), timezone.now()],
        )

call_command("migrate", verbosity=0)
call_command("migrate", "realtime", "0010", verbosity=0)
user = User.objects.create_user("alice")
insert("rt_before")
call_command("migrate", verbosity=0)
insert("rt_by_a_server_of_the_release_before")
for identity in _find_tokens(["rt_before", "rt_by_a_server_of_the_release_before"]):
    assert (identity.user, scopes_of(identity.user), identity.expires) == (user, "", None)
create_token(None, name="service", scopes="read:a")
call_command("migrate", "realtime", "0010", verbosity=0)
call_command("migrate", verbosity=0)
assert AccessToken.objects.count() == 2  # the release before knows no services
print("as expected")
"""


def test_tokens_of_the_release_before_are_good_after_the_upgrade():
    env = {
        **os.environ,
        "DATABASE_URL": new_database_url(),
        "SECRET_KEY": "test",
        "DJANGO_SETTINGS_MODULE": "project.settings",
    }
    command = [sys.executable, "-c", UPGRADE]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90)
    assert done.stdout.endswith("as expected\n"), done.stderr[-2000:]
