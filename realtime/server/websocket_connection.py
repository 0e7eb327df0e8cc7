"""WebSocket connections (RFC 6455): from the bytes of a transport to ASGI messages and back.

Daphne builds an HTTP request, writes it out again for Autobahn to parse, and keeps both; here a
handshake is dropped once it is answered, and a parser where nothing is incomplete.
"""

import asyncio
from enum import IntEnum, auto
from typing import Any, Final

from realtime.server import access_log, frames, scope
from realtime.server.counters import counters
from realtime.server.disconnect import DisconnectEvent
from realtime.server.frames import FrameError, FrameParser
from realtime.server.handshake import Handshake, HandshakeError, Header
from realtime.server.http_request import RequestHead
from realtime.server.state import ServerState
from realtime.server.timeouts import CHECKS_BEFORE_PING, cancel_after
from realtime.server.transport import Transport

Message = dict[str, Any]

MAX_EARLY: Final = 65_536
"""Bytes a client may send before it has been accepted."""
MESSAGES_IN_A_ROW: Final = 8  # that an application takes before the others have a turn
CLOSE_DELAY: Final = 1.0
"""Seconds in which an application may deal with what came before a close, until it is answered."""
CAN_NOT_CLOSE: Final = (
    "The application can't close %s with the code %r and the reason %r: a code is 1000 to 1003, "
    "1007 to 1014 or 3000 to 4999, and a reason is text. It is closed with 1011."
)
RESTART_REASON: Final = "The server is restarting"
TOO_SLOW: Final = "The message did not arrive in time"
RETRY_AFTER: Final = (b"retry-after", b"1")


class State(IntEnum):
    """The states of a connection, in the order in which they can follow one another."""

    CONNECTING = auto()  # the handshake is not answered
    DENYING = auto()  # the application answers it with an HTTP response
    OPEN = auto()
    CLOSE_RECEIVED = auto()  # or a breach of the protocol: our close frame is due
    CLOSE_SENT = auto()  # the peer's is due
    CLOSED = auto()  # nothing more is read or written; the transport flushes and closes


CONNECTING, DENYING, OPEN, CLOSE_RECEIVED, CLOSE_SENT, CLOSED = State


