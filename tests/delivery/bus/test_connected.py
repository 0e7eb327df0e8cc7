"""`realtime.delivery.bus.connected`: a server that fails, hangs and forgets, without one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from django.test import override_settings

from realtime.delivery.bus import connected
from realtime.delivery.bus.base import MISSED, Message
from realtime.delivery.bus.connected import MEMBERSHIP_BATCH, ConnectedBus

from ...support.buses import LOGGER, cursor
from ...support.hubs import instantly


class FakeBus(ConnectedBus):
    """Notes what it asks of its server, which fails with `error`."""

    name = "fake bus"
    echoes_to_sender = False

    def __init__(self) -> None:
        super().__init__(LOGGER)
        self.calls: list[Any] = []
        self.connected: list[float] = []  # when
        self.known: set[str] = set()
        self.error: Exception | None = None
        self.may_change = asyncio.Event()
        self.may_change.set()
        self.round_trip = 0.0
        self.heard: list[tuple[str, Message]] = []

    async def _connect(self) -> None:
        self.connected.append(asyncio.get_running_loop().time())
        self._raise()

    async def _disconnect(self) -> None:
        self.known.clear()

    async def _change_memberships(self, left: Sequence[str], joined: Sequence[str]) -> None:
        await self.may_change.wait()
        self._raise()
        self.calls.append((sorted(left), sorted(joined)))
        self.known.difference_update(left)
        self.known.update(joined)

    async def _confirm(self) -> None:
        await asyncio.sleep(self.round_trip)
        self._raise()

    async def _send(self, topic: str, message: Message) -> None:
        self._raise()

    def fail(self) -> None:
        self.error = ConnectionError("gone")
        self._is_due.set()

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


def run(play: Callable[[FakeBus], Awaitable[None]], *topics: str) -> None:
    """Play with a bus that has joined topics; it stops at the end and leaves no task."""

    async def main() -> None:
        bus = FakeBus()
        bus.start(lambda topic, message: bus.heard.append((topic, message)))
        bus.join(topics)
        await bus.settled()
        assert sorted(bus.heard) == sorted((topic, MISSED) for topic in topics)
        bus.heard.clear()
        bus.calls.clear()
        await play(bus)
        await bus.stop()

    with override_settings(REALTIME={}):
        instantly(main())


def test_after_a_failure_all_topics_are_joined_anew_and_said_to_be_missed(caplog):
    async def play(bus: FakeBus) -> None:
        bus.fail()
        await asyncio.sleep(0.1)
        assert bus.is_down
        bus.error = None
        await asyncio.sleep(1)
        assert not bus.is_down
        assert bus.known == {"a", "b"}
        assert sorted(bus.heard) == [("a", MISSED), ("b", MISSED)]

    run(play, "a", "b")
    assert [record.getMessage() for record in caplog.records] == [
        "The fake bus has no connection (ConnectionError: gone); other processes find events in "
        "the log meanwhile.",
        "The fake bus works again.",
    ]


def test_the_pauses_between_attempts_grow_and_begin_anew():
    async def play(bus: FakeBus) -> None:
        bus.connected.clear()
        bus.fail()
        await asyncio.sleep(30)
        pauses = [b - a for a, b in zip(bus.connected, bus.connected[1:], strict=False)]
        assert [round(pause, 2) for pause in pauses[:6]] == [0.5, 1, 2, 4, 5, 5]
        bus.error = None
        await asyncio.sleep(10)
        assert not bus.is_down
        bus.connected.clear()
        failed = asyncio.get_running_loop().time()
        bus.fail()
        await asyncio.sleep(0.3)
        assert bus.connected[0] - failed < 0.3

    run(play, "a")


def test_what_is_silent_is_found_without_anything_to_do():
    async def play(bus: FakeBus) -> None:
        bus.error = TimeoutError("silent")  # and nothing wakes the bus
        await asyncio.sleep(3)
        assert bus.is_down

    run(play, "a")


def test_an_error_without_a_text_is_said_by_its_name(caplog):
    FakeBus().note_failure("is silent", TimeoutError())
    assert caplog.messages == [
        "The fake bus is silent (TimeoutError); other processes find events in the log meanwhile."
    ]


def test_a_connection_is_closed_though_that_is_cancelled(monkeypatch):
    """By who stops the bus while it closes one, or by the end of a loop."""
    closed: list[bool] = []

    async def disconnect() -> None:
        await asyncio.sleep(1)
        closed.append(True)

    async def play(bus: FakeBus) -> None:
        monkeypatch.setattr(bus, "_disconnect", disconnect)
        bus.fail()
        await asyncio.sleep(0.5)
        stopping = asyncio.create_task(bus.stop())
        await asyncio.sleep(0.5)
        stopping.cancel()
        await asyncio.wait([stopping])
        assert not closed
        await bus.stop()
        assert closed

    run(play, "a")


def test_a_topic_joined_anew_is_left_before():
    async def play(bus: FakeBus) -> None:
        bus.join(["a"])  # it is joined
        await bus.settled()
        assert bus.heard == []
        bus.leave(["a"])
        bus.join(["a"])
        await bus.settled()
        assert bus.calls[-1] == (["a"], ["a"])
        assert bus.heard == [("a", MISSED)]

    run(play, "a")


def test_the_last_word_on_a_topic_counts():
    async def play(bus: FakeBus) -> None:
        bus.may_change.clear()
        bus.join(["b"])
        await asyncio.sleep(0.01)  # it is being joined
        bus.leave(["b"])
        bus.join(["c"])
        bus.leave(["c"])
        bus.leave(["a"])
        bus.may_change.set()
        await bus.settled()
        assert bus.known == set()
        assert bus.heard == []

    run(play, "a")


def test_while_it_is_down_nobody_waits_for_it():
    async def play(bus: FakeBus) -> None:
        bus.fail()
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        bus.join(["b"])
        await bus.settled()
        assert not await bus.send("a", [cursor("a")])
        assert asyncio.get_running_loop().time() == began
        bus.error = None
        await asyncio.sleep(10)
        assert bus.known == {"a", "b"}

    run(play, "a")


def test_many_topics_are_joined_in_parts():
    async def play(bus: FakeBus) -> None:
        topics = [f"t{number}" for number in range(2 * MEMBERSHIP_BATCH + 1)]
        bus.join(topics)
        await bus.settled()
        assert [len(joined) for _, joined in bus.calls] == [MEMBERSHIP_BATCH, MEMBERSHIP_BATCH, 1]
        assert bus.known == {"a", *topics}

    run(play, "a")


def test_who_joins_does_not_wait_for_those_that_join_later():
    async def play(bus: FakeBus) -> None:
        async def others() -> None:
            for number in range(1_000):  # always one while the server is asked about those before
                bus.join([f"t{number}"])
                await asyncio.sleep(0.01)

        bus.round_trip = 0.05
        joining = asyncio.create_task(others())
        await asyncio.sleep(0.12)
        bus.join(["b"])
        async with asyncio.timeout(0.2):
            await bus.settled()
        assert "b" in bus.known
        assert not joining.done()
        await joining
        await bus.settled()
        assert len(bus.known) == 1_002
        assert sorted(bus.heard) == sorted((topic, MISSED) for topic in bus.known - {"a"})

    run(play, "a")


def test_a_topic_that_the_server_has_dropped_is_joined_anew():
    async def play(bus: FakeBus) -> None:
        bus._rejoin("a")
        bus._rejoin("left long ago")
        await asyncio.sleep(0.1)
        assert bus.calls == [([], ["a"])]
        assert bus.heard == [("a", MISSED)]

    run(play, "a")


def test_what_has_come_for_another_topic_is_not_handed_on(monkeypatch):
    async def play(bus: FakeBus) -> None:
        for found in [("a", [cursor("a")]), ("left", [cursor("left")]), None]:
            monkeypatch.setattr(connected, "decode", lambda data, found=found: found)
            bus._deliver(b"")
        assert bus.heard == [("a", [cursor("a")])]
        assert bus.dropped.count == 0

    run(play, "a")
