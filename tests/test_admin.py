"""`realtime.admin`, through Django's test client."""

import hashlib
import json
import re
from datetime import timedelta
from unittest.mock import patch

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from realtime.access import signals
from realtime.access.tokens import create_token
from realtime.access.users import find_user
from realtime.admin import AccessTokenAdmin
from realtime.delivery.publish import publish
from realtime.models import AccessToken, Event, Ticket, Topic

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


def url(name: str, *arguments: object) -> str:
    return reverse(f"admin:{name}", args=arguments)


def page(client: Client, address: str, **query: str) -> str:
    answer = client.get(address, query)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("boss", password="sesame"))
    return client


@pytest.fixture
def alice():
    return User.objects.create_user("alice", password="sesame")


def helper(*permissions: str) -> Client:
    """A client of a member of staff with these permissions of the app only."""
    user = User.objects.create_user("helper", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


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


# -- access tokens


def make_token(client: Client, user, **fields: str) -> tuple[str, str]:
    """Make a token by the form; the token that is shown, and the page that shows it."""
    form = {"user": user.pk, "name": "phone", "expires_0": "", "expires_1": "", **fields}
    answer = client.post(url("realtime_accesstoken_add"), form, follow=True)
    shown = answer.content.decode()
    [token] = re.findall(r"rt_[\w-]{40,}", shown)
    return token, shown


def test_a_token_is_seen_once(boss, alice):
    token, shown = make_token(boss, alice)
    assert "shown again" in shown
    row = AccessToken.objects.get()
    assert (row.user, row.name, row.expires) == (alice, "phone", None)
    assert row.digest == hashlib.sha256(token.encode()).hexdigest()
    for address in (
        url("realtime_accesstoken_changelist"),
        url("realtime_accesstoken_change", row.pk),
        url("realtime_accesstoken_history", row.pk),
        url("index"),
    ):
        seen = page(boss, address)
        assert token not in seen
        assert row.digest not in seen


def test_token_is_in_the_page_alone(boss, alice):
    """A message may be kept in a cookie, which is signed and not encrypted."""
    form = {"user": alice.pk, "name": "", "expires_0": "", "expires_1": ""}
    answer = boss.post(url("realtime_accesstoken_add"), form)
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    assert "messages" not in answer.cookies
    [token] = re.findall(r"rt_[\w-]{40,}", answer.content.decode())
    for address in ("index", "realtime_accesstoken_changelist"):
        assert token not in page(boss, url(address))


@pytest.mark.parametrize(
    ("permissions", "whose", "is_made"),
    [
        (["add_accesstoken"], "helper", True),
        (["add_accesstoken"], "alice", False),
        (["add_accesstoken"], "boss", False),
        (["add_accesstoken", "change_user"], "alice", True),
        (["add_accesstoken", "change_user"], "boss", False),
        (["add_accesstoken", "change_user"], "clerk", False),
        (["add_accesstoken", "change_user", "add_event"], "clerk", True),
        (["add_accesstoken", "change_accesstoken", "view_user"], "alice", False),
    ],
)
def test_token_of_another_user_is_for_those_who_may_change_that_user_and_are_no_less(
    boss, alice, permissions, whose, is_made
):
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="add_event"))
    client = helper(*permissions)
    user = User.objects.get(username=whose)
    form = {"user": user.pk, "name": "", "expires_0": "", "expires_1": ""}
    shown = client.post(url("realtime_accesstoken_add"), form).content.decode()
    assert ("rt_" in shown, "You can make tokens for yourself" in shown) == (is_made, not is_made)
    assert AccessToken.objects.filter(user=user).exists() is is_made


def test_form_begins_with_the_user_who_asks(boss):
    pk = User.objects.get(username="boss").pk
    assert f'<option value="{pk}" selected>boss' in page(boss, url("realtime_accesstoken_add"))


