"""`realtime.admin.event_admin`, through Django's test client."""

import json
import re

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.test import Client
from django.urls import reverse

from realtime.delivery.publish import publish
from realtime.models import Event, Ticket, Topic

from ..support.admin import helper, page, url

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


# -- users


def test_users_are_as_django_has_them(boss, alice):
    assert isinstance(admin.site.get_model_admin(User), UserAdmin)
    assert "alice" in page(boss, url("auth_user_changelist"))
    assert "password" in page(boss, url("auth_user_change", alice.pk))


def test_the_admin_needs_staff(alice):
    client = Client()
    client.force_login(alice)
    for name in ("realtime_topic_changelist", "realtime_publish", "realtime_accesstoken_add"):
        answer = client.get(url(name))
        assert (answer.status_code, "/login/" in answer["Location"]) == (302, True)


def test_tickets_are_nobodys_business():
    assert not admin.site.is_registered(Ticket)


# -- topics and events


@pytest.mark.parametrize("model", [Topic, Event], ids=["topic", "event"])
def test_the_log_is_read_only(boss, model):
    publish("room.a", {"text": "hello"})
    name = model._meta.model_name
    row = model.objects.get()
    before = model.objects.values().get()
    assert 'name="_save"' not in page(boss, url(f"realtime_{name}_change", row.pk))
    for address in (
        url(f"realtime_{name}_add"),
        url(f"realtime_{name}_change", row.pk),
        url(f"realtime_{name}_delete", row.pk),
    ):
        assert boss.post(address, {"post": "yes"}).status_code == 403
    assert 'value="delete_selected"' not in page(boss, url(f"realtime_{name}_changelist"))
    assert model.objects.values().get() == before


def test_topics_are_searched_and_lead_to_their_events(boss):
    publish("room.a", "in a")
    publish("room.b", "in b")
    address = url("realtime_topic_changelist")
    found = page(boss, address, q="room.b")
    assert ("room.a" in found, "room.b" in found) == (False, True)
    [link] = re.findall(r'href="([^"]+topic__id__exact=\d+)"', found)
    events = page(boss, link)
    assert ("in a" in events, "in b" in events) == (False, True)


def renew(client: Client, *topics: Topic) -> str:
    form = {"action": "new_epoch", "_selected_action": [topic.pk for topic in topics]}
    return client.post(url("realtime_topic_changelist"), form, follow=True).content.decode()


def test_a_new_epoch_after_a_restored_backup(boss):
    for name in ("room.a", "room.b"):
        publish(name, 1)
    before = dict(Topic.objects.values_list("name", "epoch"))
    said = renew(boss, Topic.objects.get(name="room.a"))
    assert "A new epoch of 1 topic." in said
    after = dict(Topic.objects.values_list("name", "epoch"))
    assert (after["room.a"] != before["room.a"], after["room.b"]) == (True, before["room.b"])
    client = helper("view_topic")
    assert 'value="new_epoch"' not in page(client, url("realtime_topic_changelist"))
    renew(client, *Topic.objects.all())
    assert dict(Topic.objects.values_list("name", "epoch")) == after


@pytest.mark.parametrize("word", ["room.b", "joined", "needle"])
def test_events_are_searched(boss, word):
    publish("room.a", "haystack")  # long: a page has random letters too
    event = publish("room.b", "needle", type="joined")
    found = page(boss, url("realtime_event_changelist"), q=word)
    assert (event.id in found, "haystack" in found) == (True, False)


def test_an_event_is_shown_in_full_and_escaped(boss):
    data = {"text": "<script>alert('ž')</script>", "long": "x" * 200}
    event = publish("room.a", data)
    row = Event.objects.get()
    listed = page(boss, url("realtime_event_changelist"))
    assert ("…" in listed, "x" * 200 in listed, "<script>alert" in listed) == (True, False, False)
    shown = page(boss, url("realtime_event_change", row.pk))
    assert event.id in shown
    assert "&lt;script&gt;alert(&#x27;ž&#x27;)&lt;/script&gt;" in shown
    assert "x" * 200 in shown


