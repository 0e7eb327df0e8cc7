"""A WebSocket as its consumer writes to it: frames, the refusal of its handshake, the close."""

import asyncio
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, ClassVar, Final

from ..access.identity import ANONYMOUS, Identity
from ..access.inspection import ConnectionInfo, address_of
from ..access.permissions import Action, require
from ..delivery.subscription import Subscription
from ..delivery.topic_subscriber import Reset
from ..events.event import Event
from ..exceptions import RateLimited, RealtimeError
from ..limits.client import NOBODY, Client
from ..limits.connection_limits import NO_LIMITS, ConnectionLimits
from ..limits.refused import hold_back
from ..metrics import live_connections
from ..metrics.server_series import HANDSHAKES
from ..server.extensions import FastLane, fastlane, has_denial_response
from ..streaming.json_columns import encode_value
from ..utils.asgi import Message, Scope, Send, send_json
from . import messages as frames
from .hooks import check_hooks
from .refusals import Refusals

MAX_REASON_BYTES: Final = 123  # RFC 6455, section 5.5: a control frame has 125, two for the code


class ConsumerState(IntEnum):
    """What a socket is at; it only ever goes forward."""

    CONNECTING = 0  # not accepted yet
    AUTHENTICATING = 1  # accepted; waits for the first message, or is about to be open
    OPEN = 2  # its user is known: events may go out
    CLOSING = 3  # closed from here: what still comes is not handled
    CLOSED = 4  # the peer has left and its handler has had its time


