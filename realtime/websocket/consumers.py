"""The WebSocket consumer that a team subclasses."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final, Literal

from channels.consumer import AsyncConsumer

from ..access.authentication import authenticate, authenticate_token
from ..access.connections import get_watch
from ..access.identity import ANONYMOUS, EVERY_CREDENTIAL, Credential, Identity
from ..access.origins import origin_allowed
from ..access.permissions import User, may
from ..conf import settings
from ..delivery.topic_subscriber import Reset, Started
from ..events.event import Event
from ..events.payload import decode_data, dumps
from ..events.position import parse_position
from ..events.topic import validate_topic
from ..exceptions import (
    InvalidData,
    NotAllowed,
    NotIdentified,
    RealtimeError,
)
from ..server.extensions import disconnect_event, fastlane
from ..utils.aio import spawn
from . import messages as frames
from .receive import BufferedReceive, Receive
from .topic_writer import TopicWriter

logger = logging.getLogger("realtime.consumers")

MAX_REASON_BYTES: Final = 123  # RFC 6455, section 5.5: a control frame has 125, two for the code


class Refused(Exception):
    """The handshake is answered with an HTTP status instead of an open socket."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class WebSocketConsumer(AsyncConsumer):
    """A WebSocket with everything that is easily forgotten: origin, identity, heartbeats, limits.

    Override `connected`, `received` and `disconnected`. Messages are handled one at a time, in
    order; while one is handled, a disconnect is still noticed, and cancels the handler after
    `HANDLER_GRACE_SECONDS`.
    """

    #: What a message is: "json" (a text or binary frame with a JSON value), "text" or "bytes".
    accepts: ClassVar[Literal["json", "text", "bytes"]] = "json"
    #: "required": 401 before the socket opens; "message": the first message is
    #: `{"token": "..."}`; "optional": anonymous users too.
    authentication: ClassVar[Literal["required", "message", "optional"]] = "required"
    #: Which credentials count.
    credentials: ClassVar[frozenset[Credential]] = EVERY_CREDENTIAL
    #: Whether `{"type": "ping"}` is sent every `HEARTBEAT_SECONDS`. A client that has answered one
    #: with a pong, and then is silent for two intervals, is closed. (One that never answers is
    #: watched by the server's protocol pings alone.)
    heartbeat: ClassVar[bool] = False

    identity: Identity = ANONYMOUS
    scope: dict[str, Any]
    # State as class attributes: a socket keeps only what differs.
    _open = False
    _done = False  # closed from here: a user who is signed out gives no more orders
    _live = False  # open, and `prepare` done: events may go out
    _bad_messages = 0
    _answered_ping = False
    _last_received = 0.0
    _out_of_time = False  # the peer has left, and the handler had its grace
    _handling: asyncio.Task[Any] | None = None
    _pinging: asyncio.Task[None] | None = None
    _timer: asyncio.TimerHandle | None = None
    _grace: asyncio.TimerHandle | None = None
    _writer: TopicWriter | None = None

    # -- to override

    async def prepare(self) -> None:
        """The user is known and the socket about to open. What is subscribed here misses nothing
        that is published once the client sees its socket open."""

    async def connected(self) -> None:
        """The socket is open and its user known."""

    async def received(self, content: Any) -> None:
        """A message has come: a JSON value, a str or bytes, as `accepts` says."""

    async def disconnected(self, code: int) -> None:
        """The socket is closed, by whichever side; 1006 where the peer was lost."""

    async def authorize(self) -> None:
        """Raise `NotAllowed` to refuse who is known by now (HTTP 403); other errors likewise."""

    # -- to call

    @property
    def user(self) -> User:
        """Who this is; AnonymousUser where `authentication` allows it."""
        return self.identity.user

    async def send_json(self, value: Any) -> None:
        """Send a JSON value as a text frame."""
        if self._open:
            await self.base_send({"type": "websocket.send", "text": dumps(value)})

    async def send_text(self, text: str) -> None:
        """Send a text frame; waits while the peer does not read."""
        if self._open:
            await self.base_send({"type": "websocket.send", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame; waits while the peer does not read."""
        if self._open:
            await self.base_send({"type": "websocket.send", "bytes": data})

    async def send_error(self, code: str, detail: str, ref: Any = None) -> None:
        """Send an error frame: `code` for programs, `detail` with what to do."""
        await self.send_text(frames.error_text(code, detail, ref))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket; what was received and not handled yet is not handled any more. A
        reason over 123 bytes is cut."""
        self._done = True
        if self._open:
            self._open = False
            reason = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
            await self.base_send({"type": "websocket.close", "code": code, "reason": reason})

    # -- the life of a socket

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Receive,
        send: Callable[[Mapping[str, Any]], Awaitable[None]],
    ) -> None:
        # Not AsyncConsumer's own loop: it gives every socket a channel of the layer and sends
        # every message through a thread (to close old connections, of which we hold none).
        self.scope = scope
        self.base_send = send
        if (await receive())["type"] != "websocket.connect":
            return
        gone = disconnect_event(scope)
        buffered = None
        if gone is None:
            buffered = BufferedReceive(receive, settings.INBOX_MESSAGES)
            receive, gone = buffered.receive, buffered.disconnect_event
        code = 1006
        gone.add_callback(self._peer_has_left)
        try:
            if await self._handshake():
                code = await self._serve(receive)
        finally:
            if buffered is not None:
                buffered.close()
            await self._clean_up(code)

    async def _handshake(self) -> bool:
        try:
            if not origin_allowed(self.scope):
                raise Refused(403, "This origin is not allowed (ALLOWED_ORIGINS).")
            if self.authentication != "message":
                self.identity = await authenticate(self.scope, self.credentials)
                if self.authentication == "required" and not self.user.is_authenticated:
                    raise NotIdentified("Sign in, or send an access token.")
                # Before the rule is asked: of what changes from here on, this socket is told.
                get_watch().add(self.identity, self)
                await self._check_request()
                await self.authorize()
                await self.prepare()
                if self._done:
                    raise NotIdentified("You have been signed out, or lost your rights, just now.")
        except Refused as refusal:
            await self._refuse(refusal.status, refusal.detail)
        except NotIdentified as error:
            await self._refuse(401, str(error))
        except NotAllowed as error:
            await self._refuse(403, str(error))
        except RealtimeError as error:
            await self._refuse(400, str(error))
        else:
            self.scope["user"] = self.user
            await self.base_send({"type": "websocket.accept"})
            self._open = True
            return True
        return False

    async def _check_request(self) -> None:
        """What a subclass finds wrong with the address itself."""

    async def _refuse(self, status: int, detail: str) -> None:
        """An HTTP answer where the server can give one, else the bare 403 of a close."""
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            code = frames.CLOSE_NOT_IDENTIFIED if status == 401 else frames.CLOSE_NOT_ALLOWED
            await self.base_send({"type": "websocket.close", "code": code, "reason": detail[:100]})
            return
        body = dumps({"detail": detail}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110, section 15.5.2
        start = {"type": "websocket.http.response.start", "status": status, "headers": headers}
        await self.base_send(start)
        await self.base_send({"type": "websocket.http.response.body", "body": body})

    async def _serve(self, receive: Receive) -> int:
        """Handle what comes until the disconnect; returns the close code."""
        if self.authentication == "message":
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(settings.FIRST_MESSAGE_SECONDS, self._no_token_came)
        else:
            await self._handle(None)
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1005)
            if not self._done:
                self._last_received = asyncio.get_running_loop().time()
                await self._handle(message)

    async def _handle(self, message: Mapping[str, Any] | None) -> None:
        self._handling = asyncio.current_task()
        try:
            if not self._live:
                if message is not None:
                    await self._authenticate_by(message)
                await self._begin()
            elif message is not None:
                await self._dispatch(message)
        except RealtimeError as error:
            await self._close_for(error)
        except Exception:
            logger.exception("A WebSocket consumer failed: %s", type(self).__name__)
            await self.close(frames.CLOSE_ERROR, "The server failed to handle this; reconnect.")
        except asyncio.CancelledError:
            if not self._out_of_time:
                raise
            # Cancelled by _give_up; what is left to do is to receive the disconnect.
            self._handling.uncancel()  # type: ignore[union-attr]
        finally:
            self._handling = None

    async def _begin(self) -> None:
        self._start_heartbeat()
        self._live = True
        await self.connected()
        self._start_writing()

    def _peer_has_left(self) -> None:
        """What was received is still handled, "publish, then close" publishes; but not for long."""
        loop = asyncio.get_running_loop()
        self._grace = loop.call_later(settings.HANDLER_GRACE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._done = self._out_of_time = True
        if self._handling is not None:
            self._handling.cancel()

    async def _dispatch(self, message: Mapping[str, Any]) -> None:
        try:
            content = self._decode(message)
        except InvalidData as error:
            await self._bad_message("bad_message", str(error))
            return
        if self.heartbeat and isinstance(content, dict) and content.get("type") == "pong":
            self._answered_ping = True
            return
        try:
            await self.received(content)
        except RealtimeError as error:
            await self._bad_message(error.code, str(error), frames.ref_of(content))

    def _decode(self, message: Mapping[str, Any]) -> Any:
        text, data = message.get("text"), message.get("bytes")
        if self.accepts == "text":
            if text is None:
                raise InvalidData("Send text frames here; this was binary.")
            return text
        if self.accepts == "bytes":
            if data is None:
                raise InvalidData("Send binary frames here; this was text.")
            return data
        return decode_data(text if text is not None else data or b"")

    async def _bad_message(self, code: str, detail: str, ref: Any = None) -> None:
        self._bad_messages += 1
        await self.send_error(code, detail, ref)
        if self._bad_messages >= settings.MAX_BAD_MESSAGES:
            await self.close(frames.CLOSE_BAD_MESSAGE, f"{self._bad_messages} messages were wrong.")

    def _no_token_came(self) -> None:
        seconds = settings.FIRST_MESSAGE_SECONDS
        spawn(self.close(frames.CLOSE_NO_AUTH_IN_TIME, f"No token came within {seconds:g} s."))

    async def _authenticate_by(self, message: Mapping[str, Any]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            content = decode_data(message.get("text") or message.get("bytes") or b"")
        except InvalidData:
            content = None
        if not isinstance(content, dict) or not isinstance(content.get("token"), str):
            raise NotIdentified('The first message has to be {"token": "..."}.')
        self.identity = await authenticate_token(content["token"])
        get_watch().add(self.identity, self)
        self.scope["user"] = self.user
        await self.authorize()
        await self.prepare()

    async def _close_for(self, error: RealtimeError) -> None:
        code = frames.CLOSE_BAD_MESSAGE
        if isinstance(error, NotAllowed):
            code = frames.CLOSE_NOT_ALLOWED
        elif isinstance(error, NotIdentified):
            code = frames.CLOSE_NOT_IDENTIFIED
        await self.close(code, str(error))

    async def _clean_up(self, code: int) -> None:
        self._open = False
        self._done = True
        for timer in (self._timer, self._grace):
            if timer is not None:
                timer.cancel()
        get_watch().discard(self.identity, self)
        if self._writer is not None:
            await self._writer.close()
        await self.disconnected(code)

    # -- while it lives

    async def recheck(self, identity: Identity | None) -> None:
        """Called when the user may have changed; close the socket of who may no longer have it."""
        if identity is None:
            await self.close(frames.CLOSE_NOT_IDENTIFIED, "You are signed out.")
            return
        self.identity = identity
        try:
            await self.authorize()
        except RealtimeError as error:
            await self._close_for(error)
            return
        for topic in self.topics:
            if not await may(self.user, topic, "read"):
                await self.lost_permission(topic)

    async def fail(self) -> None:
        """Called when it can't be told whether the socket may stay."""
        await self.close(frames.CLOSE_ERROR, "The server could not check your rights; reconnect.")

    async def lost_permission(self, topic: str) -> None:
        """The user may no longer read a topic that this socket is subscribed to."""
        await self.close(frames.CLOSE_NOT_ALLOWED, f"You may not read {topic!r} any more.")

    def _start_heartbeat(self) -> None:
        if self.heartbeat:
            loop = asyncio.get_running_loop()
            self._last_received = loop.time()
            self._timer = loop.call_later(settings.HEARTBEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        interval = settings.HEARTBEAT_SECONDS
        if self._answered_ping and loop.time() - self._last_received > 2 * interval:
            spawn(self.close(frames.CLOSE_ERROR, "No answer to two heartbeats; reconnect."))
            return
        self._timer = loop.call_later(interval, self._beat)
        if self._pinging is None or self._pinging.done():  # it waits while the peer does not read
            self._pinging = spawn(self.send_text(frames.PING))

    # -- topics

    @property
    def topics(self) -> list[str]:
        """What this socket is subscribed to."""
        return self._writer.subscription.topics if self._writer is not None else []

    async def subscribe(
        self,
        topic: str,
        after: str | None = None,
        on_start: Callable[[Started], Awaitable[None]] | None = None,
    ) -> Started:
        """Send this socket the topic's events: after an id, or from now on.

        Permission is the caller's business (`access.permissions.require`). Events go out as
        `event` writes them. Raises `InvalidTopic`, `InvalidPosition`, ValueError when subscribed.
        """
        position = None if after is None else parse_position(after)
        if self._writer is None:
            self._writer = TopicWriter(self)
        if self._live:
            self._start_writing()
        return await self._writer.subscription.add(validate_topic(topic), position, on_start)

    def unsubscribe(self, topic: str) -> bool:
        """Send no more of this topic; False if it was not subscribed."""
        if self._writer is None or topic not in self.topics:
            return False
        self._writer.subscription.remove(topic)
        return True

    async def event(self, event: Event) -> None:
        """Write one event of a subscribed topic to the socket."""
        await self.send_text(frames.event_text(event))

    async def reset(self, reset: Reset) -> None:
        """Tell the client that history is gone."""
        await self.send_text(frames.reset_text(reset.topic, reset.position))

    def _start_writing(self) -> None:
        if self._writer is not None:
            # A consumer that writes its own events goes without the fast lane.
            is_standard = type(self).event is WebSocketConsumer.event
            self._writer.start(fastlane(self.scope) if is_standard else None)
