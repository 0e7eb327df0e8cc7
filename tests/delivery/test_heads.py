"""A page is rendered and listens from there: no event is missed in between."""

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import transaction

from realtime.delivery.heads import aposition, position
from realtime.delivery.publish import apublish, publish
from realtime.exceptions import InvalidTopic
from realtime.testing import event_stream

from ..support.asgi import application

pytestmark = pytest.mark.django_db(transaction=True)


def test_position_is_the_id_of_the_newest_event() -> None:
    assert position("room.a") == "new-0"
    event = publish("room.a", 1)
    publish("room.a", 2, ephemeral=True)
    assert position("room.a") == event.id


def test_position_of_several_topics_is_the_id_of_their_stream() -> None:
    event = publish("room.a", 1)
    assert position("room.a", "room.b") == f"room.a={event.id},room.b=new-0"


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InvalidTopic):
        position("no topic")
    with pytest.raises(TypeError, match="at least one topic"):
        position()


async def test_what_is_stored_after_it_comes_as_an_event() -> None:
    alice = await User.objects.acreate(username="alice")
    await apublish("room.a", "on the page")
    one, both = await aposition("room.a"), await aposition("room.a", "room.b")
    await apublish("room.a", "missed by a live stream")
    for path in (
        f"/topics/room.a/events?after={one}",
        f"/events?topic=room.a&topic=room.b&after={both}",
    ):
        async with event_stream(application, path, user=alice) as stream:
            assert "missed by a live stream" in (await stream.receive()).data


async def test_own_event_that_is_not_committed_comes_as_an_event() -> None:
    def view() -> tuple[str, str]:
        with transaction.atomic():
            event = publish("room.a", 1)
            return position("room.a"), event.id

    found, event_id = await sync_to_async(view)()
    assert found != event_id
