"""Events in the form that a connection's framing asks for, past the awaited path."""

import pytest

from realtime.delivery.lanes import SSE_ENCODERS, WEBSOCKET_ENCODERS, EventLane, find_lane
from realtime.events.event import Event
from realtime.streaming.sse import encode_event
from realtime.websocket.messages import event_frame

EVENT = Event("room.a", "message", '"é"', "epoch", 1)


class Lane:
    def __init__(self, framing: str | None, takes: bool = True) -> None:
        self.framing = framing
        self.group_type = None
        self.takes = takes
        self.written: list[bytes] = []

    def arm(self, body: bytes) -> None:
        raise NotImplementedError

    def write(self, payload: bytes) -> bool:
        if self.takes:
            self.written.append(payload)
        return self.takes


@pytest.mark.parametrize(
    "scope", [{}, {"extensions": None}, {"extensions": {}}, {"extensions": {"other": {}}}]
)
def test_servers_without_a_lane(scope):
    assert find_lane(scope) is None


def test_the_lane_of_a_scope():
    lane = Lane("websocket")
    assert find_lane({"extensions": {"realtime.lane": {"lane": lane}}}) is lane


BODY = encode_event(EVENT)


@pytest.mark.parametrize(
    ("encoders", "framing", "expected"),
    [
        (WEBSOCKET_ENCODERS, "websocket", event_frame(EVENT)),
        (SSE_ENCODERS, "identity", BODY),
        (SSE_ENCODERS, "chunked", b"%x\r\n%b\r\n" % (len(BODY), BODY)),
    ],
)
def test_each_framing_has_its_form(encoders, framing, expected):
    lane = Lane(framing)
    assert EventLane(lane, encoders).push(EVENT)
    assert lane.written == [expected]


@pytest.mark.parametrize(
    ("encoders", "framing"),
    [(SSE_ENCODERS, None), (SSE_ENCODERS, "websocket"), (WEBSOCKET_ENCODERS, "chunked")],
)
def test_a_framing_that_does_not_fit_is_not_written_to(encoders, framing):
    lane = Lane(framing)
    assert not EventLane(lane, encoders).push(EVENT)
    assert lane.written == []


def test_several_are_written_at_once():
    lane = Lane("websocket")
    other = Event("room.a", "message", "2", "epoch", 3)
    assert EventLane(lane, WEBSOCKET_ENCODERS).push(EVENT, other)
    assert lane.written == [event_frame(EVENT) + event_frame(other)]


def test_a_lane_that_takes_nothing():
    assert not EventLane(Lane("websocket", takes=False), WEBSOCKET_ENCODERS).push(EVENT)


def test_the_form_is_made_once_for_all_sockets():
    event = Event("room.a", "message", "1", "epoch", 2)
    lanes = [Lane("chunked") for _ in range(2)]
    for lane in lanes:
        assert EventLane(lane, SSE_ENCODERS).push(event)
    assert lanes[0].written[0] is lanes[1].written[0]
