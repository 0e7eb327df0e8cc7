import pytest
from django.contrib.auth.models import User
from django.test import TestCase, TransactionTestCase
from mysite.asgi import application

from realtime import apublish, publish
from realtime.testing import ConnectionRefused, event_stream, memory_log, websocket


class RoomTests(TransactionTestCase):
    async def test_a_room_over_both_transports(self):
        alice = await User.objects.acreate_user("alice")
        async with (
            websocket(application, "/ws/topics/room.a", user=alice) as socket,
            event_stream(application, "/topics/room.a/events", user=alice) as stream,
        ):
            await apublish("room.a", {"text": "hi"})
            assert (await socket.receive_json())["data"] == {"text": "hi"}
            assert (await stream.receive()).json() == {"text": "hi"}

    async def test_strangers_stay_outside(self):
        with pytest.raises(ConnectionRefused, match="401"):
            async with websocket(application, "/ws/topics/room.a"):
                pass


class PublishTests(TestCase):
    def test_what_is_published(self):
        with memory_log() as log:
            publish("kitchen", {"order": 1}, type="ordered")
        assert [event.type for event in log.events("kitchen")] == ["ordered"]