class Socket:
    """What a consumer sends: an error before the accept, and nothing after the close."""

    #: The subprotocols it speaks, the preferred one first. The first that the client offers is
    #: chosen; a browser that has offered some fails where none is.
    subprotocols: ClassVar[Sequence[str]] = ()

    #: Whether its events have their `meta`.
    has_meta: bool = False

    scope: Scope
    base_send: Send
    # As class attributes: a socket keeps only what differs.
    identity: Identity = ANONYMOUS
    _state = ConsumerState.CONNECTING
    _handling: asyncio.Task[Any] | None = None  # of the message that is handled
    _client = NOBODY  # whom it counts for
    _limits = NO_LIMITS
    _content_of = staticmethod(frames.content_of)  # what is read of a message
    _refusals: Refusals | None = None
    _rechecks = 0  # of its user, since the message came that is handled
    _sent = 0  # characters and bytes that were sent, without the events of the fast lane
    _opened: float | None = None  # when, by the monotonic clock

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_hooks(cls)

    @property
    def topics(self) -> list[str]:
        """Return what this socket is subscribed to."""
        return []

    def describe(self) -> ConnectionInfo:
        """Return what an operator may want to know of this socket."""
        return ConnectionInfo("WebSocket", self.topics, address_of(self.scope))

    @property
    def is_handling(self) -> bool:
        """Return whether a message is handled: what comes meanwhile waits."""
        return self._handling is not None

    @property
    def is_connecting(self) -> bool:
        """Return whether it is not accepted yet: nothing can be sent."""
        return self._state is ConsumerState.CONNECTING

    @property
    def _is_open(self) -> bool:
        """Return whether frames may be sent."""
        return self._state in (ConsumerState.AUTHENTICATING, ConsumerState.OPEN)

    async def send_json(self, value: Any) -> None:
        """Send a JSON value as a text frame, by Django's JSON encoder."""
        await self.send_text(encode_value(value))

    async def send_text(self, text: str) -> None:
        """Send a text frame; waits while the peer does not read."""
        await self._send_frame("text", text)

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame; waits while the peer does not read."""
        await self._send_frame("bytes", data)

    async def _send_frame(self, kind: str, frame: str | bytes) -> None:
        if self._is_open:
            self._sent += len(frame)
            await self.base_send({"type": "websocket.send", kind: frame})
        elif self.is_connecting:
            raise RuntimeError("The socket is not open yet: greet in `connected`.")

    @property
    def text_lane(self) -> FastLane | None:
        """Return the fast lane; None for a consumer that overrides `event` or `send_text`."""
        own = type(self)
        is_standard = own.event is Socket.event and own.send_text is Socket.send_text
        return fastlane(self.scope) if is_standard else None

    def try_send_text(self, text: str) -> bool:
        """Write a text frame to `text_lane`; return False, having sent nothing, if it takes none.

        For frames whose order to others does not matter: one that waits in an ASGI middleware is
        overtaken.
        """
        lane = self.text_lane
        framing = None if lane is None else lane.framing
        if lane is None or framing is None or not self._is_open:
            return False
        if is_taken := lane.try_write(framing(text.encode())):
            self._sent += len(text)
        return is_taken

    async def send_error(self, code: str, detail: str, ref: Any = None, **more: object) -> None:
        """Send an error frame: `code` for programs, `detail` with what to do."""
        await self.send_text(frames.error_text(code, detail, ref, **more))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket; what was received and not handled yet is not handled any more.

        A reason over 123 bytes is cut.
        """
        was_open = self._is_open
        self._state = max(self._state, ConsumerState.CLOSING)
        if was_open:
            reason = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
            await self.base_send({"type": "websocket.close", "code": code, "reason": reason})

    async def fail(self) -> None:
        """Close the socket: it can't be told whether it may stay."""
        await self.close(frames.CLOSE_ERROR, "The server could not check your rights; reconnect.")

    async def lost_permission(self, topic: str) -> None:
        """Close the socket, or tell the client: a topic was dropped, its user may not read it."""
        await self.close(frames.CLOSE_NOT_ALLOWED, f"You may not read {topic!r} any more.")

    async def _close_for(self, error: RealtimeError) -> None:
        await self.close(error.close_code, str(error))

    async def _take_place(self, identity: Identity) -> None:
        """Count this as a connection of `identity`; raises `TooManyRequests`."""
        self._client = Client(identity, self.scope)
        await self._client.require_place()
        self._client.connect()

    async def count_for(self, identity: Identity) -> None:
        """Count what comes from now on for `identity`; raises `TooManyRequests`."""
        client, limits = Client(identity, self.scope), await self._limits.renewed(identity)
        client.replace(self._client)
        self._client, self._limits = client, limits

    async def _require_again(self, topic: str, *actions: Action) -> None:
        """Ask again where the user was checked again meanwhile; raises what `require` does.

        A check passes over a topic that is about to be subscribed: the rule was asked by then, and
        perhaps about the user before.
        """
        asked = 0
        while asked != self._rechecks:
            asked = self._rechecks
            for action in actions:
                await require(self.identity.user, topic, action)

    async def _count(self, message: Message) -> None:
        """Count a message that has come; raises `RateLimited`."""
        if self._limits is NO_LIMITS:
            self._limits = await ConnectionLimits.of(self._client.identity)
        self._limits.take_message(frames.size_of(message))

    async def _refuse_message(self, error: RealtimeError, ref: Any) -> None:
        await self.send_error(error.code, str(error), ref, **error.fields)
        self._refusals = self._refusals or Refusals()
        if end := self._refusals.add(error):
            if isinstance(error, RateLimited):
                self._client.keep_out()
            await self.close(*end)

    async def event(self, event: Event) -> None:
        """Write one event of a subscribed topic to the socket."""
        text = frames.event_text_with_meta if self.has_meta else frames.event_text
        await self.send_text(text(event))

    async def reset(self, reset: Reset) -> None:
        """Tell the client that history is gone."""
        await self.send_text(frames.reset_text(reset.topic, reset.position))

    async def presence(self, notice: str) -> None:
        """Tell who is on a topic, or who has come and left: `notice` is a JSON object."""
        await self.send_text(f'{{"type":"presence",{notice[1:]}')

    async def _accept(self) -> None:
        offered = self.scope.get("subprotocols", ())
        chosen = next((name for name in self.subprotocols if name in offered), None)
        await self.base_send({"type": "websocket.accept", "subprotocol": chosen})
        self._opened = live_connections.opened("websocket")

    def _note_end(self, code: int, user: Any, subscription: Subscription | None) -> None:
        if self._opened is not None:
            events, size = 0, self._sent
            if subscription is not None:
                events, size = subscription.sent_events, size + subscription.sent_bytes
            path, began = self.scope.get("path", ""), self._opened
            live_connections.closed("websocket", began, str(code), path, user, events, size)

    async def _refuse(self, error: RealtimeError) -> None:
        """Answer with HTTP where the server can, else with the bare 403 of a close."""
        HANDSHAKES.inc(error.code)
        if error.status == 429:
            await hold_back()
        detail = str(error)
        if not has_denial_response(self.scope):
            code = frames.CLOSE_NOT_IDENTIFIED if error.status == 401 else frames.CLOSE_NOT_ALLOWED
            await self.base_send({"type": "websocket.close", "code": code, "reason": detail[:100]})
            return
        status = error.status if error.status in (401, 403, 429, 503) else 400
        kind = "websocket.http.response"
        content = {"code": error.code, "detail": detail}
        await send_json(self.base_send, status, content, error.headers, kind)