@pytest.mark.parametrize("depth", [300, 700, 900])
def test_an_event_of_any_depth_is_shown(boss, depth):
    publish("room.a", json.loads("[" * depth + "]" * depth))
    shown = page(boss, url("realtime_event_change", Event.objects.get().pk))
    assert re.sub(r"\s", "", shown).count("[") >= depth


# -- publishing


def send(client: Client, **fields: str):
    form = {"topic": "room.a", "type": "message", "json": '{"text": "hi"}', **fields}
    return client.post(url("realtime_publish"), form, follow=True)


def test_publish(boss):
    assert url("realtime_publish") in page(boss, url("realtime_topic_changelist"))
    assert 'value="room.b"' in page(boss, url("realtime_publish"), topic="room.b")
    answer = send(boss, type="said")
    row = Event.objects.get()
    assert (row.topic.name, row.type, row.data) == ("room.a", "said", '{"text":"hi"}')
    assert json.loads(row.meta)["sender"]["username"] == "boss"
    shown = page(boss, reverse("admin:realtime_event_change", args=[row.pk]))
    assert "&quot;sender&quot;" in shown
    assert f"Published to room.a: {row.topic.epoch}-1" in answer.content.decode()


def test_page_to_publish_looks_as_djangos_own(boss):
    shown, own = page(boss, url("realtime_publish")), page(boss, url("realtime_accesstoken_add"))
    for pattern in (
        r'<link rel="stylesheet" href="[^"]*/admin/css/\w+.css"',
        r'<\w+ class="breadcrumbs">',
        r'<fieldset class="[^"]*">',
    ):
        assert re.search(pattern, shown)
        assert set(re.findall(pattern, shown)) <= set(re.findall(pattern, own))
    for name, kind in (("topic", "vTextField"), ("json", "vLargeTextField")):
        assert re.search(rf'<[^>]* name="{name}"[^>]* class="{kind}"', shown)


def test_publish_ephemeral(boss):
    assert "Published to room.a: ephemeral" in send(boss, ephemeral="on").content.decode()
    assert (Event.objects.count(), Topic.objects.count()) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"json": "{"}, "This is not JSON"),
        ({"json": "NaN"}, "NaN is not a JSON number"),
        ({"json": ""}, "This field is required"),
        ({"json": '"' + "x" * 65_536 + '"'}, "more than the 65536"),
        ({"topic": "a b"}, "can&#x27;t be a topic"),
        ({"topic": ""}, "This field is required"),
        ({"topic": "realtime.revocation"}, "for the package alone"),
        ({"type": "reset"}, "reserved"),
        ({"type": "x" * 65}, "1 to 64 characters"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_can_not_be_published_is_said_and_kept_in_the_form(boss, fields, says):
    answer = send(boss, **fields)
    shown = answer.content.decode()
    assert answer.status_code == 200
    assert [*answer.context["adminform"].form.errors] == [*fields]
    [said] = re.findall(r'<ul class="errorlist"[^>]*>(.*?)</ul>', shown, re.S)
    assert says in said
    assert "Please correct the error below." in shown
    assert 'name="json"' in shown
    assert Topic.objects.count() == 0


def test_publishing_needs_a_permission(alice):
    client = helper("view_topic", "view_event")
    assert url("realtime_publish") not in page(client, url("realtime_topic_changelist"))
    for answer in (client.get(url("realtime_publish"), follow=True), send(client)):
        assert "You may not publish." in answer.content.decode()
    assert Topic.objects.count() == 0


def test_publishing_is_allowed_with_the_add_permission():
    client = helper("view_topic", "add_event")
    assert "Published to" in send(client).content.decode()


def test_publishing_needs_the_csrf_token(boss):
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = boss.cookies
    assert strict.post(url("realtime_publish"), {"topic": "a"}).status_code == 403
