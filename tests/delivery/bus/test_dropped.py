"""`realtime.delivery.bus.dropped`: all are counted, few are logged."""

import logging

from realtime.delivery.bus import dropped
from realtime.delivery.bus.dropped import DroppedMessages


def test_all_are_counted_and_one_a_minute_is_logged(monkeypatch, caplog):
    now = 1_000.0
    monkeypatch.setattr(dropped.time, "monotonic", lambda: now)
    messages = DroppedMessages(logging.getLogger("realtime.hub"), "test bus")
    for now in (1_000.0, 1_001.0, 1_059.9, 1_060.0, 1_061.0):  # noqa: B007 - read by the clock
        messages.add("none of ours")
    assert messages.count == 5
    assert [record.getMessage() for record in caplog.records] == [
        "Dropped 1 messages of the test bus so far; of the last one: none of ours",
        "Dropped 4 messages of the test bus so far; of the last one: none of ours",
    ]
