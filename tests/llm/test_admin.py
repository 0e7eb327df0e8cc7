"""`realtime.llm.admin`, through Django's test client."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from realtime.access.tokens import create_token
from realtime.llm.models import Generation
from realtime.models import Event

from ..support.admin import alice, boss, helper, page, url  # noqa: F401 - two are fixtures

pytestmark = pytest.mark.django_db(transaction=True)


def answer(user: object, name: str, **values: object) -> Generation:
    now = timezone.now()
    given = {"beat": now, "heard": now, "digest": "d", "model": "gpt-x", **values}
    topic = f"user.{user.pk}.chat.{name}"
    return Generation.objects.create(user=user, name=name, topic=topic, **given)


def cancel(client: Client, *rows: Generation) -> str:
    form = {"action": "cancel", "_selected_action": [row.pk for row in rows]}
    return client.post(
        url("realtime_llm_generation_changelist"), form, follow=True
    ).content.decode()


@pytest.fixture
def answers(alice):  # noqa: F811
    """One under way, one that has lost its process, one that has ended."""
    now = timezone.now()
    late = now - timedelta(hours=1)
    done = {"ended": now, "outcome": "length", "input_tokens": 7, "output_tokens": 4711}
    bob = User.objects.create_user("bob")
    return [
        answer(alice, "atwork"),
        answer(alice, "lost", beat=late),
        answer(bob, "done", model="claude-y", **done),
    ]


def test_answers_are_listed_searched_and_filtered(boss, answers):  # noqa: F811
    address = url("realtime_llm_generation_changelist")
    everything = page(boss, address)
    for said in ("alice", "bob", "gpt-x", "4711", "under way", "no sign of life", "length"):
        assert said in everything
    for query, names in {
        ("q", "alice"): {"atwork", "lost"},
        ("q", "chat.done"): {"done"},
        ("q", "claude"): {"done"},
        ("state", "running"): {"atwork", "lost"},
        ("state", "ended"): {"done"},
        ("state", "nonsense"): {"atwork", "lost", "done"},
        ("outcome__exact", "length"): {"done"},
        ("model__exact", "gpt-x"): {"atwork", "lost"},
    }.items():
        found = page(boss, address, **dict([query]))
        assert {name for name in ("atwork", "lost", "done") if f"chat.{name}<" in found} == names
    shown = page(boss, url("realtime_llm_generation_change", answers[2].pk))
    assert "4711" in shown
    assert 'name="_save"' not in shown


def test_answers_are_read_only_but_for_the_action(boss, answers):  # noqa: F811
    row = answers[0]
    for address in (
        url("realtime_llm_generation_add"),
        url("realtime_llm_generation_change", row.pk),
        url("realtime_llm_generation_delete", row.pk),
    ):
        assert boss.post(address, {"post": "yes"}).status_code == 403


def test_answers_can_not_be_deleted_by_themselves(boss, answers):  # noqa: F811
    form = {"action": "delete_selected", "_selected_action": [answers[0].pk], "post": "yes"}
    listed = url("realtime_llm_generation_changelist")
    boss.post(listed, form)
    assert Generation.objects.count() == 3
    assert "delete_selected" not in page(boss, listed)
    address = url("realtime_llm_generation_delete", answers[0].pk)
    assert address not in page(boss, url("realtime_llm_generation_change", answers[0].pk))


def test_user_is_deleted_with_answers_and_tokens(boss, alice, answers):  # noqa: F811
    create_token(alice)
    gone = boss.post(url("auth_user_delete", alice.pk), {"post": "yes"}, follow=True)
    assert "was deleted successfully" in gone.content.decode()
    assert [row.user.username for row in Generation.objects.all()] == ["bob"]


def test_users_are_deleted_with_answers_by_those_who_may_delete_these(alice, answers):  # noqa: F811
    client = helper("view_user", "delete_user")
    form = {"action": "delete_selected", "_selected_action": [alice.pk], "post": "yes"}
    listed = url("auth_user_changelist")
    assert client.post(listed, form).status_code == 403
    user = User.objects.get(username="helper")
    user.user_permissions.add(Permission.objects.get(codename="delete_generation"))
    client.post(listed, form)
    assert not User.objects.filter(pk=alice.pk).exists()


def test_answers_are_cancelled_once(boss, answers):  # noqa: F811
    assert "2 answers cancelled." in cancel(boss, *answers)
    assert "0 answers cancelled." in cancel(boss, *answers)
    outcomes = Generation.objects.order_by("pk").values_list("outcome", flat=True)
    assert list(outcomes) == ["cancelled", "cancelled", "length"]
    assert [(e.type, e.data) for e in Event.objects.filter(topic__name=answers[0].topic)] == [
        ("done", '{"stop_reason":"cancelled"}')
    ]
    listed = page(boss, url("realtime_llm_generation_changelist"))
    links = re.findall(r'href="([^"]+\?q=[^"]+)"', listed)
    assert sum("cancelled" in page(boss, link) for link in links) == 2


def test_cancelling_needs_the_change_permission(answers):
    client = helper("view_generation")
    assert 'value="cancel"' not in page(client, url("realtime_llm_generation_changelist"))
    cancel(client, answers[0])
    assert Generation.objects.filter(outcome="cancelled").count() == 0
    user = User.objects.get(username="helper")
    user.user_permissions.add(Permission.objects.get(codename="change_generation"))
    assert "1 answer cancelled." in cancel(client, answers[0])


def test_the_list_of_answers_needs_the_view_permission(answers):
    assert helper("view_topic").get(url("realtime_llm_generation_changelist")).status_code == 403
