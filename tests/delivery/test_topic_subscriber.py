"""What one topic of a subscription makes of what its fan-out tells it."""

from collections.abc import Iterator

import pytest

from realtime.delivery import fanout
from realtime.delivery.feed import Feed
from realtime.delivery.synced import Sink
from realtime.delivery.topic_subscriber import TopicSubscriber
from realtime.events.event import Event
from realtime.events.position import Position

from ..support.lanes import FakeLane

EPOCH = "epoch001"


def event(offset: int, epoch: str = EPOCH) -> Event:
    return Event("a", "message", str(offset), epoch, offset)


def ephemeral(data: str = "t") -> Event:
    return Event("a", "typing", data)


def encode(event: Event) -> bytes:
    return event.data.encode()


class Reader:
    """What the topic is read for: at rest, until it is woken."""

    def __init__(self, lane: FakeLane) -> None:
        self.sink: Sink | None = Sink(encode, lane)
        self.is_waiting = True
        self.sent_events = self.sent_bytes = 0
        self.woken = 0
        self.ephemeral: list[str] = []
        self.subscriber = TopicSubscriber(self, "a")

    def wake(self, subscriber: TopicSubscriber) -> None:
        assert subscriber is self.subscriber
        self.woken += 1
        self.is_waiting = False
        subscriber.unsync()

    def keep_ephemeral(self, event: Event) -> None:
        self.ephemeral.append(event.data)


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    monkeypatch.setattr(fanout, "SLICE_SECONDS", 60.0)
    made = Feed("a")
    made.start(Position(EPOCH, 4))
    yield made
    made.close()


@pytest.fixture
def lane() -> FakeLane:
    return FakeLane()


@pytest.fixture
async def reader(feed: Feed, lane: FakeLane) -> Reader:
    """Reads the topic from offset 4."""
    reader = Reader(lane)
    subscriber = reader.subscriber
    subscriber.feed = feed
    feed.fanout.add(subscriber)
    await subscriber.find_start(None)
    subscriber.is_placed = True
    return reader


def is_synced(reader: Reader, feed: Feed) -> bool:
    return feed.fanout.position_of(reader.subscriber) is not None


async def test_at_rest_and_next_it_writes_at_once_and_is_synced(reader, feed, lane):
    feed.fanout.send([event(5), ephemeral(), event(6)])
    assert lane.written == [b"5t6"]
    assert reader.subscriber.position == Position(EPOCH, 6)
    assert (reader.woken, reader.ephemeral) == (0, [])
    assert is_synced(reader, feed)
    feed.fanout.send([event(7)])
    assert lane.written == [b"5t6", b"7"]
    assert reader.subscriber.position == Position(EPOCH, 7)


async def test_ephemeral_events_are_written_at_once_from_wherever_it_stands(reader, feed, lane):
    feed.fanout.send([ephemeral()])
    assert lane.written == [b"t"]
    assert is_synced(reader, feed)


@pytest.mark.parametrize("takes", [True, False])
async def test_what_the_lane_does_not_take_is_read(reader, feed, lane, takes):
    lane.takes = takes
    reader.is_waiting = not takes
    feed.fanout.send([event(5), ephemeral()])
    assert lane.written == []
    assert (reader.woken, reader.ephemeral) == (1, ["t"])
    assert reader.subscriber.position == Position(EPOCH, 4)
    assert not is_synced(reader, feed)


@pytest.mark.parametrize("missing", [event(6), event(5, "epoch002")], ids=["a gap", "reborn"])
async def test_what_follows_a_gap_is_not_written(reader, feed, lane, missing):
    reader.subscriber.notify([ephemeral(), missing])
    assert lane.written == []
    assert (reader.woken, reader.ephemeral) == (1, ["t"])


async def test_what_was_read_ahead_is_not_written_again(reader, feed, lane):
    reader.subscriber._position = Position(EPOCH, 5)  # from the log, before it was announced
    feed.fanout.send([event(5)])
    assert (lane.written, reader.woken) == ([], 0)
    assert is_synced(reader, feed)
    feed.fanout.send([event(6)])
    assert lane.written == [b"6"]


async def test_only_what_was_not_read_ahead_is_written(reader, feed, lane):
    reader.subscriber._position = Position(EPOCH, 5)
    feed.fanout.send([ephemeral(), event(5), event(6)])
    assert lane.written == [b"t6"]
    assert reader.subscriber.position == Position(EPOCH, 6)
    assert is_synced(reader, feed)


async def test_without_events_it_reads_what_is_new(reader, feed, lane):
    reader.subscriber.notify([])
    assert reader.woken == 1


async def test_without_a_lane_it_reads(reader, feed, lane):
    reader.sink = None
    feed.fanout.send([event(5)])
    assert reader.woken == 1
    reader.subscriber._position = Position(EPOCH, 6)
    feed.fanout.send([event(6)])
    assert reader.woken == 1  # it has that one


async def test_refused_once_synced_it_reads_on_from_before_the_batch(reader, feed, lane):
    reader.subscriber.sync()
    assert is_synced(reader, feed)
    lane.takes = False
    feed.fanout.send([event(5), ephemeral(), event(6)])
    assert reader.subscriber.position == Position(EPOCH, 4)
    assert (reader.woken, reader.ephemeral) == (1, ["t"])


async def test_it_takes_nothing_before_it_is_placed_and_after_it_has_left(reader, feed, lane):
    subscriber = reader.subscriber
    subscriber.is_placed = False
    for events in ([event(5)], [ephemeral()], []):
        subscriber.notify(events)
    subscriber.sync()
    assert not is_synced(reader, feed)
    assert (lane.written, reader.woken, reader.ephemeral) == ([], 0, [])


async def test_its_position_is_kept_when_it_is_unsynced(reader, feed, lane):
    reader.subscriber.sync()
    feed.fanout.send([event(5)])
    reader.subscriber.unsync()
    reader.subscriber.unsync()
    assert reader.subscriber.position == Position(EPOCH, 5)
