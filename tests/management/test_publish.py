"""`manage.py publish`."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from realtime.models import Event, Topic

pytestmark = pytest.mark.django_db(transaction=True)


def publish(*arguments: str) -> str:
    out = StringIO()
    call_command("publish", *arguments, stdout=out)
    return out.getvalue()


def test_it_prints_the_id():
    ids = [publish("room.a", '{"text": "ž"}'), publish("room.a", "null", "--type", "joined")]
    epoch = Topic.objects.get().epoch
    assert ids == [f"{epoch}-1\n", f"{epoch}-2\n"]
    rows = Event.objects.order_by("offset").values_list("type", "data")
    assert list(rows) == [("message", '{"text":"ž"}'), ("joined", "null")]


def test_an_ephemeral_event_has_no_id():
    assert publish("room.a", "1", "--ephemeral") == "ephemeral\n"
    assert Topic.objects.count() == 0


def test_with_its_key_an_event_is_stored_once():
    first = publish("room.a", '{"paid": 7}', "--key", "order-7")
    assert publish("room.a", '{"paid":7}', "--key", "order-7") == first
    assert Event.objects.count() == 1
    with pytest.raises(CommandError, match="order-7"):
        publish("room.a", '{"paid": 8}', "--key", "order-7")
    assert Event.objects.count() == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["room.a", "{"], "This is not JSON"),
        (["room.a", "{'a': 1}"], "This is not JSON"),
        (["room.a", ""], "This is not JSON"),
        (["room.a", "NaN"], "not a JSON number"),
        (["room.a", '"\udcff"'], "surrogate"),  # how Python gives bytes that are not UTF-8
        (["room.a", '"' + "x" * 65_536 + '"'], "MAX_EVENT_BYTES"),
        (["room a", "1"], "can't be a topic"),
        (["room.a", "1", "--type", ""], "can't be an event's type"),
        (["room.a", "1", "--type", "reset"], "reserved"),
        (["room.a", "1", "--key", "\n"], "idempotency key"),
        (["room.a", "1", "--key", "a", "--ephemeral"], "leave the key out"),
        (["room.a"], "json"),
        ([], "topic"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_is_refused(arguments, says):
    with pytest.raises(CommandError, match=says):
        publish(*arguments)
    assert Topic.objects.count() == 0
