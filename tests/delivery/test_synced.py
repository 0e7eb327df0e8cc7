"""What each subscriber of a group was sent."""

from typing import Any

from realtime.delivery.synced import Sent, Sink, Synced
from realtime.events.event import Event

from ..support.lanes import FakeGroup, FakeLane, identity


def encode(event: Event) -> bytes:
    return event.data.encode()


EVENTS = [Event("a", "message", "one"), Event("a", "message", "two")]


def test_a_sink_tells_how_many_bytes_it_has_written():
    lane = FakeLane()
    assert Sink(encode, lane).try_write(EVENTS) == 6
    assert lane.written == [b"onetwo"]
    assert not Sink(encode, FakeLane(takes=False)).try_write(EVENTS)
    lane.framing = None
    assert not Sink(encode, lane).try_write(EVENTS)


def test_a_subscriber_was_sent_what_went_out_since_it_was_synced():
    kind: Any = FakeGroup
    synced = Synced(encode, identity, kind)
    first = synced.sent
    synced.sent = Sent(3, 30)
    second = synced.sent
    synced.sent, synced.sending, synced.sent_until = Sent(5, 50), Sent(2, 20), 1
    assert synced.sent_to(0, first) == (5, 50)
    assert synced.sent_to(1, first) == (3, 30)  # which comes to those that follow
    assert synced.sent_to(1, second) == (0, 0)
    synced.sending = Sent(0, 0)
    assert synced.sent_to(1, second) == (2, 20)
