"""One object a line, without secrets, whatever is in a record."""

import json
import logging
import sys
from typing import Any

import pytest

from realtime import JSONFormatter


def line(message: str, *args: Any, exc_info: Any = None, **extra: Any) -> str:
    logger = logging.Logger("realtime.test")
    record = logger.makeRecord("realtime.test", 30, "f", 1, message, args, exc_info, extra=extra)
    return JSONFormatter().format(record)


def test_a_record_is_an_object():
    found = json.loads(line("%s left", "alice", user=7, seconds=0.25, path="/ws", code=None))
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "WARNING",
        "logger": "realtime.test",
        "message": "alice left",
        "user": 7,
        "seconds": 0.25,
        "path": "/ws",
        "code": None,
    }


@pytest.mark.parametrize("text", ["a\nb", 'x", "level": "INFO', "\u2028\x85\0\x1b[2J", "\ud800"])
def test_nothing_begins_a_line_or_a_field(text):
    written = line("%s", text, path=text)
    assert written.isascii()
    assert written.isprintable()
    found = json.loads(written)
    assert (found["message"], found["path"], found["level"]) == (text, text, "WARNING")


def test_what_is_secret_is_left_out():
    try:
        raise ValueError("GET /ws?token=rt_hidden")
    except ValueError:
        error = sys.exc_info()
    written = line("GET /ws?ticket=t_hidden&a=1", exc_info=error, path="/x?token=rt_hidden")
    assert "hidden" not in written
    assert "ValueError" in json.loads(written)["exception"]


def test_what_is_no_plain_value_is_not_written():
    class Request:
        def __repr__(self) -> str:
            return "<Request /ws?token=rt_hidden>"

    found = json.loads(
        line("m", request=Request(), many=[1], odd=float("nan"), big=10**5_000, level="INFO")
    )
    assert set(found) == {"time", "level", "logger", "message"}
    assert found["level"] == "WARNING"
