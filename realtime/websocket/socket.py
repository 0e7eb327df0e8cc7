"""A WebSocket as its consumer writes to it: frames, the refusal of its handshake, the close."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, ClassVar, Final

from ..delivery.topic_subscriber import Reset
from ..events.event import Event
from ..exceptions import RealtimeError
from ..server.extensions import has_denial_response
from ..streaming.json_columns import encode_value
from ..utils.asgi import Scope, Send, send_json
from . import messages as frames
from .hooks import check_hooks

MAX_REASON_BYTES: Final = 123  # RFC 6455, section 5.5: a control frame has 125, two for the code


class ConsumerState(IntEnum):
    """What a socket is at; it only ever goes forward."""

    CONNECTING = 0  # not accepted yet
    AUTHENTICATING = 1  # accepted; waits for the first message, or is about to be open
    OPEN = 2  # its user is known: events may go out
    CLOSING = 3  # closed from here: what still comes is not handled
    CLOSED = 4  # the peer has left and its handler has had its time


class Socket:
    """What a consumer sends; nothing is sent before the accept, or after the close."""

    #: The subprotocols it speaks, the preferred one first. The first that the client offers is
    #: chosen; a browser that has offered some fails where none is.
    subprotocols: ClassVar[Sequence[str]] = ()

    #: Whether its events have their `meta`.
    has_meta: bool = False

    scope: Scope
    base_send: Send
    _state = ConsumerState.CONNECTING  # as a class attribute: a socket keeps only what differs

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_hooks(cls)

    @property
    def _is_open(self) -> bool:
        """Return whether frames may be sent."""
        return self._state in (ConsumerState.AUTHENTICATING, ConsumerState.OPEN)

    async def send_json(self, value: Any) -> None:
        """Send a JSON value as a text frame, by Django's JSON encoder."""
        if self._is_open:
            await self.base_send({"type": "websocket.send", "text": encode_value(value)})

    async def send_text(self, text: str) -> None:
        """Send a text frame; waits while the peer does not read."""
        if self._is_open:
            await self.base_send({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame; waits while the peer does not read."""
        if self._is_open:
            await self.base_send({"type": "websocket.send", "bytes": data})

    async def send_error(self, code: str, detail: str, ref: Any = None) -> None:
        """Send an error frame: `code` for programs, `detail` with what to do."""
        await self.send_text(frames.error_text(code, detail, ref))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket; what was received and not handled yet is not handled any more.

        A reason over 123 bytes is cut.
        """
        was_open = self._is_open
        self._state = max(self._state, ConsumerState.CLOSING)
        if was_open:
            reason = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
            await self.base_send({"type": "websocket.close", "code": code, "reason": reason})

    async def _close_for(self, error: RealtimeError) -> None:
        await self.close(error.close_code, str(error))

    async def event(self, event: Event) -> None:
        """Write one event of a subscribed topic to the socket."""
        text = frames.event_text_with_meta if self.has_meta else frames.event_text
        await self.send_text(text(event))

    async def reset(self, reset: Reset) -> None:
        """Tell the client that history is gone."""
        await self.send_text(frames.reset_text(reset.topic, reset.position))

    async def _accept(self) -> None:
        offered = self.scope.get("subprotocols", ())
        chosen = next((name for name in self.subprotocols if name in offered), None)
        await self.base_send({"type": "websocket.accept", "subprotocol": chosen})

    async def _refuse(self, error: RealtimeError) -> None:
        """Answer with HTTP where the server can, else with the bare 403 of a close."""
        detail = str(error)
        if not has_denial_response(self.scope):
            code = frames.CLOSE_NOT_IDENTIFIED if error.status == 401 else frames.CLOSE_NOT_ALLOWED
            await self.base_send({"type": "websocket.close", "code": code, "reason": detail[:100]})
            return
        status = error.status if error.status in (401, 403, 429, 503) else 400
        kind = "websocket.http.response"
        await send_json(self.base_send, status, {"detail": detail}, error.headers, kind)
