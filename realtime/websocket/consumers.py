"""The WebSocket consumer that a team subclasses."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from channels.consumer import AsyncConsumer

from ..access.authentication import authenticate, authenticate_token
from ..access.connections import get_connections
from ..access.hosts import check_host
from ..access.identity import EVERY_CREDENTIAL, Authentication, Credential, Identity
from ..access.origins import check_origin
from ..access.permissions import User, require_signed_in
from ..access.scopes import require_unscoped
from ..conf import settings
from ..delivery.topic_subscriber import Started
from ..events.position import parse_position
from ..events.topic import validate_topic
from ..exceptions import NotIdentified, RealtimeError
from ..server.extensions import disconnect_event, fastlane
from ..utils.aio import spawn
from ..utils.asgi import Message, Receive, Scope, Send
from ..utils.outages import ANSWERED_ERRORS, answer_to
from . import messages as frames
from .heartbeat import Heartbeat
from .receive import BufferedReceive
from .socket import ConsumerState, Socket
from .topic_writer import TopicWriter

logger = logging.getLogger("realtime.consumers")


class WebSocketConsumer(Socket, AsyncConsumer):
    """A WebSocket with everything that is easily forgotten: origin, identity, heartbeats, limits.

    Override `connected`, `received` and `disconnected`. Messages are handled one at a time, in
    order; a disconnect cancels the handler of one after `HANDLER_GRACE_SECONDS`.
    """

    #: What a message is: "json" (a text or binary frame with a JSON value), "text" or "bytes".
    accepts: ClassVar[frames.Accepts] = "json"
    #: "required": 401 before the socket opens; "message": the first message is
    #: `{"token": "..."}`; "optional": anonymous users too.
    authentication: ClassVar[Authentication] = "required"
    #: Which credentials count.
    credentials: ClassVar[frozenset[Credential]] = EVERY_CREDENTIAL
    #: Whether `{"type": "ping"}` is sent every `HEARTBEAT_SECONDS`. A client that has answered one
    #: and is then silent for two intervals is closed. (Others get the server's protocol pings.)
    heartbeat: ClassVar[bool] = False
    #: Whether tokens with scopes may open it: it asks `realtime.require` about all it does then.
    is_scoped: ClassVar[bool] = False

    # As class attributes: a socket keeps only what differs.
    _heartbeat: Heartbeat | None = None
    _deadline: asyncio.TimerHandle | None = None  # for the first message
    _grace: asyncio.TimerHandle | None = None
    _writer: TopicWriter | None = None

    # -- to override

    async def prepare(self) -> None:
        """Subscribe, or load what the socket needs: the user is known and it is about to open.

        What is subscribed here misses nothing that is published once the client sees it open. To
        send is a RuntimeError: greet in `connected`.
        """

    async def connected(self) -> None:
        """Greet the client: the socket is open and its user known."""

    async def received(self, content: Any) -> None:
        """Handle a message: a JSON value, a str or bytes, as `accepts` says."""

    async def disconnected(self, code: int) -> None:
        """Clean up after the socket was closed by either side; 1006 where the peer was lost."""

    async def authorize(self) -> None:
        """Raise `NotAllowed` to refuse a user that is known by now (HTTP 403)."""

    # -- to call

    @property
    def user(self) -> User:
        """Return the user; AnonymousUser where `authentication` allows it."""
        return self.identity.user

    # -- the life of a socket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            check_host(self.scope)
            credentials = self.credentials & check_origin(self.scope)
            if self.authentication != "message":
                await self._admit(await authenticate(self.scope, credentials))
                if self._state is ConsumerState.CLOSING:
                    raise NotIdentified("You have been signed out, or lost your rights, just now.")
        except ANSWERED_ERRORS as error:
            await self._refuse(answer_to(error))
            return False
        self._state = max(self._state, ConsumerState.AUTHENTICATING)  # so a close meanwhile is sent
        await self._accept()
        return True

    async def _check_request(self) -> None:
        """Raise what is wrong with the address itself; for subclasses."""

    async def _serve(self, receive: Receive) -> int:
        """Handle what comes until the disconnect; return the close code."""
        task = asyncio.current_task()
        if self.authentication == "message":
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(settings.FIRST_MESSAGE_SECONDS, self._no_token_came)
        else:
            await self._handle(None, task)
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or 1005)
            if self._state < ConsumerState.CLOSING:
                if self._heartbeat is not None:
                    self._heartbeat.hear()
                await self._handle(message, task)

    async def _handle(self, message: Message | None, task: asyncio.Task[Any] | None) -> None:
        self._handling = task
        try:
            if self._state < ConsumerState.OPEN:
                if message is not None:
                    await self._authenticate_by(message)
                await self._begin()
            elif message is not None:
                await self._dispatch(message)
        except ANSWERED_ERRORS as error:
            await self._close_for(answer_to(error))
        except Exception:
            logger.exception("A WebSocket consumer failed: %s", type(self).__name__)
            await self.close(frames.CLOSE_ERROR, "The server failed to handle this; reconnect.")
        except asyncio.CancelledError:
            if self._state is not ConsumerState.CLOSED:
                raise
            # Cancelled by _give_up; what is left to do is to receive the disconnect.
            self._handling.uncancel()  # type: ignore[union-attr]
        finally:
            self._handling = None

    async def _begin(self) -> None:
        if self._state is ConsumerState.AUTHENTICATING:
            self._state = ConsumerState.OPEN
            if self.heartbeat:
                self._heartbeat = Heartbeat(self)
            await self.connected()
            self._start_writing()

    def _peer_has_left(self) -> None:
        # What was received is still handled, "publish, then close" publishes; but not for long.
        loop = asyncio.get_running_loop()
        self._grace = loop.call_later(settings.HANDLER_GRACE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._state = ConsumerState.CLOSED
        if self._handling is not None:
            self._handling.cancel()

    async def _dispatch(self, message: Message) -> None:
        content, self._rechecks = None, 0
        try:
            await self._count(message)
            content = self._content_of(message, self.accepts)
            is_pong = isinstance(content, dict) and content.get("type") == "pong"
            if self._heartbeat is not None and is_pong:
                self._heartbeat.answer()
            else:
                await self.received(content)
        except ANSWERED_ERRORS as caught:
            ref = frames.ref_in(message) if content is None else frames.ref_of(content)
            await self._refuse_message(answer_to(caught), ref)

    def _no_token_came(self) -> None:
        seconds = settings.FIRST_MESSAGE_SECONDS
        spawn(self.close(frames.CLOSE_NO_AUTH_IN_TIME, f"No token came within {seconds:g} s."))

    async def _authenticate_by(self, message: Message) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        await self._admit(await authenticate_token(frames.token_of(message)))

    async def _admit(self, identity: Identity) -> None:
        self._identify(identity)
        await self._take_place(identity)
        await self._check_request()
        await self.authorize()
        await self.prepare()

    def _identify(self, identity: Identity) -> None:
        if not self.is_scoped:
            require_unscoped(identity.user)
        # Before the rule is asked: of what changes from here on, this socket is told.
        connections = get_connections()
        connections.add(identity, self)
        if identity != self.identity:
            connections.discard(self.identity, self)
        self.identity, self.scope["user"] = identity, identity.user
        if self.authentication != "optional":
            require_signed_in(identity.user)

    async def _clean_up(self, code: int) -> None:
        self._state = ConsumerState.CLOSED
        for timer in filter(None, (self._deadline, self._grace)):
            timer.cancel()
        if self._heartbeat is not None:
            self._heartbeat.stop()
        get_connections().discard(self.identity, self)
        self._client.disconnect()
        if self._writer is not None:
            await self._writer.close()
        self._note_end(code, self.user, getattr(self._writer, "subscription", None))
        self._heartbeat = self._writer = None  # they refer to this: no work for the collector
        await self.disconnected(code)

    # -- while it lives

    async def recheck(self, identity: Identity | None) -> None:
        """Close the socket if its user, who may have changed, may no longer have it."""
        if identity is None:
            await self.close(frames.CLOSE_NOT_IDENTIFIED, "Signed out, or the token has ended.")
            return
        try:
            self._identify(identity)
            self._rechecks += 1
            await self.authorize()
        except RealtimeError as error:
            return await self._close_for(error)
        if self._writer is not None:
            await self._writer.recheck()

    # -- topics

    @property
    def topics(self) -> list[str]:
        """Return what this socket is subscribed to."""
        return self._writer.subscription.topics if self._writer is not None else []

    async def subscribe(
        self,
        topic: str,
        after: str | None = None,
        on_start: Callable[[Started], Awaitable[None]] | None = None,
        presence: bool = False,
    ) -> Started:
        """Send this socket the topic's events: after an id, or from now on; and who is there.

        Permission is the caller's business (`require`), right before. Raises ValueError when
        subscribed, and what `require` does where the right is lost in the hook that has asked.
        """
        topic, position = validate_topic(topic), None if after is None else parse_position(after)
        await self._require_again(topic, *(("read", "presence") if presence else ("read",)))
        if self._state is ConsumerState.CLOSED:
            raise RuntimeError("The socket is closed.")
        if self._writer is None:
            self._writer = TopicWriter(self)
        if self._state is ConsumerState.OPEN:
            self._start_writing()
        return await self._writer.add(topic, position, on_start, presence)

    def unsubscribe(self, topic: str) -> bool:
        """Send no more of this topic; return False if it was not subscribed."""
        if self._writer is None or topic not in self.topics:
            return False
        self._writer.subscription.remove(topic)
        return True

    def _start_writing(self) -> None:
        if self._writer is not None:
            # A consumer that writes its own events goes without the fast lane.
            is_standard = type(self).event is Socket.event
            self._writer.start(fastlane(self.scope) if is_standard else None)
