"""Two independent readers of server-sent events."""

import re
from typing import NamedTuple

from httpx_sse._decoders import SSEDecoder


class Dispatched(NamedTuple):
    type: str
    data: str
    id: str


class Stream:
    """The "event stream interpretation" of WHATWG HTML, section 9.2.6, step by step."""

    def __init__(self, stream: bytes) -> None:
        self.events: list[Dispatched] = []
        self.retry: int | None = None
        self.last_event_id = ""
        text = stream.decode("utf-8").removeprefix("\ufeff")
        data = kind = id_buffer = ""
        *lines, rest = re.split("\r\n|\r|\n", text)
        assert rest == "", "the stream ends in the middle of a line"
        for line in lines:
            if line == "":
                self.last_event_id = id_buffer
                if data:
                    message = Dispatched(kind or "message", data[:-1], id_buffer)
                    self.events.append(message)
                data = kind = ""
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                kind = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                id_buffer = value
            elif field == "retry" and re.fullmatch("[0-9]+", value):
                self.retry = int(value)
        assert data == kind == "", "the stream ends in the middle of an event"


def httpx_events(stream: bytes) -> list[Dispatched]:
    """What httpx-sse reads that has data; once an id was sent, it also gives what has none."""
    decoder = SSEDecoder()
    lines = re.split("\r\n|\r|\n", stream.decode())
    found = [event for line in lines if (event := decoder.decode(line)) is not None]
    return [Dispatched(event.event, event.data, event.id) for event in found if event.data]