class WebSocketConnection:
    """One WebSocket connection and its application."""

    __slots__ = (
        "_bucket",
        "_bytes",
        "_client",
        "_ending",
        "_handshake",
        "_has_disconnect",
        "_has_sent",
        "_in_a_row",
        "_opened",
        "_parser",
        "_pong",
        "_queue",
        "_silent",
        "_waiter",
        "_whole_limit",
        "gone",
        "path",
        "server",
        "state",
        "task",
        "transport",
    )

    def __init__(self, server: ServerState, transport: Transport, head: RequestHead) -> None:
        self.server = server
        self.transport = transport
        self._client = transport.peer
        self.path = access_log.redact(head.target.decode("ascii"))
        self.gone = DisconnectEvent()
        self.state = CONNECTING
        self.task: asyncio.Task[None] | None = None
        self._handshake: Handshake | None = Handshake(head, server.server_header)
        self._parser: FrameParser | None = None  # only while something is incomplete
        self._whole_limit = min(
            server.websocket_max_frame_size or frames.MAX_WHOLE,
            server.websocket_max_message_size or frames.MAX_WHOLE,
        )
        self._queue: list[Message] = [{"type": "websocket.connect"}]
        self._bytes = 0  # of the messages in the queue
        self._waiter: asyncio.Future[None] | None = None
        self._has_sent = False  # the application has, since it last waited
        self._in_a_row = 0  # messages that it took since others had a turn
        self._has_disconnect = False  # it is in the queue, or has been received
        # The close frame that is due, and the code and reason that the application is told.
        self._ending = b"", frames.ABNORMAL, ""
        self._pong: bytes | None = None  # a ping's payload, when its pong has to wait
        self._silent = 0  # checks since something was heard
        self._opened = server.loop.time()
        transport.receiver = self
        transport.renew_lane()  # the lane of an earlier response on this connection is shut
        self._bucket = server.timeouts.add(self)

    def _transition(self, state: State) -> None:
        """Enter a later state, and do what has to be done there by whatever way it is reached."""
        before, self.state = self.state, state
        assert before < state, f"{state.name} can't follow {before.name}"
        if state is OPEN:
            self._handshake = None  # a large part of an idle connection's memory
        elif state is CLOSE_RECEIVED:
            self.gone.set()
        elif state is CLOSE_SENT:
            if self.transport.lane is not None:
                self.transport.lane.shut()
            self.transport.resume_reading()
            self.server.loop.call_later(self.server.limits.close_timeout, self.transport.abort)
        elif state is CLOSED:
            self._parser = None
            _, code, reason = self._ending
            self._queue_disconnect(code, reason)
            self.gone.set()
            self._log("disconnected" if before >= OPEN else "rejected")
            self.server.timeouts.remove(self, self._bucket)
            self.transport.close(linger=True)
            self._cancel_later()

    # The handshake

    def begin(self, rest: bytes) -> None:
        """Check the handshake and start the application; rest is what followed the request."""
        server, handshake = self.server, self._handshake
        assert handshake is not None
        server.connections.add(self)
        try:
            handshake.check()
        except HandshakeError as error:
            counters.handshake_refused("bad_handshake")
            self._refuse(error.status, error.reason, *error.headers)
            return
        if server.is_draining:
            self._refuse(503, RESTART_REASON, RETRY_AFTER)
            return
        if rest:
            self.data_received(rest)
            if self.state is CLOSED:
                return
        built = scope.build("websocket", handshake.head, self.transport, self.gone, server)
        self._client = built["client"]
        built["subprotocols"] = list(handshake.subprotocols)
        built["extensions"]["websocket.http.response"] = {}
        server.sessions.add(self)
        self.task = server.loop.create_task(server.application(built, self.receive, self.send))
        self.task.add_done_callback(self._done)
        self._log("connecting")

    def _refuse(self, status: int, reason: str, *headers: Header) -> None:
        assert self._handshake is not None
        self.transport.write(self._handshake.refuse(status, reason, *headers))
        self._transition(CLOSED)

    def _accept(self, message: Message) -> None:
        assert self._handshake is not None
        answer = self._handshake.accept(message)
        self._transition(OPEN)
        self.transport.write(answer)
        if self.transport.closed:
            return
        if self.transport.lane is not None:
            self.transport.lane.open(frames.frame_text)
        self._log("connected")
        self._parse()

    async def _answer_handshake(self, message: Message) -> None:
        kind = message["type"]
        assert self._handshake is not None
        if self.state is DENYING:
            if kind != "websocket.http.response.body":
                raise ValueError(f"After a denial's start, {kind!r} can't be sent.")
            more = message.get("more_body", False)
            self.transport.write(self._handshake.denial_body(message.get("body", b""), more))
            if not more:
                self._transition(CLOSED)
            await self.transport.drain()
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.http.response.start":
            self._handshake.deny(message["status"], message.get("headers", ()))
            self._transition(DENYING)
        else:
            raise ValueError(f"A WebSocket that is not accepted yet can't send {kind!r}.")

    # Called by the transport

    def data_received(self, data: bytes) -> None:
        """Take what the peer has sent."""
        self._silent = 0
        if self._parser is None and self.state is OPEN:
            # The common case: one whole message.
            try:
                message = frames.parse_whole(data, self._whole_limit)
            except FrameError as error:
                self._fail(error)
                return
            if message is not None:
                self._deliver(message)
                return
        if self.state in (DENYING, CLOSE_RECEIVED, CLOSED):
            return
        parser, server = self._parser, self.server
        now, rate = server.loop.time(), server.limits.min_receive_rate
        if parser is None:
            parser = self._parser = FrameParser(
                server.websocket_max_frame_size, server.websocket_max_message_size
            )
            parser.since = now
        parser.since = min(now, parser.since + len(data) / rate) if rate else now
        parser.feed(data)
        if self.state is not CONNECTING:
            self._parse()
        elif parser.waiting > MAX_EARLY:
            self._refuse(400, "Too much data before the handshake was answered.")

    def _parse(self) -> None:
        """Take one frame after the other, as long as there is room for messages."""
        parser = self._parser
        if parser is None:
            return
        try:
            while self.state is CLOSE_SENT or (self.state is OPEN and not self._is_full):
                frame = parser.next()
                if frame is None:
                    if parser.is_idle:
                        self._parser = None
                    return
                self._receive_frame(frame.opcode, frame.payload)
        except FrameError as error:
            self._fail(error)
        if self.state is OPEN:
            self.transport.pause_reading()

    def _receive_frame(self, opcode: int, payload: Any) -> None:
        if opcode == frames.CLOSE:
            code, reason = frames.decode_close(payload)
            self._receive_close(frames.encode_close(code), code, reason)
        elif self.state is CLOSE_SENT:
            pass  # section 1.4: what comes after our close frame is not ours to read
        elif opcode in (frames.TEXT, frames.BINARY):
            self._deliver(payload)
        elif opcode == frames.PING:
            if self.transport.pending:
                self._pong = payload  # section 5.5.3: only the latest ping needs a pong
            else:
                self.transport.write(frames.encode(frames.PONG, payload))

    def eof_received(self) -> None:
        """Answer a close that is due, for the peer may still be reading; else give it up."""
        if self.state is CLOSE_RECEIVED:
            self._answer_close()
        else:
            self.transport.abort()

    def peer_left(self, reset: bool) -> None:
        """Tell the application, which may take what the peer sent before it left."""
        if reset:
            self.transport.abort()
        elif not self.gone.is_set():
            self.gone.set()
            self._cancel_later()

    def flushed(self) -> None:
        """Send the pong that had to wait."""
        if self._pong is not None and self.state is OPEN:
            pong, self._pong = self._pong, None
            self.transport.write(frames.encode(frames.PONG, pong))

    def connection_lost(self) -> None:
        """End what has not ended before the transport did."""
        self.server.connections.discard(self)
        if self.state is not CLOSED:
            self._transition(CLOSED)

    # Called by the timeouts

    def check(self, now: float) -> None:
        """Ping a peer that has been silent, and give up one that does not answer."""
        server, age = self.server, now - self._opened
        if self.state is CONNECTING:
            if 0 <= server.websocket_connect_timeout < age:
                self._refuse(503, "The application did not respond in time.")
        elif self.state is not OPEN:
            return
        elif 0 <= server.websocket_timeout < age:
            self.close(frames.NORMAL, "")
        elif self._is_too_slow(now):
            self._fail(FrameError(frames.POLICY_VIOLATION, TOO_SLOW))
        elif self.transport.pending or not self.transport.reading:
            self._silent = 0  # it can't get a ping, or we do not read its pong
        else:
            self._silent += 1
            if self._silent == CHECKS_BEFORE_PING:
                self.transport.write(frames.encode(frames.PING, b""))
            elif self._silent >= server.dead_after:
                self.transport.abort()

    def _is_too_slow(self, now: float) -> bool:
        """Return whether a message has begun that does not arrive at the minimum rate."""
        parser = self._parser
        if parser is None:
            return False
        if not self.transport.reading:
            parser.since = now  # it is not the peer that is waited for
        return now - parser.since >= self.server.limits.body_timeout

    # The application

    @property
    def _is_full(self) -> bool:
        limits = self.server.limits
        return len(self._queue) >= limits.receive_messages or self._bytes >= limits.receive_bytes

    @property
    def _is_awaited(self) -> bool:
        """Return whether the application waits for a message."""
        return self._waiter is not None and not self._waiter.done()

    def _deliver(self, message: str | bytes) -> None:
        key = "text" if isinstance(message, str) else "bytes"
        self._queue.append({"type": "websocket.receive", key: message})
        self._bytes += len(message)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        elif self._is_full:
            counters.inbox_full()
            self.transport.pause_reading()

    def _queue_disconnect(self, code: int, reason: str) -> None:
        if self._has_disconnect:
            return
        self._has_disconnect = True
        self._queue.append({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Message:
        """Return the next message: ASGI's receive."""
        queue = self._queue
        # Not once a peer has left over TLS: in that turn its connection would end, and with it what
        # was not parsed yet.
        if queue and not (self.transport.secure and self.gone.is_set()):
            if self._in_a_row == MESSAGES_IN_A_ROW:
                self._in_a_row = 0
                await asyncio.sleep(0)  # an application that awaits nothing else holds up nobody
            self._in_a_row += 1
        while not queue:
            if self.state is CLOSE_RECEIVED:
                self._answer_close()
                continue
            if self._is_awaited:
                raise RuntimeError("receive() is already being awaited.")
            waiter = self._waiter = self.server.loop.create_future()
            self._has_sent, self._in_a_row = False, 0
            try:
                await waiter
            finally:
                if self._waiter is waiter:  # not when a cancelled receive() was replaced
                    self._waiter = None
        message = queue.pop(0)
        if self._bytes:
            self._bytes -= len(message.get("text") or message.get("bytes") or b"")
        if not self.transport.reading and not self._is_full and self.state is not CLOSED:
            self._parse()
            if not self._is_full and self.state is not CLOSED:
                self.transport.resume_reading()
        return message

    async def send(self, message: Message) -> None:
        """Return when the transport has taken everything: ASGI's send."""
        kind, state = message["type"], self.state
        if kind == "websocket.send" and (state is OPEN or state is CLOSE_RECEIVED):
            self.transport.write(_encode(message))
            if self.transport.pending:
                self._has_sent = False
                await self.transport.drain()
            elif self._has_sent:
                await asyncio.sleep(0)
            else:
                self._has_sent = True
        elif kind == "websocket.close":
            self._application_closes(message)
        elif state >= CLOSE_SENT:
            await asyncio.sleep(0)  # the peer is gone; let the application notice
        elif state >= OPEN:
            raise ValueError(f"An accepted WebSocket can't send {kind!r}.")
        else:
            await self._answer_handshake(message)

    def _application_closes(self, message: Message) -> None:
        if self.state is CONNECTING:
            self._refuse(403, "Access denied")
        elif self.state in (OPEN, CLOSE_RECEIVED):
            code, reason = message.get("code"), message.get("reason") or ""
            code = frames.NORMAL if code is None else code
            try:
                if not frames.may_arrive(code):
                    raise ValueError("There is no such close code.")
                frames.encode_close(code, reason)
            except (AttributeError, TypeError, ValueError):
                # Not raised: an application that believes it has closed would never end.
                access_log.logger.error(CAN_NOT_CLOSE, self.path, code, reason)
                code, reason = frames.INTERNAL_ERROR, ""
            self.close(code, reason)

    def _done(self, task: "asyncio.Task[None]") -> None:
        """End what the application has left open."""
        error = self.server.session_ended(self, task)
        if self.state <= DENYING:
            assert self._handshake is not None
            if self._handshake.is_denied:
                self.transport.abort()
            elif error is None and task.cancelled():
                self._refuse(503, RESTART_REASON)
            else:
                self._refuse(500, "Internal server error")
        elif self.state is CLOSE_RECEIVED:
            self._answer_close()
        elif self.state is OPEN:
            self.close(frames.NORMAL if error is None else frames.INTERNAL_ERROR, "")

    # Closing

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and wait for the peer's if it is due."""
        if self.state not in (OPEN, CLOSE_RECEIVED):
            return
        self.transport.write(frames.encode_close(code, reason))
        if self.state is CLOSE_RECEIVED:
            self._transition(CLOSED)
        else:
            self._ending = b"", code, ""
            self._transition(CLOSE_SENT)
            self._parse()

    def _fail(self, error: FrameError) -> None:
        """Close because of a breach of the protocol (section 7.1.7)."""
        answer = frames.encode_close(error.code, error.reason)
        self._receive_close(answer, error.code, error.reason)

    def _receive_close(self, answer: bytes, code: int, reason: str) -> None:
        """Answer once the application has dealt with what came before, and has sent its own.

        Section 5.5.1 lets an endpoint finish what it is sending.
        """
        self._ending = answer, code, reason
        if self.state is CLOSE_SENT:
            self._transition(CLOSED)
            return
        self._transition(CLOSE_RECEIVED)
        if self._queue or not self._is_awaited:
            self.server.loop.call_later(CLOSE_DELAY, self._answer_close)
        else:
            self._answer_close()

    def _answer_close(self) -> None:
        if self.state is CLOSE_RECEIVED:
            answer, *_ = self._ending
            self.transport.write(answer)
            self._transition(CLOSED)

    def _cancel_later(self) -> None:
        if self.task is not None and not self.task.done():
            cancel_after(self.server.application_close_timeout, self.task)

    def drain(self) -> None:
        """Close because the server shuts down."""
        if self.state is CONNECTING:
            self._refuse(503, RESTART_REASON, RETRY_AFTER)
        elif self.state in (OPEN, CLOSE_RECEIVED):
            self.close(frames.RESTARTING, RESTART_REASON)
            self._queue_disconnect(frames.RESTARTING, RESTART_REASON)
            self.gone.set()

    @property
    def is_idle(self) -> bool:
        """Return False: a WebSocket is told before it is closed."""
        return False

    def _log(self, action: str) -> None:
        self.server.log_action("websocket", action, self._client, path=self.path)


def _encode(message: Message) -> bytes:
    text, data = message.get("text"), message.get("bytes")
    if text is None:
        if data is None:
            raise ValueError("A message needs text or bytes.")
        return frames.encode(frames.BINARY, data)
    if data is not None:
        raise ValueError("A message is text or bytes, not both.")
    return frames.encode(frames.TEXT, text.encode())
