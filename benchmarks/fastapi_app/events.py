"""An event, and what it is on each wire; each form is made once for all who get it."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

EVENT_TYPE = r"^[^\r\n\x00]{1,100}$"  # what a line of server-sent events can carry


def is_event_type(name: str) -> bool:
    """Whether a type may be called so."""
    return re.fullmatch(EVENT_TYPE, name) is not None


@dataclass
class Event:
    """What was published to a topic."""

    id: int
    topic: str
    type: str
    data: Any

    @classmethod
    def parse(cls, event_id: int, body: bytes) -> "Event":
        """An event as Redis has it."""
        return cls(event_id, *orjson.loads(body))

    @property
    def body(self) -> bytes:
        """The event as Redis gets it, without the id."""
        return orjson.dumps([self.topic, self.type, self.data])

    @cached_property
    def text(self) -> str:
        """The data alone."""
        return orjson.dumps(self.data).decode()

    @cached_property
    def frame(self) -> str:
        """The text of a WebSocket frame."""
        frame = {
            "type": "event",
            "topic": self.topic,
            "id": str(self.id),
            "event": self.type,
            "data": self.data,
        }
        return orjson.dumps(frame).decode()

    @cached_property
    def chunk(self) -> bytes:
        """A server-sent event."""
        return sse(self.data, self.type, self.id)

    @cached_property
    def chunk_among(self) -> bytes:
        """The same on a stream of several topics."""
        return sse({"topic": self.topic, "data": self.data}, self.type, self.id)

    @property
    def line(self) -> bytes:
        """A line of NDJSON."""
        line = {"id": str(self.id), "event": self.type, "data": self.data}
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def sse(data: Any, event: str = "message", event_id: int | None = None) -> bytes:
    """A server-sent event."""
    lines = b"" if event_id is None else b"id: %d\n" % event_id
    if event != "message":
        lines += f"event: {event}\n".encode()
    return lines + b"data: " + orjson.dumps(data) + b"\n\n"
