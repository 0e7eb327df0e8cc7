"""`{% load realtime %}` in a template of a site."""

import pytest
from django.template import Context, Template

from realtime.delivery.heads import position
from realtime.delivery.publish import publish

pytestmark = pytest.mark.django_db(transaction=True)


def render(text: str, **context: object) -> str:
    return Template("{% load realtime %}" + text).render(Context(context))


def test_position_is_written() -> None:
    event = publish("room.a", 1)
    assert render('{% position "room.a" %}') == event.id
    assert render("{% position topic as after %}?after={{ after|urlencode }}", topic="room.a") == (
        f"?after={event.id}"
    )


def test_position_of_several_topics_is_written() -> None:
    publish("room.a", 1)
    tag = render('{% position "room.a" "room.b" as after %}{{ after|urlencode }}')
    assert tag == position("room.a", "room.b").replace("=", "%3D").replace(",", "%2C")