def test_a_token_with_an_end(boss, alice):
    make_token(boss, alice, expires_0="2100-01-02", expires_1="03:04:05")
    expires = AccessToken.objects.get().expires
    assert expires.isoformat() == "2100-01-02T03:04:05+00:00"


def test_a_token_needs_a_user(boss):
    answer = boss.post(url("realtime_accesstoken_add"), {"user": "", "name": "x"})
    assert answer.status_code == 200
    assert answer.context["adminform"].form.errors.keys() >= {"user"}
    assert AccessToken.objects.count() == 0


def test_a_token_can_not_be_edited(boss, alice):
    _, row = create_token(alice, name="phone")
    address = url("realtime_accesstoken_change", row.pk)
    assert 'name="_save"' not in page(boss, address)
    answer = boss.post(address, {"user": alice.pk, "name": "other"})
    assert answer.status_code == 403
    assert AccessToken.objects.get().name == "phone"


def act(client: Client, action: str, *rows: AccessToken) -> str:
    form = {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(url("realtime_accesstoken_changelist"), form, follow=True).content.decode()


def assert_told_of(told, user) -> None:
    """Every process is told, once, to check this user's connections."""
    told.assert_called_once()
    topic, what = told.call_args.args
    assert topic == signals.TOPIC
    assert f"'{user.pk}'" in repr(what)


def test_revoke_ends_the_token_and_what_lives_on_it(boss, alice):
    (_, one), (_, other), (_, kept) = create_token(alice), create_token(alice), create_token(alice)
    AccessToken.objects.filter(pk=other.pk).update(revoked=timezone.now())
    with patch.object(signals, "publish") as told:
        assert "1 token revoked" in act(boss, "revoke", one, other)
    assert_told_of(told, alice)
    assert [find_user("token", row.pk) for row in (one, other, kept)] == [None, None, alice]


def test_a_deleted_token_ends_what_lives_on_it(boss, alice):
    _, row = create_token(alice)
    with patch.object(signals, "publish") as told:
        boss.post(url("realtime_accesstoken_delete", row.pk), {"post": "yes"})
    assert_told_of(told, alice)
    assert AccessToken.objects.count() == 0


def test_revoking_needs_more_than_the_view_permission(alice):
    _, row = create_token(alice)
    client = helper("view_accesstoken")
    assert 'value="revoke"' not in page(client, url("realtime_accesstoken_changelist"))
    act(client, "revoke", row)
    assert AccessToken.objects.get().revoked is None
    assert client.get(url("realtime_accesstoken_add")).status_code == 403


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "valid"),
        ({"expires": timezone.now() + timedelta(days=1)}, "valid"),
        ({"expires": timezone.now() - timedelta(days=1)}, "expired"),
        ({"revoked": timezone.now()}, "revoked"),
        ({"revoked": timezone.now(), "expires": timezone.now()}, "revoked"),
    ],
)
def test_the_list_shows_the_state_of_a_token(boss, alice, changes, state):
    create_token(alice)
    AccessToken.objects.update(**changes)
    assert f'field-state">{state}<' in page(boss, url("realtime_accesstoken_changelist"))


def test_tokens_are_searched_by_name_and_user(boss, alice):
    create_token(alice, name="phone")
    create_token(User.objects.get(username="boss"), name="laptop")
    address = url("realtime_accesstoken_changelist")
    for word in ("phone", "alice"):
        found = page(boss, address, q=word)
        assert ("phone" in found, "laptop" in found) == (True, False)


def test_a_site_without_users_in_its_admin_can_have_tokens():
    """Autocompletion needs the user in the same admin; a site's own user may be missing there."""
    site = admin.AdminSite("other")
    site.register(AccessToken, AccessTokenAdmin)
    tokens = site.get_model_admin(AccessToken)
    assert tokens.check() == []
    assert tokens.get_autocomplete_fields(None) == ()
    assert admin.site.get_model_admin(AccessToken).get_autocomplete_fields(None) == ("user",)


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
