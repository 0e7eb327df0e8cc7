"""What a consumer sends, and how a handshake is refused."""

import datetime
import json
from typing import Any

import pytest

from realtime.events.event import Event
from realtime.exceptions import (
    InvalidData,
    NotAllowed,
    NotIdentified,
    RealtimeError,
    TooManyRequests,
)
from realtime.websocket.socket import ConsumerState, Socket

from ..support.lanes import FakeLane


class Sent(Socket):
    """A socket in a state of its life, and what it has sent."""

    def __init__(self, state: ConsumerState, **extensions: Any) -> None:
        self.messages: list[dict[str, Any]] = []
        self.scope = {"type": "websocket", "extensions": extensions}
        self._state = state

    async def base_send(self, message: Any) -> None:
        self.messages.append(message)

    async def send_all(self) -> None:
        await self.send_text("a")
        await self.send_bytes(b"b")
        await self.send_json(["é"])
        await self.send_error("bad", "why", 7)


@pytest.mark.parametrize("state", [ConsumerState.AUTHENTICATING, ConsumerState.OPEN])
async def test_frames_of_an_open_socket(state):
    socket = Sent(state)
    await socket.send_all()
    text, data, value, error = socket.messages
    assert text == {"type": "websocket.send", "text": "a"}
    assert data == {"type": "websocket.send", "bytes": b"b"}
    assert json.loads(value["text"]) == ["é"]
    assert json.loads(error["text"]) == {
        "type": "error",
        "code": "bad",
        "detail": "why",
        "ref": 7,
    }


async def test_a_value_is_written_by_djangos_json_encoder():
    socket = Sent(ConsumerState.OPEN)
    await socket.send_json({"due": datetime.date(2026, 1, 2)})
    assert socket.messages[0]["text"] == '{"due":"2026-01-02"}'


async def test_what_is_sent_before_the_accept_is_an_error_that_says_where_to_greet():
    socket = Sent(ConsumerState.CONNECTING)
    for sending in (
        socket.send_text("a"),
        socket.send_bytes(b"b"),
        socket.send_json(["é"]),
        socket.send_error("bad", "why"),
    ):
        with pytest.raises(RuntimeError, match="not open yet: greet in `connected`"):
            await sending
    await socket.close(4000)
    assert socket.messages == []
    assert socket._state == ConsumerState.CLOSING


@pytest.mark.parametrize("state", [ConsumerState.CLOSING, ConsumerState.CLOSED])
async def test_nothing_is_sent_after_the_close(state):
    socket = Sent(state)
    await socket.send_all()
    await socket.close(4000)
    assert socket.messages == []
    assert socket._state == state


async def test_a_close_is_sent_once_and_its_reason_is_cut_between_characters():
    socket = Sent(ConsumerState.OPEN)
    await socket.close(4000, "é" * 100)
    await socket.close(4001)
    assert socket.messages == [{"type": "websocket.close", "code": 4000, "reason": "é" * 61}]


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["a", "b"], "b"), (["c", "a"], "a"), (["x"], None), ([], None)]
)
async def test_its_preferred_subprotocol_of_those_offered_is_chosen(offered, chosen):
    class Speaking(Sent):
        subprotocols = ("b", "a")

    socket = Speaking(ConsumerState.CONNECTING)
    socket.scope["subprotocols"] = offered
    await socket._accept()
    assert socket.messages == [{"type": "websocket.accept", "subprotocol": chosen}]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotIdentified("Who?"), 401, 4401),
        (NotAllowed("Not you."), 403, 4403),
        (InvalidData("Not so."), 400, 4403),
        (TooManyRequests("Not now.", 7), 429, 4403),
    ],
)
async def test_a_refusal_is_an_answer_of_http_or_else_a_close(
    error: RealtimeError, status: int, code: int
):
    socket = Sent(ConsumerState.CONNECTING, **{"websocket.http.response": {}})
    await socket._refuse(error)
    start, body = socket.messages
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    headers = dict(start["headers"])
    assert int(headers[b"content-length"]) == len(body["body"])
    assert json.loads(body["body"]) == {"code": error.code, "detail": str(error)}
    assert (b"www-authenticate" in headers) == (status == 401)
    assert headers.get(b"retry-after") == (b"7" if status == 429 else None)

    socket = Sent(ConsumerState.CONNECTING)
    await socket._refuse(error)
    assert socket.messages == [{"type": "websocket.close", "code": code, "reason": str(error)}]


class SentLoudly(Sent):
    async def send_text(self, text: str) -> None:
        await super().send_text(text.upper())


class WithEventsOfItsOwn(Sent):
    async def event(self, event: Event) -> None:
        await self.send_text(event.data)


def test_text_goes_by_the_fast_lane_where_that_takes_it():
    lane = FakeLane()
    socket = Sent(ConsumerState.OPEN, **{"realtime.lane": {"lane": lane}})
    assert socket.try_send_text("é")
    lane.takes = False
    assert not socket.try_send_text("b")
    assert lane.written == ["é".encode()]
    assert socket._sent == 1


@pytest.mark.parametrize(
    ("kind", "state", "framing"),
    [
        (Sent, ConsumerState.CONNECTING, bytes),
        (Sent, ConsumerState.CLOSING, bytes),
        (Sent, ConsumerState.CLOSED, bytes),
        (Sent, ConsumerState.OPEN, None),
        (SentLoudly, ConsumerState.OPEN, bytes),
        (WithEventsOfItsOwn, ConsumerState.OPEN, bytes),
    ],
)
def test_no_text_goes_by_a_closed_lane_or_around_a_method_that_is_overridden(kind, state, framing):
    lane = FakeLane()
    lane.framing = framing
    assert not kind(state, **{"realtime.lane": {"lane": lane}}).try_send_text("a")
    assert lane.written == []


def test_no_text_goes_by_a_lane_on_another_server():
    assert not Sent(ConsumerState.OPEN).try_send_text("a")
