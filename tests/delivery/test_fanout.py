"""Readers in step, readers that fall out, and what each has had at any moment."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from realtime.delivery import fanout
from realtime.delivery.fanout import Fanout, Rank
from realtime.events.event import Event

from ..support.clients import eventually

EPOCH = "epoch001"


def event(offset: int, epoch: str = EPOCH) -> Event:
    return Event("a", "message", str(offset), epoch, offset)


def encode(event: Event) -> bytes:
    return event.data.encode()


def encode_otherwise(event: Event) -> bytes:
    return f"<{event.data}>".encode()


class Client:
    """A reader that checks that it is sent what follows its position, and falls in when it may."""

    group_type: Any = None

    def __init__(self, crowd: Fanout, encoder: Any = encode) -> None:
        self.crowd = crowd
        self.rank: Rank | None = None
        self.slot = 0
        self.epoch, self.offset = EPOCH, 0
        self.encoder: Any = encoder
        self.takes = True
        self.written: list[bytes] = []
        self.asked: list[int] = []
        self.on_write: Callable[[], None] | None = None
        crowd.readers[self] = None

    @property
    def position(self) -> tuple[str, int]:
        return self.crowd.position_of(self)

    @property
    def writer(self) -> tuple[Any, Any] | None:
        return None if self.encoder is None else (self, self.encoder)

    def write(self, payload: bytes) -> bool:
        if self.on_write is not None:
            self.on_write()
        if self.takes:
            self.written.append(payload)
        return self.takes

    def deliver(self, event: Event) -> None:
        self.asked.append(event.offset)
        if self.takes and event.offset == self.offset + 1:
            self.offset = event.offset
            self.crowd.fall_in(self)

    def wake(self) -> None:
        raise NotImplementedError


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fanout]:
    # A busy machine may stop this process for longer than a slice: then the rest of a fan-out would
    # come later, where a test has not asked for that.
    monkeypatch.setattr(fanout, "SLICE_SECONDS", 60.0)
    made = Fanout("a")
    made.begin(EPOCH, 0)
    yield made
    made.close()


def in_step(crowd: Fanout, count: int, **options: Any) -> list[Client]:
    clients = [Client(crowd, **options) for _ in range(count)]
    for client in clients:
        crowd.fall_in(client)
    assert all(client.rank for client in clients)
    return clients


async def test_in_step_the_same_bytes_go_to_all_and_nobody_is_asked(crowd):
    clients = in_step(crowd, 3)
    crowd.send([event(1), event(2)])
    assert [client.written for client in clients] == [[b"12"]] * 3
    assert clients[0].written[0] is clients[2].written[0]
    assert [client.asked for client in clients] == [[]] * 3
    assert [client.position for client in clients] == [(EPOCH, 2)] * 3
    assert (len(crowd), list(crowd)) == (3, clients)


async def test_what_has_come_meanwhile_goes_out_together(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_READERS", 1)
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)
    clients = in_step(crowd, 3)
    never = Client(crowd, encoder=None)
    for offset in range(1, 5):
        crowd.send([event(offset)])
    await eventually(lambda: all(client.position[1] == 4 for client in clients))
    assert [client.written for client in clients] == [[b"1", b"234"]] * 3
    assert never.asked == [1, 2, 3, 4]


async def test_not_too_many_together(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "TOGETHER_EVENTS", 3)
    (client,) = in_step(crowd, 1)
    crowd.send([event(offset) for offset in range(1, 8)])
    assert client.written == [b"123", b"456", b"7"]


async def test_not_too_much_together(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "TOGETHER_BYTES", 4)
    (client,) = in_step(crowd, 1)
    large = Event("a", "message", "large", EPOCH, 3)  # by itself, it is no larger than it is
    crowd.send([event(1), event(2), large, event(4)])
    assert client.written == [b"12", b"large", b"4"]


async def test_what_follows_a_gap_is_not_sent_with_what_is_before_it(crowd):
    clients = in_step(crowd, 2)
    crowd.send([event(1), event(2), event(4), event(5)])
    assert [client.written for client in clients] == [[b"12"]] * 2
    assert [client.asked for client in clients] == [[4, 5]] * 2
    assert [client.offset for client in clients] == [2, 2]


async def test_one_that_takes_nothing_is_asked_for_each(crowd):
    clients = in_step(crowd, 3)
    clients[1].takes = False
    crowd.send([event(1), event(2)])
    assert [client.written for client in clients] == [[b"12"], [], [b"12"]]
    assert (clients[1].rank, clients[1].position, clients[1].asked) == (None, (EPOCH, 0), [1, 2])


async def test_who_leaves_in_the_middle_has_had_all_or_nothing(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_READERS", 2)
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)
    clients = in_step(crowd, 4)
    crowd.send([event(1), event(2)])
    for client in clients:
        crowd.fall_out(client)
    assert [client.offset for client in clients] == [2, 2, 0, 0]


async def test_each_rank_in_its_own_form(crowd):
    plain, other = in_step(crowd, 1), in_step(crowd, 1, encoder=encode_otherwise)
    crowd.send([event(1)])
    assert (plain[0].written, other[0].written) == ([b"1"], [b"<1>"])


async def test_who_is_not_in_step_is_asked_and_falls_in_behind_the_event(crowd):
    client, never = Client(crowd), Client(crowd, encoder=None)
    crowd.send([event(1)])
    assert client.rank is not None
    assert never.rank is None
    crowd.send([event(2)])
    assert (client.asked, client.written, client.position) == ([1], [b"2"], (EPOCH, 2))
    assert never.asked == [1, 2]


async def test_who_stands_elsewhere_does_not_fall_in(crowd):
    behind, ahead, reborn, left = (Client(crowd) for _ in range(4))
    behind.offset, ahead.offset, reborn.epoch = -1, 1, "epoch002"
    del crowd.readers[left]
    for client in (behind, ahead, reborn, left):
        crowd.fall_in(client)
        assert client.rank is None


async def test_one_that_takes_nothing_falls_out_where_it_stood(crowd):
    clients = in_step(crowd, 5)
    clients[2].takes = False
    crowd.send([event(1)])
    assert [client.written for client in clients] == [[b"1"], [b"1"], [], [b"1"], [b"1"]]
    assert (clients[2].rank, clients[2].position, clients[2].asked) == (None, (EPOCH, 0), [1])
    crowd.send([event(2)])
    assert clients[2].asked == [1, 2]
    assert clients[4].written == [b"1", b"2"]


async def test_one_that_fails_hurts_no_other(crowd, caplog):
    clients = in_step(crowd, 3)

    def fail() -> None:
        raise RuntimeError("broken on purpose")

    clients[1].on_write = fail
    crowd.send([event(1)])
    assert [client.written for client in clients] == [[b"1"], [], [b"1"]]
    assert "broken on purpose" in caplog.text


async def test_what_each_has_had_in_the_middle_of_an_event(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_READERS", 2)
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)
    clients = in_step(crowd, 4)
    late = Client(crowd)
    crowd.send([event(1)])  # two have it; the others have to wait for the loop's next turn
    assert [client.position[1] for client in clients] == [1, 1, 0, 0]
    for client in (clients[0], clients[3]):
        crowd.fall_out(client)
    assert (clients[0].offset, clients[3].offset) == (1, 0)
    crowd.fall_in(clients[0])  # not before all have it
    assert clients[0].rank is None
    await eventually(lambda: clients[3].offset == 1 and late.offset == 1)
    await eventually(lambda: all(client.rank for client in [*clients, late]))
    assert [client.written for client in clients] == [[b"1"], [b"1"], [b"1"], []]
    assert clients[3].asked == [1]
    crowd.send([event(2)])
    await eventually(lambda: all(client.position == (EPOCH, 2) for client in [*clients, late]))
    assert [client.written[-1] for client in [*clients, late]] == [b"2"] * 5


async def test_who_falls_out_behind_an_event_is_not_asked_for_it(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_READERS", 1)
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)
    clients = in_step(crowd, 3)
    crowd.send([event(1), Event("a", "typing", "t")])  # the first has both
    for client in (clients[0], clients[2]):
        crowd.fall_out(client)
    await eventually(lambda: clients[1].position[1] == 1)
    await eventually(lambda: crowd._run is None)
    assert (clients[0].written, clients[0].asked) == ([b"1t"], [])
    assert (clients[2].written, clients[2].asked) == ([], [1, 0])
    crowd.send([event(2)])
    await eventually(lambda: crowd._run is None)
    assert clients[0].asked == [2]


@pytest.mark.parametrize("missing", [event(3), event(1, "epoch002")], ids=["a gap", "reborn"])
async def test_where_something_is_missing_each_is_asked(crowd, missing):
    clients = in_step(crowd, 2)
    crowd.send([event(1), missing])
    assert [client.written for client in clients] == [[b"1"], [b"1"]]
    assert [client.asked for client in clients] == [[missing.offset]] * 2
    assert [client.rank for client in clients] == [None, None]
    assert [(client.epoch, client.offset) for client in clients] == [(EPOCH, 1)] * 2


async def test_ephemeral_events_move_nobody(crowd):
    clients = in_step(crowd, 2)
    crowd.send([Event("a", "message", "0"), event(1)])
    assert [client.written for client in clients] == [[b"01"]] * 2
    assert [client.position for client in clients] == [(EPOCH, 1)] * 2


async def test_a_topic_that_begins_anew_in_the_middle_of_an_event(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_READERS", 1)
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)
    clients = in_step(crowd, 3)
    crowd.send([event(1)])
    crowd.begin("epoch002", 7)
    assert [(client.epoch, client.offset) for client in clients] == [
        (EPOCH, 1),
        (EPOCH, 0),
        (EPOCH, 0),
    ]
    await eventually(lambda: clients[2].asked == [1])
    for client in clients:
        crowd.fall_out(client)
        client.epoch, client.offset = "epoch002", 7
    crowd.send([event(8, "epoch002"), event(9, "epoch002")])
    await eventually(lambda: all(client.position[1] == 9 for client in clients))
    assert [client.written for client in clients] == [[b"1", b"9"], [b"9"], [b"9"]]


async def test_empty_slots_do_not_pile_up(crowd):
    stays, *others = in_step(crowd, 50)
    for offset in range(1, 6):
        for client in others:
            crowd.fall_out(client)
            crowd.fall_in(client)
        crowd.send([event(offset)])
    assert stays.rank is not None
    assert len(stays.rank.readers) <= 150
    assert len(crowd) == 50
    assert all(client.written == [b"1", b"2", b"3", b"4", b"5"] for client in [stays, *others])


async def test_a_long_fan_out_lets_the_loop_run(crowd, monkeypatch):
    monkeypatch.setattr(fanout, "SLICE_SECONDS", -1.0)
    clients = in_step(crowd, 1_000)
    crowd.send([event(1)])
    turns = 0
    while any(not client.written for client in clients):
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
