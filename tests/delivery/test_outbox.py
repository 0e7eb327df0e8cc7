"""`realtime.delivery.outbox`: what waits for the bus goes together, and not without a limit."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from realtime.delivery import outbox as outbox_module
from realtime.delivery.bus.base import Message
from realtime.delivery.bus.memory import MemoryBus
from realtime.delivery.outbox import Outbox
from realtime.events.event import Event

from ..support.hubs import instantly, stage


class SlowBus(MemoryBus):
    """Takes a second for each message, and may be down."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("realtime.hub"))
        self.sent: list[str] = []
        self.is_broken = False

    async def send(self, topic: str, message: Message) -> bool:
        await asyncio.sleep(1)
        if self.is_broken:
            return False
        self.sent.append(topic + "".join(event.data for event in message))
        return True


def events(topic: str, first: int, last: int) -> list[Event]:
    return [Event(topic, "message", str(n), "epoch", n) for n in range(first, last + 1)]


def run(play: Callable[[Outbox, SlowBus], Awaitable[None]], **constants: int) -> None:
    async def main() -> None:
        bus = SlowBus()
        bus.start(lambda topic, message: None)
        await play(Outbox(bus), bus)

    with stage(**constants):
        instantly(main())


def test_waiting_events_are_sent_together_and_no_topic_delays_another(monkeypatch):
    monkeypatch.setattr(outbox_module, "MESSAGE_EVENTS", 3)

    async def play(outbox: Outbox, bus: SlowBus) -> None:
        for event in events("a", 1, 6):
            outbox.put("a", [event])
            await asyncio.sleep(0)
        outbox.put("b", events("b", 1, 1))
        await outbox.sent()
        assert bus.sent == ["a1", "a234", "b1", "a56"]
        outbox.put("a", events("a", 7, 7))
        await outbox.sent()
        assert bus.sent[4:] == ["a7"]

    run(play)


def test_a_message_is_bounded_by_bytes_too(monkeypatch):
    monkeypatch.setattr(outbox_module, "MESSAGE_BYTES", 2)

    async def play(outbox: Outbox, bus: SlowBus) -> None:
        outbox.put("a", events("a", 1, 5))
        await outbox.sent()
        assert bus.sent == ["a12", "a34", "a5"]

    run(play)


def test_a_full_outbox_drops_the_rest_and_says_so_once(caplog):
    async def play(outbox: Outbox, bus: SlowBus) -> None:
        for event in events("a", 1, 50):
            outbox.put("a", [event])
        await outbox.sent()
        assert bus.sent == ["a123"]
        outbox.put("a", events("a", 51, 51))
        await outbox.sent()
        assert bus.sent == ["a123", "a51"]

    run(play, ANNOUNCE_QUEUE=3)
    (record,) = caplog.records
    assert "is too slow" in record.getMessage()


@pytest.mark.parametrize("is_running", [True, False])
def test_a_bus_that_is_down_is_waited_for_only_while_it_runs(is_running):
    async def play(outbox: Outbox, bus: SlowBus) -> None:
        for topic in "abcdef":
            outbox.put(topic, events(topic, 1, 1))
        bus.is_broken, bus.is_running = True, is_running
        loop = asyncio.get_running_loop()
        began = loop.time()
        await outbox.sent()
        assert loop.time() - began == (6 if is_running else 1)
        bus.is_broken = False
        outbox.put("a", events("a", 2, 2))
        await outbox.sent()
        assert bus.sent == ["a2"]

    run(play)
