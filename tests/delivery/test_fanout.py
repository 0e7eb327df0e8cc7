"""Synced and lagging subscribers, and what each has had at any moment."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from realtime.delivery import fanout
from realtime.delivery.fanout import DELIVERIES, Fanout
from realtime.delivery.synced import Encode, Sink
from realtime.events.event import Event
from realtime.events.position import Position

from ..support.clients import eventually
from ..support.lanes import FakeGroup, FakeLane, identity

EPOCH = "epoch001"


def event(offset: int, epoch: str = EPOCH) -> Event:
    return Event("a", "message", str(offset), epoch, offset)


def ephemeral(data: str = "t") -> Event:
    return Event("a", "typing", data)


def at(offset: int, epoch: str = EPOCH) -> Position:
    return Position(epoch, offset)


def encode(event: Event) -> bytes:
    return event.data.encode()


def encode_otherwise(event: Event) -> bytes:
    return f"<{event.data}>".encode()


def in_brackets(body: bytes) -> bytes:
    return b"(%b)" % body


class Client:
    """A subscriber that remembers what it was told; `reads` it, and syncs again, if it may."""

    def __init__(self, crowd: Fanout, encode: Encode = encode, reads: bool = True) -> None:
        self.crowd = crowd
        self.lane = FakeLane()
        self.sink = Sink(encode, self.lane)
        self.reads = reads
        self.own = at(0)
        self.notified: list[list[int]] = []
        self.unsynced_with: list[tuple[int, list[str]]] = []
        self.sent = (0, 0)
        crowd.add(self)

    @property
    def position(self) -> Position:
        return self.crowd.position_of(self) or self.own

    @property
    def is_synced(self) -> bool:
        return self.crowd.position_of(self) is not None

    @property
    def written(self) -> list[bytes]:
        return self.lane.written

    def sync(self) -> bool:
        return self.crowd.sync(self, self.sink, self.own)

    def unsync(self) -> None:
        self.own = self.crowd.unsync(self) or self.own

    def notify(self, events: Sequence[Event]) -> None:
        self.notified.append([event.offset for event in events])
        for each in events:
            if self.reads and each.offset and each.follows(self.own):
                self.own = each.position
        if self.reads:
            self.sync()

    def note_sent(self, events: int, size: int) -> None:
        self.sent = events, size

    def unsynced(self, position: Position, events: Sequence[Event]) -> None:
        self.own = position
        self.unsynced_with.append((position.offset, [event.data for event in events]))


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fanout]:
    # A busy machine may stop this process for longer than a slice: then the rest of a broadcast
    # would come later, where a test has not asked for that.
    monkeypatch.setattr(fanout, "SLICE_SECONDS", 60.0)
    made = Fanout("a")
    made.restart(at(0))
    yield made
    made.close()


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch, crowd: Fanout) -> None:
    """The loop has a turn after each write."""
    monkeypatch.setattr(fanout, "SLICE_READERS", 1)
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)


def synced(crowd: Fanout, count: int, **options: Any) -> list[Client]:
    clients = [Client(crowd, **options) for _ in range(count)]
    assert all(client.sync() for client in clients)
    assert all(client.is_synced for client in clients)
    return clients


async def until(is_true: Callable[[], bool]) -> None:
    """Go on in the turn of the loop in which it is true."""
    async with asyncio.timeout(15):
        while not is_true():
            await asyncio.sleep(0)


async def sent(crowd: Fanout) -> None:
    await eventually(lambda: crowd._run is None)


# -- synced


async def test_the_same_bytes_go_to_all_synced_and_none_is_notified(crowd):
    clients = synced(crowd, 3)
    crowd.send([event(1), event(2)])
    assert [client.written for client in clients] == [[b"12"]] * 3
    assert clients[0].written[0] is clients[2].written[0]
    assert [client.notified for client in clients] == [[]] * 3
    assert [client.position for client in clients] == [at(2)] * 3
    assert len(crowd) == 3


async def test_a_topic_is_noted_while_it_has_lagging_subscribers():
    noted: set[str] = set()
    crowd = Fanout("a", noted)
    crowd.restart(at(0))
    first, second = Client(crowd), Client(crowd)
    first.own = at(-1)
    assert (noted, crowd.behind(at(0))) == ({"a"}, 1)
    first.own = at(0)
    assert first.sync()
    assert noted == {"a"}
    assert second.sync()
    assert (noted, crowd.behind(at(0))) == (set(), 0)
    first.unsync()
    assert noted == {"a"}
    crowd.remove(first)
    assert noted == set()
    crowd.remove(second)
    crowd.close()


async def test_each_event_is_framed_and_joined_afterwards(crowd):
    (client,) = synced(crowd, 1)
    client.unsync()
    client.lane.framing = in_brackets
    assert client.sync()
    crowd.send([event(1), event(2)])
    assert client.written == [b"(1)(2)"]


async def test_each_encoding_and_framing_is_a_group(crowd):
    plain, other, framed = Client(crowd), Client(crowd, encode_otherwise), Client(crowd)
    framed.lane.framing = in_brackets
    assert all(client.sync() for client in (plain, other, framed))
    crowd.send([event(1)])
    assert (plain.written, other.written, framed.written) == ([b"1"], [b"<1>"], [b"(1)"])


async def test_lanes_of_another_kind_are_a_group_of_their_own(crowd):
    class OtherGroup(FakeGroup):
        pass

    class OtherLane(FakeLane):
        kind = OtherGroup

    clients = [Client(crowd), Client(crowd)]
    clients[1].sink = Sink(encode, OtherLane())
    assert all(client.sync() for client in clients)
    kinds = {type(group.lanes) for group in crowd._groups.values()}
    assert kinds == {FakeGroup, OtherGroup}


async def test_an_encoding_made_for_one_connection_is_refused(crowd):
    client = Client(crowd)
    prefix = b"mine"
    client.sink = Sink(lambda event: prefix, client.lane)
    with pytest.raises(AssertionError, match="made for one connection"):
        client.sync()


async def test_a_closed_lane_is_not_synced(crowd):
    client = Client(crowd)
    client.lane.framing = None
    assert not client.sync()
    client.lane.framing = identity
    assert client.sync()
    assert client.sync()  # once more says nothing
    crowd.send([event(1)])
    assert client.written == [b"1"]


async def test_ephemeral_events_move_no_position(crowd):
    clients = synced(crowd, 2)
    crowd.send([ephemeral("0"), event(1)])
    assert [client.written for client in clients] == [[b"01"]] * 2
    assert [client.position for client in clients] == [at(1)] * 2


@pytest.mark.parametrize("count", [1, 3])
async def test_what_can_not_be_written_stops_nothing_that_comes_later(crowd, caplog, count):
    def broken(event: Event) -> bytes:
        if event.data == "2":
            raise ValueError("of a form of the site's own")
        return encode(event)

    first, second = synced(crowd, 1), synced(crowd, count, encode=broken)
    lagging = Client(crowd, reads=False)
    crowd.send([event(1)])
    crowd.send([event(2)])
    assert "Can't write events of a" in caplog.text
    assert [client.own for client in second] == [at(1)] * count
    assert first[0].own == at(2)  # it was written to before
    assert lagging.notified[-1] == []
    assert not any(client.is_synced for client in (*first, *second))
    for client in (*first, *second):  # they have read what they lacked
        client.own = at(2)
        assert client.sync()
    crowd.send([event(3)])
    assert [client.written[-1] for client in (*first, *second)] == [b"3"] * (count + 1)


@pytest.mark.parametrize("fails_in", ["note_sent", "give_up"])
@pytest.mark.parametrize("offset", [2, 0])
async def test_a_topic_that_can_not_be_given_up_at_first_is_read_on_at_the_next_event(
    crowd, monkeypatch, fails_in, offset
):
    def broken(event: Event) -> bytes:
        if event.data == "broken":
            raise ValueError("of a form of the site's own")
        return encode(event)

    def no_memory(*args: object) -> None:
        raise MemoryError

    first, second, third = synced(crowd, 3, encode=broken)
    lagging = Client(crowd, reads=False)
    crowd.send([event(1)])
    with monkeypatch.context() as patch:
        if fails_in == "note_sent":
            patch.setattr(second, "note_sent", no_memory)
        else:
            patch.setattr(crowd, "_unsync_all", no_memory)
        with pytest.raises(MemoryError):
            crowd.send([Event("a", "message", "broken", EPOCH, offset)])
    later = 3 if offset else 2
    crowd.send([event(later)])
    assert [client.own for client in (first, second, third)] == [at(1)] * 3
    assert lagging.notified[-1] == []  # it reads the log
    for client in (first, second, third):
        assert not client.is_synced
        client.own = at(later)
        assert client.sync()
    crowd.send([event(later + 1)])
    assert [client.written[1:] for client in (first, second, third)] == [[b"%d" % (later + 1)]] * 3
    assert lagging.notified[-1] == [later + 1]
    assert [client.sent[0] for client in (first, second, third)] == [1, 1, 1]


# -- together


async def test_what_has_come_meanwhile_goes_out_together(crowd, slowly):
    clients = synced(crowd, 3)
    never = Client(crowd, reads=False)
    for offset in range(1, 5):
        crowd.send([event(offset)])
    await eventually(lambda: all(client.position == at(4) for client in clients))
    await sent(crowd)
    assert [client.written for client in clients] == [[b"1", b"234"]] * 3
    assert never.notified == [[1], [2, 3, 4]]


async def test_not_too_many_together(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "WRITE_EVENTS", 3)
    (client,) = synced(crowd, 1)
    crowd.send([event(offset) for offset in range(1, 8)])
    assert client.written == [b"123", b"456", b"7"]


async def test_not_too_much_together(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "WRITE_BYTES", 4)
    (client,) = synced(crowd, 1)
    large = Event("a", "message", "large", EPOCH, 3)  # by itself, it is no larger than it is
    crowd.send([event(1), event(2), large, event(4)])
    assert client.written == [b"12", b"large", b"4"]


# -- something is missing


@pytest.mark.parametrize("missing", [event(3), event(1, "epoch002")], ids=["a gap", "reborn"])
async def test_where_something_is_missing_all_are_unsynced_and_notified(crowd, missing):
    clients = synced(crowd, 2, reads=False)
    crowd.send([event(1), missing])
    assert [client.written for client in clients] == [[b"1"], [b"1"]]
    assert [client.unsynced_with for client in clients] == [[(1, [])]] * 2
    assert [client.notified for client in clients] == [[[missing.offset]]] * 2
    assert [client.is_synced for client in clients] == [False, False]
    assert [client.position for client in clients] == [at(1)] * 2


async def test_what_follows_a_gap_is_not_sent_with_what_is_before_it(crowd):
    clients = synced(crowd, 2, reads=False)
    crowd.send([event(1), event(2), event(4), event(5)])
    assert [client.written for client in clients] == [[b"12"]] * 2
    assert [client.notified for client in clients] == [[[4], [5]]] * 2
    assert [client.position for client in clients] == [at(2)] * 2


async def test_a_restart_has_each_read_on_once(crowd):
    (client,) = synced(crowd, 1)
    lagging, pending = Client(crowd, reads=False), Client(crowd, reads=False)
    pending.own = at(3)
    assert pending.sync()
    crowd.restart(at(7, "epoch002"))
    assert (client.unsynced_with, client.notified, client.position) == ([(0, [])], [], at(0))
    assert (lagging.unsynced_with, lagging.notified) == ([], [[]])
    assert pending.notified == [[]]
    client.own = at(7, "epoch002")
    assert client.sync()
    crowd.send([event(8, "epoch002")])
    assert client.written == [b"8"]


async def test_a_restart_in_the_middle_of_a_broadcast(crowd, slowly):
    clients = synced(crowd, 3, reads=False)
    crowd.send([event(1)])
    crowd.restart(at(7, "epoch002"))
    assert [client.unsynced_with for client in clients] == [[(1, [])], [(0, [])], [(0, [])]]
    await eventually(lambda: clients[2].notified == [[1]])
    assert [client.notified for client in clients] == [[], [[1]], [[1]]]
    await sent(crowd)
    for client in clients:
        client.own, client.reads = at(7, "epoch002"), True
    crowd.send([event(8, "epoch002"), event(9, "epoch002")])
    await eventually(lambda: all(client.position == at(9, "epoch002") for client in clients))
    assert [client.written for client in clients] == [[b"1", b"9"], [b"9"], [b"9"]]


# -- refused


async def test_one_that_takes_nothing_reads_on_from_before_the_batch(crowd):
    clients = synced(crowd, 5, reads=False)
    clients[2].lane.takes = False
    crowd.send([event(1), event(2)])
    assert [client.written for client in clients] == [[b"12"], [b"12"], [], [b"12"], [b"12"]]
    assert clients[2].unsynced_with == [(0, [])]
    assert (clients[2].is_synced, clients[2].notified) == (False, [])
    crowd.send([event(3)])
    assert clients[2].notified == [[3]]
    assert clients[4].written == [b"12", b"3"]


async def test_what_was_refused_is_told_of_ephemeral_events_once(crowd):
    clients = synced(crowd, 3, reads=False)
    clients[1].lane.takes = False
    crowd.send([ephemeral("t"), event(1), ephemeral("u")])
    assert clients[1].unsynced_with == [(0, ["t", "u"])]
    assert clients[1].notified == []
    assert [client.written for client in clients] == [[b"t1u"], [], [b"t1u"]]


async def test_what_was_refused_in_the_middle_of_a_batch_stands_before_it(crowd, slowly):
    clients = synced(crowd, 3, reads=False)
    clients[2].lane.takes = False
    crowd.send([event(1), event(2)])
    assert clients[2].unsynced_with == []  # its turn has not come
    await eventually(lambda: clients[2].unsynced_with == [(0, [])])
    assert [client.position.offset for client in clients] == [2, 2, 0]
    await sent(crowd)


async def test_one_that_fails_hurts_no_other(crowd, caplog):
    class Broken(Client):
        def notify(self, events: Sequence[Event]) -> None:
            raise RuntimeError("broken on purpose")

        def note_sent(self, events: int, size: int) -> None:
            pass

        def unsynced(self, position: Position, events: Sequence[Event]) -> None:
            raise RuntimeError("broken as well")

    broken, refused, last = Broken(crowd), Broken(crowd), Client(crowd, reads=False)
    refused.lane.takes = False
    assert refused.sync()
    crowd.send([event(1)])
    assert last.notified == [[1]]
    assert broken.position == at(0)
    assert "broken on purpose" in caplog.text
    assert "broken as well" in caplog.text


# -- in the middle of a broadcast


async def test_what_each_has_had_in_the_middle_of_a_broadcast(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_READERS", 2)
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)
    clients = synced(crowd, 4)
    late = Client(crowd)
    crowd.send([event(1)])  # two have it; the others have to wait for the loop's next turn
    assert [client.position.offset for client in clients] == [1, 1, 0, 0]
    for client in (clients[0], clients[3]):
        client.unsync()
    assert (clients[0].own.offset, clients[3].own.offset) == (1, 0)
    assert clients[0].sync()  # after all have it
    assert not clients[0].is_synced
    await eventually(lambda: all(client.is_synced for client in [*clients, late]))
    assert [client.written for client in clients] == [[b"1"], [b"1"], [b"1"], []]
    assert clients[3].notified == [[1]]
    crowd.send([event(2)])
    await eventually(lambda: all(client.position == at(2) for client in [*clients, late]))
    assert [client.written[-1] for client in [*clients, late]] == [b"2"] * 5


async def test_what_leaves_in_the_middle_has_had_all_or_nothing(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_READERS", 2)
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)
    clients = synced(crowd, 4)
    crowd.send([event(1), event(2)])
    for client in clients:
        client.unsync()
    assert [client.own.offset for client in clients] == [2, 2, 0, 0]


async def test_what_is_unsynced_with_the_events_is_not_notified_of_them(crowd, slowly):
    clients = synced(crowd, 3, reads=False)
    crowd.send([event(1), ephemeral()])  # the first has both
    for client in (clients[0], clients[2]):
        client.unsync()
    await sent(crowd)
    assert (clients[0].written, clients[0].notified) == ([b"1t"], [])
    assert (clients[2].written, clients[2].notified) == ([], [[1, 0]])
    crowd.send([event(2)])
    await sent(crowd)
    assert clients[0].notified == [[2]]


async def test_an_ephemeral_event_alone_is_written_once_with_some_readers_unsynced(crowd, slowly):
    clients = synced(crowd, 3, reads=False)
    crowd.send([ephemeral()])  # moves no position: only the index tells which has it
    for client in (clients[0], clients[2]):
        client.unsync()
    await sent(crowd)
    assert [client.written for client in clients] == [[b"t"], [b"t"], []]
    assert [client.notified for client in clients] == [[], [], [[0]]]


async def test_what_is_unsynced_between_two_broadcasts_is_notified_of_the_next(crowd):
    (client,) = synced(crowd, 1, reads=False)
    crowd.send([event(1)])
    client.unsync()
    client.unsync()  # once more says nothing
    crowd.send([event(2)])
    assert client.notified == [[2]]


async def test_what_is_removed_in_the_middle_is_passed_over(crowd, slowly):
    first, second = synced(crowd, 2)
    lagging = [Client(crowd, reads=False) for _ in range(3)]
    crowd.send([event(1)])
    crowd.remove(second)
    await until(lambda: lagging[0].notified == [[1]])
    crowd.remove(lagging[2])
    await sent(crowd)
    assert [client.notified for client in lagging] == [[[1]], [[1]], []]
    assert (first.written, second.written) == ([b"1"], [])
    assert len(crowd) == 3


async def test_what_is_added_in_the_middle_is_notified(crowd, slowly):
    synced(crowd, 2)
    crowd.send([event(1)])
    client = Client(crowd)
    await sent(crowd)
    assert client.notified == [[1]]
    assert client.is_synced


# -- pending


async def test_under_steady_load_a_subscriber_is_synced_all_the_same(crowd, slowly):
    """There always is a broadcast being sent, in whose middle it has caught up."""
    clients = synced(crowd, 2)
    crowd.send([event(1)])
    late = Client(crowd, reads=False)
    late.own = at(1)  # read from the feed, ahead of the broadcast
    assert late.sync()
    assert not late.is_synced
    late.notify = lambda events: None  # type: ignore[method-assign]
    crowd.send([event(2)])
    await until(lambda: late.is_synced)
    assert crowd._run is not None  # the next is being sent already
    await sent(crowd)
    assert (late.written, late.position) == ([b"2"], at(2))
    assert clients[0].written == [b"1", b"2"]


async def test_a_sync_that_the_broadcast_has_gone_past_is_told(crowd, slowly):
    synced(crowd, 2)
    late = Client(crowd, reads=False)
    crowd.send([event(1), event(2)])
    assert late.sync()  # stands at 0, and will be notified, but says no more
    await sent(crowd)
    assert (late.notified, late.unsynced_with) == ([[1, 2]], [(0, [])])
    assert not late.sync()


async def test_what_has_read_ahead_is_synced_when_the_broadcast_has_come_there(crowd):
    ahead = Client(crowd)
    ahead.own = at(2)
    assert ahead.sync()
    crowd.send([event(1)])
    assert (ahead.is_synced, ahead.unsynced_with) == (False, [])
    crowd.send([event(2)])
    assert ahead.is_synced
    crowd.send([event(3)])
    assert ahead.written == [b"3"]


async def test_a_pending_sync_is_undone_by_unsync_and_by_remove(crowd, slowly):
    synced(crowd, 2)
    gone, awake = Client(crowd, reads=False), Client(crowd, reads=False)
    crowd.send([event(1)])
    for client in (gone, awake):
        client.own = at(1)
        assert client.sync()
    assert crowd.unsync(awake) is None
    crowd.remove(gone)
    await sent(crowd)
    assert not awake.is_synced
    assert not gone.is_synced
    crowd.send([event(2)])
    await sent(crowd)
    assert (awake.written, gone.written) == ([], [])
    assert len(crowd) == 3


async def test_a_sync_that_fails_undoes_one_that_is_pending(crowd, slowly):
    """Else it would be told of the position that it had then."""
    synced(crowd, 2)
    client = Client(crowd, reads=False)
    crowd.send([event(1)])
    assert client.sync()
    client.own, client.lane.framing = at(1), None
    assert not client.sync()
    await sent(crowd)
    assert client.unsynced_with == []
    assert client.position == at(1)


async def test_what_lags_is_notified_and_synced_after_the_events(crowd):
    client, never = Client(crowd), Client(crowd, reads=False)
    crowd.send([event(1)])
    assert client.is_synced
    assert not never.is_synced
    crowd.send([event(2)])
    assert (client.notified, client.written, client.position) == ([[1]], [b"2"], at(2))
    assert never.notified == [[1], [2]]


async def test_what_stands_elsewhere_is_not_synced(crowd):
    crowd.send([event(1)])
    behind, reborn, left = (Client(crowd) for _ in range(3))
    reborn.own, left.own = at(1, "epoch002"), at(1)
    crowd.remove(left)
    assert [client.sync() for client in (behind, reborn, left)] == [False] * 3


# -- many


async def test_indexes_that_nothing_has_do_not_pile_up(crowd):
    stays, *others = synced(crowd, 50)
    for offset in range(1, 6):
        for client in others:
            client.unsync()
            assert client.sync()
        crowd.send([event(offset)])
    (group,) = crowd._groups.values()
    assert len(group.subscribers) <= 150
    assert len(crowd) == 50
    assert all(client.written == [b"1", b"2", b"3", b"4", b"5"] for client in [stays, *others])
    for client in [stays, *others]:
        client.unsync()
    assert [client.own for client in [stays, *others]] == [at(5)] * 50


async def test_a_long_broadcast_lets_the_loop_run(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)
    clients = synced(crowd, 1_000)
    crowd.send([event(1)])
    turns = 0
    while any(not client.written for client in clients):
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10


async def test_a_long_broadcast_keeps_nothing_of_its_publisher_s_context(crowd, slowly):
    seen: list[str | None] = []
    request: ContextVar[str | None] = ContextVar("request", default=None)
    client = Client(crowd, reads=False)
    assert client.sync()
    Client(crowd).notify = lambda events: seen.append(request.get())  # type: ignore[method-assign]

    async def publish() -> None:
        request.set("the publisher's")
        crowd.send([event(1)])

    await asyncio.create_task(publish())
    await sent(crowd)
    assert seen == [None]  # one is written to in the publisher's turn, the other one later


async def test_deliveries_count_for_those_that_were_written_to(monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)  # a slice in each turn of the loop
    crowd = Fanout("a")
    crowd.restart(at(0))
    clients = [Client(crowd, reads=False) for _ in range(200)]
    assert all(client.sync() for client in clients)
    clients[70].lane.takes = False
    crowd.remove(clients[3])
    before = DELIVERIES.value("lane")
    crowd.send([event(1), event(2)])
    for index in (10, 150):  # one of them has the events
        crowd.remove(clients[index])
    await eventually(lambda: DELIVERIES.value("lane") != before)
    written = sum(len(client.written) for client in clients)
    assert (written, DELIVERIES.value("lane") - before) == (197, 2 * 197)
    assert [clients[index].sent for index in (3, 10, 150)] == [(0, 0), (2, 2), (0, 0)]
