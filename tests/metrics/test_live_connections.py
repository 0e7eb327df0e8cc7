"""Connections are counted, and each end is a line in the log where that is wanted."""

import json
import logging
import time
from types import SimpleNamespace
from uuid import UUID

import pytest

from realtime import JSONFormatter
from realtime.metrics.live_connections import CLOSED, CONNECTIONS, OPENED, closed, opened


def test_open_ones_are_those_that_have_not_ended(caplog):
    counts = CONNECTIONS.value("sse"), OPENED.value("sse"), CLOSED.value("sse", "gone")
    with caplog.at_level(logging.WARNING, "realtime.connections"):
        began = opened("sse")
        assert CONNECTIONS.value("sse") == counts[0] + 1
        closed("sse", began, "gone", "/events", None, 0, 0)
    after = CONNECTIONS.value("sse"), OPENED.value("sse"), CLOSED.value("sse", "gone")
    assert after == (counts[0], counts[1] + 1, counts[2] + 1)
    assert caplog.records == []


def test_the_line_says_who_where_how_long_and_how_much(caplog):
    unknown = CLOSED.value("websocket", "other")
    with caplog.at_level(logging.INFO, "realtime.connections"):
        opened("websocket")
        began = time.monotonic() - 2.0
        closed("websocket", began, "3456", "/ws\n", SimpleNamespace(pk=7), 5, 600)
    [record] = caplog.records
    fields = ("user", "transport", "path", "events", "bytes", "code")
    assert [vars(record)[name] for name in fields] == [7, "websocket", "/ws\n", 5, 600, 3456]
    assert 2.0 <= vars(record)["seconds"] < 60
    assert "/ws" not in record.getMessage()
    assert CLOSED.value("websocket", "other") == unknown + 1


@pytest.mark.parametrize(
    ("pk", "shown"), [(7, 7), ("a", "a"), (UUID(int=1), str(UUID(int=1))), (None, None)]
)
def test_the_line_has_the_user_whatever_the_key_is(caplog, pk, shown):
    with caplog.at_level(logging.INFO, "realtime.connections"):
        closed("sse", opened("sse"), "gone", "/events", SimpleNamespace(pk=pk), 0, 0)
    [record] = caplog.records
    assert json.loads(JSONFormatter().format(record))["user"] == shown
